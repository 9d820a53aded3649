"""The main path, measured: python -m benchmarks.main_path [--seconds 8] [--connections 64] [--json]."""

import argparse
import statistics
import time
from typing import Any

import requests
from rich.table import Table

from benchmarks.client import Load, post
from benchmarks.output import show
from benchmarks.stack import bench_folder, ceiling, granian, stack
from deploy.child_process import wait_until

DRAIN = 120.0


def measure_load(url: str, receiver: str, **how: Any) -> dict[str, Any]:
    """Post a load, wait until all of it arrived, and say how it went."""
    requests.get(f"{receiver}/reset", timeout=10)
    start = time.time()
    load: Load = post(url, f"{receiver}/hook", **how)
    wait_until(lambda: requests.get(receiver, timeout=10).json()["count"] >= load.accepted, DRAIN)
    came = requests.get(f"{receiver}/all", timeout=60).json()
    arrived = {int(number): at for number, at in came["arrived"].items()}
    late = sorted((at - load.posted[number]) * 1000 for number, at in arrived.items())
    return {
        "ingest": load.rate,
        "end_to_end": len(arrived) / (max(arrived.values()) - start),
        "arrived": len(arrived),
        "lost": load.accepted - len(arrived),
        "duplicates": came["requests"] - len(arrived),
        "refused": sum(count for code, count in load.codes.items() if code != 202),
        **{f"p{q}": late[min(len(late) - 1, len(late) * q // 100)] for q in (50, 95, 99)},
    }


def measure_loads(url: str, receiver: str, seconds: float, connections: int) -> dict[str, dict[str, Any]]:
    """Post single events as fast as they are taken, then 100 a second, then batches; returns how each load went."""
    events, batches = f"{url}/api/v1/events", f"{url}/api/v1/events/batch"
    measure_load(events, receiver, seconds=2, connections=connections)
    return {
        "single": measure_load(events, receiver, seconds=seconds, connections=connections),
        "at_100": measure_load(events, receiver, seconds=seconds, connections=connections, rate=100),
        "batch": measure_load(batches, receiver, seconds=60, connections=4, batch=500, most=40_000),
    }


def measure(seconds: float, connections: int) -> dict[str, Any]:
    """Every figure of one run."""
    with bench_folder() as folder, granian(folder, "rsgi", "benchmarks.receiver:app") as receiver:
        with ceiling(folder) as bare:
            most = post(f"{bare}/api/v1/events", receiver, seconds=seconds, connections=connections).rate
            calm = post(f"{bare}/api/v1/events", receiver, seconds=seconds, connections=connections, rate=100)
        with stack(folder) as url:
            loads = measure_loads(url, receiver, seconds, connections)
            return {"ceiling": most, "ceiling_ms": statistics.median(calm.took) * 1000, **loads}


def _ceiling(figures: dict[str, Any]) -> str:
    return f"Ceiling: {figures['ceiling']:,.0f} requests/s of a bare view; {figures['ceiling_ms']:.1f} ms at 100/s"


def _table(figures: dict[str, Any]) -> Table:
    table = Table("", title=_ceiling(figures), title_justify="left")
    columns = (
        "ingest/s",
        "× ceiling",
        "end to end/s",
        "× ceiling",
        "p50 ms",
        "p95",
        "p99",
        "lost",
        "duplicates",
        "refused",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for name, title in (("single", "one a request"), ("at_100", "100 a second"), ("batch", "500 a request")):
        row = figures[name]
        rates = [
            cell
            for key in ("ingest", "end_to_end")
            for cell in (f"{row[key]:,.0f}", f"{row[key] / figures['ceiling']:.2f}")
        ]
        table.add_row(
            title,
            *rates,
            *(f"{row[f'p{q}']:,.1f}" for q in (50, 95, 99)),
            *(str(row[k]) for k in ("lost", "duplicates", "refused")),
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.seconds, options.connections)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
