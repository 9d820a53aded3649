"""How long a search takes: python -m benchmarks.search [--rows 1000000] [--days 37] [--repeat 20] [--load 0]
[--folder PATH] [--json].

Fills days with events, notifications and attempts, so many rows of each, and asks the API for every kind of search and
filtered list. Each figure is the worst of so many answers, in milliseconds. Before that each session of the API has
read the catalogue of all days, which takes a new session of Postgres some 100 ms once. With `--load 20` the loads of
benchmarks.main_path are posted for 20 seconds each, before the fill and after it: what the rows behind cost the usual
work. With `--folder` the database stays there, and a further run asks it without filling it again.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import requests
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine

from benchmarks.filled_days import vacuum
from benchmarks.main_path import measure_loads
from benchmarks.many_workers import stack_of
from benchmarks.search_cases import cases
from benchmarks.stack import superuser
from benchmarks.varied_days import fill_day, fill_once

_CONNECTIONS: Final = 64
#: Threads that fill days.
_FILLING: Final = 2

#: Answers before those that are timed: the API's sessions take turns.
_WARM: Final = 40


def worst_of(session: requests.Session, url: str, times: int) -> dict[str, Any]:
    """Ask for a path so many times; returns the status, the worst and the median time, and how much was found."""
    answer, took = session.get(url, timeout=30), []
    for _ in range(times):
        began = time.perf_counter()
        answer = session.get(url, timeout=30)
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    items = answer.json().get("items", [])
    return {"status": answer.status_code, "worst": took[-1], "median": took[len(took) // 2], "items": len(items)}


def fill_days(engine: Engine, days: int, rows: int) -> None:
    """Fill so many days in two threads, and vacuum. `engine`: of a superuser."""

    def fill_one(place: int) -> None:
        fill_day(engine, place, days, rows // days)

    with ThreadPoolExecutor(_FILLING) as threads:
        done = threads.map(fill_one, range(days))
        list(track(done, f"{rows:,} rows", total=days, console=Console(stderr=True)))
    fill_once(engine, rows // days)
    vacuum(engine)


def measure(rows: int, days: int, repeat: int, load_seconds: float, kept: Path | None = None) -> dict[str, Any]:
    """Every figure of one run, in a folder that stays, or in a temporary one."""
    with (
        stack_of(None, kept) as (folder, url, receiver),
        superuser(folder) as engine,
        requests.Session() as session,
    ):
        is_filled, loads = folder / f"filled-{rows}-{days}", {}
        if load_seconds and not is_filled.exists():
            loads["without"] = measure_loads(url, receiver, load_seconds, _CONNECTIONS)
        if not is_filled.exists():
            fill_days(engine, days, rows)
            is_filled.touch()
        with engine.connect() as connection:
            paths = cases(connection)
        for _ in range(_WARM):
            session.get(f"{url}/api/v1/search?q=ada@example.com&status=sent", timeout=30)
            session.get(f"{url}/api/v1/notifications?event_type=warm", timeout=30)
        found = {name: worst_of(session, f"{url}{path}", repeat) for name, path in paths.items()}
        if load_seconds:
            loads["with"] = measure_loads(url, receiver, load_seconds, _CONNECTIONS)
    return {"rows": rows, "days": days, "cases": found, "loads": loads}


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['rows']:,} notifications on {figures['days']} days; milliseconds"
    table = Table("what is asked", title=title, title_justify="left")
    for column in ("worst", "median", "items", "status"):
        table.add_column(column, justify="right")
    for name, each in sorted(figures["cases"].items(), key=lambda item: -item[1]["worst"]):
        table.add_row(name, f"{each['worst']:.1f}", f"{each['median']:.1f}", str(each["items"]), str(each["status"]))
    lines = [
        f"{place} the rows: {each['single']['end_to_end']:,.0f} events/s (p99 {each['single']['p99']:.0f} ms),"
        f" {each['batch']['end_to_end']:,.0f}/s in batches, p50 {each['at_100']['p50']:.1f} and"
        f" p99 {each['at_100']['p99']:.1f} ms at 100/s"
        for place, each in figures["loads"].items()
    ]
    table.caption = "\n".join(lines)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="notifications, and as many events and attempts")
    parser.add_argument("--days", type=int, default=37, help="the days on which they are spread")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--load", type=float, default=0.0, help="seconds of load before and after; 0: none")
    parser.add_argument("--folder", type=Path, help="where the database stays; empty or of a run with the same rows")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.rows, options.days, options.repeat, options.load, options.folder)
    if options.json:
        print(json.dumps(figures))
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(_table(figures))


if __name__ == "__main__":
    main()
