"""Memory at rest and after a load: python -m benchmarks.memory [--minutes 2] [--rate 200] [--settle 30] [--json].

Takes the proportional set size (PSS: what is shared counts in parts) of each process of the stack, with its children,
in MB of 1,000,000 bytes: once it is up and idle, after every minute of single POSTs to webhooks at a steady rate, and
when it has settled. The sum is that of the API, the workers and beat; Postgres, Valkey and the exporter stand
beside it. Another stack on the same machine shares pages with this one, and makes it look smaller. Where PSS may not be
read, which is so on other systems than Linux and in some containers, a figure is null, and the sum too.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
from rich.table import Table

from benchmarks.main_path import measure_load
from benchmarks.output import show
from benchmarks.stack import bench_folder, granian, stack

#: Process → words that follow one another on its command line.
_OURS: Final[dict[str, tuple[str, ...]]] = {
    "api": ("-m", "api.serving"),
    "fresh": ("manage.py", "worker", "fresh"),
    "retry": ("manage.py", "worker", "retry"),
    "clock": ("manage.py", "worker", "clock"),
    "beat": ("manage.py", "beat"),
}
#: Processes that are not in the sum.
_BESIDE: Final[dict[str, tuple[str, ...]]] = {
    "exporter": ("manage.py", "exporter"),
    "postgres": ("postgres",),
    "valkey": ("valkey-server",),
}
_MEGABYTE: Final = 1_000_000
#: Seconds of rest before the first look.
_REST: Final = 10.0
_WINDOW: Final = 60.0
_CONNECTIONS: Final = 16

Sizes = dict[str, float | None]


def pss_of(process: psutil.Process) -> float | None:
    """Return the PSS of a process with its descendants, in MB; None where it may not be read."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, OSError, AttributeError):  # no such figure on other systems than Linux
            return None
    return total / _MEGABYTE


def _is(words: Sequence[str], command: Sequence[str]) -> bool:
    """Return whether these words follow one another on a command line; programs count by their names."""
    named = [Path(word).name for word in command]
    return any(named[at : at + len(words)] == list(words) for at in range(len(named)))


class StackMemory:
    """The memory of the stack that was started with a data folder."""

    def __init__(self, data: Path) -> None:
        children = psutil.Process().children()
        self._supervisor = next(each for each in children if str(data) in each.cmdline())

    def sizes(self) -> Sizes:
        """Return the PSS of each of its processes; of two workers `fresh` together."""
        found: Sizes = {}
        for child in self._supervisor.children():
            command = child.cmdline()
            for name in (name for name, words in (_OURS | _BESIDE).items() if _is(words, command)):
                size, before = pss_of(child), found.get(name, 0.0)
                found[name] = None if size is None or before is None else before + size
        missing = (_OURS | _BESIDE).keys() - found.keys()
        if missing:
            raise SystemExit(f"These processes of the stack were not found: {', '.join(sorted(missing))}.")
        return _with_sum(found)


def _with_sum(sizes: Sizes) -> Sizes:
    ours = [size for name in _OURS if (size := sizes[name]) is not None]
    return {**sizes, "sum": math.fsum(ours) if len(ours) == len(_OURS) else None}


def _growth(start: Sizes, after: Sizes) -> Sizes:
    return {name: end / size if size and (end := after[name]) else None for name, size in start.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _loads(url: str, receiver: str, minutes: float, rate: float) -> Iterator[dict[str, Any]]:
    """Post at a steady rate, a minute at a time; gives how each went."""
    left = minutes * 60
    while left > 0:
        _say(f"{rate:g} a second, {left:.0f} s to go …")
        seconds = min(_WINDOW, left)
        yield measure_load(f"{url}/api/v1/events", receiver, seconds=seconds, connections=_CONNECTIONS, rate=rate)
        left -= seconds


def measure(minutes: float, rate: float, settle: float) -> dict[str, Any]:
    """Every figure of one run."""
    with (
        bench_folder() as folder,
        granian(folder, "rsgi", "benchmarks.receiver:app") as receiver,
        stack(folder) as url,
    ):
        processes = StackMemory(folder / "data")
        time.sleep(_REST)
        start = processes.sizes()
        during, loads = [], []
        for load in _loads(url, receiver, minutes, rate):
            during.append(processes.sizes())
            loads.append(load)
        _say(f"Settling for {settle:g} s …")
        time.sleep(settle)
        after = processes.sizes()
    return {
        "start": start,
        "during": during,
        "after": after,
        "growth": _growth(start, after),
        "load": {
            "delivered": sum(load["arrived"] for load in loads),
            **{key: sum(load[key] for load in loads) for key in ("lost", "duplicates", "refused")},
        },
    }


def _table(figures: dict[str, Any]) -> Table:
    start, after, growth = figures["start"], figures["after"], figures["growth"]
    is_read = start["sum"] is not None and after["sum"] is not None
    words = (
        f"{start['sum']:,.0f} MB at the start, × {growth['sum']:.2f} after" if is_read else "PSS may not be read here"
    )
    load = figures["load"]
    table = Table("PSS in MB", title=f"{words} {load['delivered']:,} webhooks", title_justify="left")
    columns = ("start", *(f"minute {place}" for place in range(1, len(figures["during"]) + 1)), "settled", "growth")
    for column in columns:
        table.add_column(column, justify="right")
    for name in (*_OURS, "sum", *_BESIDE):
        sizes = [start[name], *(each[name] for each in figures["during"]), after[name]]
        cells = ["not readable" if size is None else f"{size:,.1f}" for size in sizes]
        ratio = growth[name]
        table.add_row(name, *cells, "" if ratio is None else f"{ratio:.2f}", end_section=name == "sum")
    table.caption = ", ".join(f"{key}: {load[key]}" for key in ("lost", "duplicates", "refused"))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2, help="of load")
    parser.add_argument("--rate", type=float, default=200, help="events a second, one a request")
    parser.add_argument("--settle", type=float, default=30, help="seconds of rest after the load")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.minutes, options.rate, options.settle)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
