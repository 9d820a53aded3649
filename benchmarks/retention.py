"""Does a purge keep anybody waiting? python -m benchmarks.retention [--rows 10000000] [--rate 200] [--days 10].

Fills old days with events, notifications and attempts, a third of the rows each; of every other day one notification in
1,000 is live, so that it cannot be dropped and is made anew with what is needed. Then it posts at a steady rate, first
with nothing else going on and then during `manage.py purge`. 10 million rows take some 6 GB in the temporary folder.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from sqlalchemy import Engine, text

from benchmarks.client import post
from benchmarks.filled_days import FILLED, fill_day, vacuum
from benchmarks.stack import ROOT, bench_folder, granian, settings_of, stack, superuser

#: Seconds for which posts are watched before the purge, and seconds of a load.
BEFORE = 20.0
WINDOW = 1.0
#: Of so many notifications of every other day one is live.
LIVE = 1000


def _fill(engine: Engine, days: int, rows: int) -> float:
    """Fill so many old days; returns the seconds that took. Every other one has live rows."""
    began = time.time()
    last = datetime.now(UTC).date() - timedelta(days=32)
    for place in range(days):
        live = LIVE if place % 2 == 0 else 2**60
        fill_day(engine, last - timedelta(days=place), rows // days // len(FILLED), live)
    vacuum(engine)
    return time.time() - began


def _size(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


def _rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return sum(int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0) for table in FILLED)


def _watch(url: str, receiver: str, rate: float, going: Callable[[], bool]) -> dict[str, float]:
    """Post at a steady rate while something goes on; returns how long answers took, in milliseconds."""
    took: list[float] = []
    refused = 0
    while going() or not took:
        load = post(f"{url}/api/v1/events", f"{receiver}/hook", seconds=WINDOW, connections=16, rate=rate)
        took += load.took
        refused += sum(count for code, count in load.codes.items() if code != 202)
    took.sort()
    shares = {f"p{share}": took[min(len(took) - 1, len(took) * share // 100)] * 1000 for share in (50, 99)}
    return {"posts": len(took), "refused": refused, **shares, "worst": took[-1] * 1000}


def measure(rows: int, days: int, rate: float) -> dict[str, Any]:
    """Every figure of one run."""
    with (
        bench_folder() as folder,
        granian(folder, "rsgi", "benchmarks.receiver:app") as receiver,
        stack(folder) as url,
        superuser(folder) as engine,
    ):
        environment = settings_of(folder)
        filled = _fill(engine, days, rows)
        size, full = _size(engine), _rows(engine)
        until = time.time() + BEFORE
        before = _watch(url, receiver, rate, lambda: time.time() < until)
        began = time.time()
        command = [sys.executable, "manage.py", "purge"]
        purging = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE)
        ended: list[float] = []

        def goes_on() -> bool:
            if purging.poll() is not None and not ended:
                ended.append(time.time())
            return not ended

        during = _watch(url, receiver, rate, goes_on)
        said = purging.communicate()[0].decode()
        figures = {"rows": full, "bytes": size, "bytes_after": _size(engine), "rows_after": _rows(engine)}
    seconds = (ended or [time.time()])[0] - began
    return {**figures, "filled": filled, "seconds": seconds, "before": before, "during": during, "said": said}


def _table(figures: dict[str, Any]) -> Table:
    before, during = figures["before"], figures["during"]
    freed = f"{decimal(figures['bytes'])} → {decimal(figures['bytes_after'])}"
    title = (
        f"{figures['rows']:,} rows → {figures['rows_after']:,}, {freed}, purged in {figures['seconds']:.1f} s;"
        f" filled in {figures['filled']:.0f} s"
    )
    table = Table("posts", title=title, title_justify="left")
    for column in ("posts", "refused", "p50 ms", "p99", "worst"):
        table.add_column(column, justify="right")
    for name, each in (("before", before), ("during", during)):
        late = (f"{each[key]:.1f}" for key in ("p50", "p99", "worst"))
        table.add_row(name, f"{each['posts']:,}", f"{each['refused']:,}", *late)
    table.add_row("ratio", "", "", *(f"{during[key] / before[key]:.2f}" for key in ("p50", "p99", "worst")))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="events, notifications and attempts together")
    parser.add_argument("--days", type=int, default=10, help="the days on which they are spread")
    parser.add_argument("--rate", type=float, default=200, help="posts a second")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.rows, options.days, options.rate)
    if options.json:
        print(json.dumps(figures))
        return
    Console(width=None if sys.stdout.isatty() else 140).print(_table(figures))
    print("\n".join(line for line in figures["said"].splitlines() if line.startswith(("Dropped", "Made", "Deleted"))))


if __name__ == "__main__":
    main()
