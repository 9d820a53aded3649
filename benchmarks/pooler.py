"""The cost of a pooler: python -m benchmarks.pooler [--rounds 3] [--seconds 8] [--connections 64] [--json].

The main path directly on Postgres and through PgBouncer in transaction mode, in turns, each time on a database of its
own.
"""

import argparse
import statistics
import sys
from typing import Any, Final

from rich.table import Table

from benchmarks.main_path import measure_load
from benchmarks.output import show
from benchmarks.pgbouncer import find_pgbouncer, stack_on_postgres
from benchmarks.processor_time import descendants, seconds_by_program
from benchmarks.stack import bench_folder, granian

_WAYS: Final = ("direct", "pooled")
_WARM_SECONDS: Final = 2.0
_KEYS: Final = (
    "ingest",
    "end_to_end",
    "cpu_ms",
    "postgres_ms",
    "pgbouncer_ms",
    "p50",
    "p99",
    "lost",
    "duplicates",
    "refused",
)


def _turn(options: argparse.Namespace, *, pooled: bool) -> dict[str, dict[str, Any]]:
    """One stack's figures for single events and for batches."""
    with bench_folder() as folder, granian(folder, "rsgi", "benchmarks.receiver:app") as receiver:
        besides = descendants()
        with stack_on_postgres(folder, pooled=pooled) as url:
            events, batches = f"{url}/api/v1/events", f"{url}/api/v1/events/batch"
            single = {"seconds": options.seconds, "connections": options.connections}
            batch = {"seconds": 600, "connections": 4, "batch": 500, "most": options.events}
            measure_load(events, receiver, seconds=_WARM_SECONDS, connections=options.connections)
            began = seconds_by_program(besides)
            singles = measure_load(events, receiver, **single)
            between = seconds_by_program(besides)
            batched = measure_load(batches, receiver, **batch)
            after = seconds_by_program(besides)
    return {
        "single": {**singles, **_cpu_each(began, between, singles["arrived"])},
        "batch": {**batched, **_cpu_each(between, after, batched["arrived"])},
    }


def _cpu_each(before: dict[str, float], after: dict[str, float], arrived: int) -> dict[str, Any]:
    """Milliseconds of CPU for each notification: of all processes, and of two programs."""
    parts = {name: (seconds - before.get(name, 0.0)) / arrived * 1000 for name, seconds in after.items()}
    return {
        "cpu_ms": sum(parts.values()),
        "postgres_ms": parts["postgres"],
        "pgbouncer_ms": parts.get("pgbouncer", 0.0),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure of one run."""
    find_pgbouncer()  # whatever is missing is said before anything starts
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in _WAYS}
    for number in range(options.rounds):
        for way in _WAYS:
            print(f"Round {number + 1} of {options.rounds}, {way} …", file=sys.stderr)
            rounds[way].append(_turn(options, pooled=way == "pooled"))
    figures: dict[str, Any] = {"rounds": rounds}
    for load in ("single", "batch"):
        rows = {
            way: {key: statistics.median(each[load][key] for each in rounds[way]) for key in _KEYS} for way in _WAYS
        }
        ratios = {key: rows["pooled"][key] / rows["direct"][key] for key in ("ingest", "end_to_end", "cpu_ms")}
        figures[load] = {**rows, "ratio": ratios}
    return figures


def _table(figures: dict[str, Any]) -> Table:
    table = Table(
        "events a request", title=f"Medians of {len(figures['rounds']['direct'])} rounds", title_justify="left"
    )
    cpu = ("CPU ms each", "Postgres'", "PgBouncer's")
    for column in ("accepted/s", "delivered/s", *cpu, "p50 ms", "p99 ms", "lost", "duplicates", "refused"):
        table.add_column(column, justify="right")
    for load, title in (("single", "one"), ("batch", "500")):
        for way in _WAYS:
            row = figures[load][way]
            rates = (f"{row['ingest']:,.0f}", f"{row['end_to_end']:,.0f}")
            cpu_ms = (f"{row[key]:.2f}" for key in ("cpu_ms", "postgres_ms", "pgbouncer_ms"))
            counts = (f"{row[key]:g}" for key in ("lost", "duplicates", "refused"))
            table.add_row(f"{title}, {way}", *rates, *cpu_ms, *(f"{row[key]:,.0f}" for key in ("p50", "p99")), *counts)
        ratio = figures[load]["ratio"]
        table.add_row(f"{title}, pooled / direct", *(f"{ratio[key]:.2f}" for key in ("ingest", "end_to_end", "cpu_ms")))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--events", type=int, default=40_000, help="events in batches of 500")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    show(measure(options), _table, as_json=options.json)


if __name__ == "__main__":
    main()
