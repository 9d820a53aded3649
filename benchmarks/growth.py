"""Growth with processes: python -m benchmarks.growth [--processes 1 2 4] [--cpus 0.1] [--workers 8] [--json].

Two questions. With k API processes and k workers, each limited to a part of a CPU, so that the machine is not the
limit: how do accepted and delivered events a second grow with k? And when eight workers without limits empty one
backlog: is that quicker than with one, and do their sessions wait for one another in Postgres?
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import psutil
from rich.table import Table

from benchmarks.client import post
from benchmarks.cpu_limits import CpuLimits, groups_folder
from benchmarks.many_workers import BATCHES, count, drained, fresh_workers, further_apis, stack_of
from benchmarks.output import show
from benchmarks.stack import pids_of

_WARM_SECONDS: Final = 3.0
#: Numbers of events that are posted while others wait begin here, of those that are measured at twice that.
_WHILE_WAITING: Final = 10_000_000


def _grown(processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Events a second of so many limited API processes and workers, while others wait."""
    with (
        stack_of(processes) as (folder, url, receiver),
        further_apis(folder, processes - 1) as further,
        CpuLimits(options.cpus) as limits,
    ):
        hook, connections = f"{receiver}/hook", options.connections * processes
        urls = [f"{each}/api/v1/events" for each in (url, *(each for each, _ in further))]
        # Limits come after the start, which takes minutes under them; the API's come after it has taken the backlog.
        for name, pid in fresh_workers(folder).items():
            limits.limit(name, pid)
        waiting = post(f"{urls[0]}/batch", hook, most=options.waiting * processes, **BATCHES).accepted
        for place, pid in enumerate((pids_of(folder)["api"], *(pid for _, pid in further)), start=1):
            limits.limit(f"api-{place}", pid)
        warm = post(urls, hook, seconds=_WARM_SECONDS, connections=connections, first=_WHILE_WAITING).accepted
        psutil.cpu_percent()
        limits.begin()
        began, before = time.monotonic(), count(receiver)
        load = post(urls, hook, seconds=options.seconds, connections=connections, first=2 * _WHILE_WAITING)
        took, after = time.monotonic() - began, count(receiver)
        used, delivered = limits.used(), (after - before) / took
        return {
            "accepted": load.rate,
            "delivered": delivered,
            "accepted_per_cpu": load.rate / (options.cpus * sum(_of("api", used))),
            "delivered_per_cpu": delivered / (options.cpus * sum(_of("worker", used))),
            "refused": sum(codes for code, codes in load.codes.items() if code != 202),
            "waiting": waiting + warm + load.accepted - after,
            "machine_busy": psutil.cpu_percent() / 100,
            "limit_used": used,
        }


def _of(which: str, used: dict[str, float]) -> list[float]:
    return [part for name, part in used.items() if name.startswith(which)]


def _ratios(rows: dict[int, dict[str, Any]], keys: Sequence[str]) -> None:
    """Add to each row its ratios to the first one."""
    first = next(iter(rows.values()), {})
    for row in rows.values():
        row |= {f"{key}_ratio": row[key] / first[key] for key in keys}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure of one run."""
    limited, free = {}, {}
    if options.processes:
        groups_folder()  # whatever is missing is said before anything starts
    for processes in options.processes:
        print(f"{processes} API processes and {processes} workers at {options.cpus:g} CPU each …", file=sys.stderr)
        limited[processes] = _grown(processes, options)
    for workers in (1, options.workers) if options.workers else ():
        print(f"A backlog of {options.rows:,} and {workers} workers without limits …", file=sys.stderr)
        free[workers] = drained(workers, options.rows)
    _ratios(limited, ("accepted", "delivered", "accepted_per_cpu", "delivered_per_cpu"))
    _ratios(free, ("delivered",))
    return {"cpus": options.cpus, "processes": limited, "workers": free}


def _table(figures: dict[str, Any]) -> Table:
    table = Table.grid(padding=(1, 0))
    columns = ("accepted/s", "× first", "delivered/s", "× first", "refused", "waiting", "of limit: API", "worker")
    growth = Table(
        "processes", *columns, "machine busy", title=f"{figures['cpus']:g} CPU for each", title_justify="left"
    )
    for processes, row in figures["processes"].items():
        rates = [f"{row[key]:,.0f}\t{row[f'{key}_ratio']:.2f}" for key in ("accepted", "delivered")]
        used = (
            *(f"{statistics.mean(_of(which, row['limit_used'])):.0%}" for which in ("api", "worker")),
            f"{row['machine_busy']:.0%}",
        )
        counts = (f"{row['refused']:,}", f"{row['waiting']:,}")
        growth.add_row(str(processes), *"\t".join(rates).split("\t"), *counts, *used)
    waits = Table(
        "workers", "delivered/s", "× first", "lost", "duplicates", "machine busy", "Lock", "LWLock", "deadlocks"
    )
    waits.title, waits.title_justify = "One backlog, no limits", "left"
    waits.add_column("most frequent sightings")
    for workers, row in figures["workers"].items():
        seen = row["waits"]
        waits.add_row(
            *(str(workers), f"{row['delivered']:,.0f}", f"{row['delivered_ratio']:.2f}"),
            *(str(row["lost"]), str(row["duplicates"]), f"{row['machine_busy']:.0%}"),
            *(f"{seen['lock']:.1%}", f"{seen['lwlock']:.1%}", str(seen["deadlocks"])),
            ", ".join(f"{event} {share:.0%}" for event, share in list(seen["events"].items())[:4]),
        )
    for each in (growth, waits):
        if each.row_count:
            table.add_row(each)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4], help="the first is what ratios are to")
    parser.add_argument("--cpus", type=float, default=0.1, help="CPUs of each of them")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=32, help="of the client to each API process")
    parser.add_argument("--waiting", type=int, default=10_000, help="events that wait at first, for each worker")
    parser.add_argument("--workers", type=int, default=8, help="workers without limits; 0 leaves that part out")
    parser.add_argument("--rows", type=int, default=10_000, help="the backlog that they empty")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of tables")
    options = parser.parse_args()
    show(measure(options), _table, as_json=options.json)


if __name__ == "__main__":
    main()
