"""How long a search takes: python -m benchmarks.search [--rows 1000000] [--days 37] [--repeat 20] [--load 0] [--json].

Fills days with events, notifications and attempts, so many rows of each, and asks the API for every kind of search and
filtered list. Each figure is the worst of so many answers, in milliseconds. Before that each session of the API has
read the catalogue of all days, which takes a new session of Postgres some 100 ms once. With `--load 20` single events
are posted for 20 seconds before the fill and after it: what the rows behind cost the usual work.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import requests
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import URL, create_engine, make_url, text

from benchmarks.main_path import measure_load
from benchmarks.many_workers import stack_of
from benchmarks.search_cases import cases
from benchmarks.stack import settings_of
from benchmarks.varied_days import fill_day, fill_once, make_days

_CONNECTIONS: Final = 64
_WARM_SECONDS: Final = 2.0
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


def fill_days(admin: URL, days: int, rows: int) -> dict[str, str]:
    """Fill so many days in two threads, and vacuum; returns the paths of all cases. `admin`: of a superuser."""
    engine = create_engine(admin.set(drivername="postgresql+psycopg2"))

    def fill_one(place: int) -> None:
        with engine.begin() as connection:
            fill_day(connection, place, days, rows // days)

    with engine.begin() as connection:
        make_days(connection, days)
    with ThreadPoolExecutor(_FILLING) as threads:
        done = threads.map(fill_one, range(days))
        list(track(done, f"{rows:,} rows", total=days, console=Console(stderr=True)))
    with engine.begin() as connection:
        fill_once(connection, rows // days)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        paths = cases(connection)
    engine.dispose()
    return paths


def load(url: str, receiver: str, seconds: float) -> dict[str, float]:
    """Post single events for so long, after some that warm up; returns rates a second and percentiles in ms."""
    for each in (_WARM_SECONDS, seconds):
        found = measure_load(f"{url}/api/v1/events", receiver, seconds=each, connections=_CONNECTIONS)
    return {name: found[name] for name in ("ingest", "end_to_end", "p50", "p99", "lost")}


def measure(rows: int, days: int, repeat: int, load_seconds: float) -> dict[str, Any]:
    """Every figure of one run."""
    with stack_of(None) as (folder, url, receiver), requests.Session() as session:
        loads = [load(url, receiver, load_seconds)] if load_seconds else []
        # Vacuuming is the owner's, or a superuser's.
        paths = fill_days(make_url(settings_of(folder)["NOTIFIER_ADMIN_DATABASE_URL"]), days, rows)
        for _ in range(_WARM):
            session.get(f"{url}/api/v1/search?q=ada@example.com&status=sent", timeout=30)
            session.get(f"{url}/api/v1/notifications?event_type=warm", timeout=30)
        found = {name: worst_of(session, f"{url}{path}", repeat) for name, path in paths.items()}
        loads += [load(url, receiver, load_seconds)] if load_seconds else []
    return {"rows": rows, "days": days, "cases": found, "loads": loads}


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['rows']:,} notifications on {figures['days']} days; milliseconds"
    table = Table("what is asked", title=title, title_justify="left")
    for column in ("worst", "median", "items", "status"):
        table.add_column(column, justify="right")
    for name, each in sorted(figures["cases"].items(), key=lambda item: -item[1]["worst"]):
        table.add_row(name, f"{each['worst']:.1f}", f"{each['median']:.1f}", str(each["items"]), str(each["status"]))
    lines = [
        f"{place} the rows: {each['ingest']:,.0f} accepted/s, {each['end_to_end']:,.0f} delivered/s,"
        f" p99 {each['p99']:.0f} ms"
        for place, each in zip(("without", "with"), figures["loads"], strict=False)
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
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.rows, options.days, options.repeat, options.load)
    if options.json:
        print(json.dumps(figures))
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(_table(figures))


if __name__ == "__main__":
    main()
