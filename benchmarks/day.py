"""Ten million a day, for half an hour: python -m benchmarks.day [--minutes 30] [--rate 116] [--bursts 2] [--json].

Events come at the average of ten million a day, and in bursts of a minute as fast as they are taken. The receiver
counts how many came, how many twice, and how long they took. Memory is that of the API, the workers and beat, as PSS
(benchmarks.memory): idle at first, then after each part.
"""

import argparse
import sys
import time
from typing import Any, Final

import requests
from rich.table import Table

from benchmarks.client import Load, post
from benchmarks.memory import StackMemory
from benchmarks.output import show
from benchmarks.stack import bench_folder, granian, stack
from deploy.child_process import wait_until

_CONNECTIONS: Final = 64
_BURST: Final = 60.0
_DRAIN: Final = 300.0
#: Seconds of rest before the first and the last look at the memory.
_REST: Final = 20.0


def measure(minutes: float, rate: float, bursts: int, burst: float = _BURST) -> dict[str, Any]:
    """Every figure of one run; the bursts are spread evenly over it."""
    calm = (minutes * 60 - bursts * burst) / (bursts + 1)
    loads: list[tuple[str, Load]] = []
    memory: list[float | None] = []
    with (
        bench_folder() as folder,
        granian(folder, "rsgi", "benchmarks.receiver:app") as receiver,
        stack(folder) as url,
    ):
        processes = StackMemory(folder / "data")
        time.sleep(_REST)
        memory.append(processes.sizes()["sum"])
        for part in range(2 * bursts + 1):
            is_burst = part % 2 == 1
            posted = sum(len(load.posted) for _, load in loads)
            load = post(
                f"{url}/api/v1/events",
                f"{receiver}/hook",
                seconds=burst if is_burst else calm,
                connections=_CONNECTIONS,
                rate=0 if is_burst else rate,
                first=posted,
            )
            loads.append(("burst" if is_burst else "calm", load))
            print(f"{part + 1} of {2 * bursts + 1}: {load.rate:,.0f} a second", file=sys.stderr, flush=True)
        accepted = sum(load.accepted for _, load in loads)
        wait_until(lambda: requests.get(receiver, timeout=10).json()["count"] >= accepted, _DRAIN)
        came = requests.get(f"{receiver}/all", timeout=120).json()
        time.sleep(_REST)
        memory.append(processes.sizes()["sum"])
    arrived = {int(number): at for number, at in came["arrived"].items()}
    return _figures(loads, arrived, came["requests"]) | {"memory_mb": memory}


def _figures(loads: list[tuple[str, Load]], arrived: dict[int, float], requests_: int) -> dict[str, Any]:
    accepted = sum(load.accepted for _, load in loads)
    posted = {number: at for _, load in loads for number, at in load.posted.items()}
    parts = [
        {"kind": kind, "accepted_a_second": load.rate, "p99_s": _p99(arrived, load.posted)} for kind, load in loads
    ]
    return {
        "accepted": accepted,
        "lost": accepted - len(arrived),
        "duplicates": requests_ - len(arrived),
        "p99_s": _p99(arrived, posted),
        "parts": parts,
    }


def _p99(arrived: dict[int, float], posted: dict[int, float]) -> float:
    late = sorted(arrived[number] - at for number, at in posted.items() if number in arrived)
    return late[len(late) * 99 // 100]


def _table(figures: dict[str, Any]) -> Table:
    title = (
        f"{figures['accepted']:,} accepted, {figures['lost']} lost, {figures['duplicates']} twice; "
        f"p99 of all {figures['p99_s']:.2f} s"
    )
    table = Table("", title=title, title_justify="left")
    for column in ("accepted/s", "p99 s"):
        table.add_column(column, justify="right")
    first, *after, last = ("not readable" if size is None else f"{size:,.0f}" for size in figures["memory_mb"])
    table.add_column("MB after it", justify="right")
    table.add_row("idle", "", "", first)
    for part, size in zip(figures["parts"], after, strict=True):
        table.add_row(part["kind"], f"{part['accepted_a_second']:,.0f}", f"{part['p99_s']:.2f}", size)
    table.add_row("idle", "", "", last)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=116, help="events a second between bursts")
    parser.add_argument("--bursts", type=int, default=2, help="how many, of a minute each")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    show(measure(options.minutes, options.rate, options.bursts), _table, as_json=options.json)


if __name__ == "__main__":
    main()
