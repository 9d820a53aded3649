"""`python -m tests.chaos.large_backlog`: many events wait for workers that were away, and no process grows by it.

The events are accepted while nobody delivers. Then the workers start, and must deliver all of them once, in the memory
that they need for any batches: that of their last minute is held against that of their first one under load.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from typing import Any, Final

from tests.chaos import histories
from tests.chaos.judging import doubled, lost_events
from tests.chaos.load import Load
from tests.chaos.system import System, signal_group, temporary_folder, until
from tests.chaos.watching import Watch

_BATCH: Final = 500
#: Seconds in which a worker comes to what it needs; and seconds that are compared.
_WARM: Final = 30.0
_COMPARED: Final = 60.0
#: A share of growth that is no growth, and so many MiB besides.
_FLAT: Final = 0.10
_SLACK: Final = 8.0
_WORKERS: Final = ("worker-fresh", "worker-retry")


def _memory(watch: Watch, name: str, since: float, end: float) -> float:
    """Return the most MiB that a process had in a span of Unix time."""
    return max((mib for at, each, mib, _, _ in watch.samples if each == name and since <= at <= end), default=0.0)


def deliver(events: int, seed: int) -> dict[str, Any]:
    """Let so many events wait, and deliver them. Returns the report, whose `wrong` is empty where all held."""
    rng = random.Random(seed)
    with temporary_folder() as folder, System(folder, rng) as system, Watch(system) as watch:
        load = Load(system.port, f"http://127.0.0.1:{system.to_sink.port}", rng, system.number)
        up = system.up.pid or 0
        os.kill(up, signal.SIGSTOP)  # it would start them again
        for name in _WORKERS:
            signal_group(system.pid(name), signal.SIGKILL)
        began = time.time()
        load.begin(1)
        load.burst(events, size=_BATCH)
        load.finish()
        accepted = sum(1 for each in load.posted if each.accepted)
        posted = time.time()
        print(f"{accepted} events accepted in {posted - began:.0f} s", flush=True)
        os.kill(up, signal.SIGCONT)
        drained = until(system.is_drained, 60 + events / 100)
        end = time.time()
        arrivals = system.arrivals.all
        lost, twice = lost_events(load.posted, arrivals), doubled(arrivals)
        dead = histories.dead_letters_since(system, began)
        grown = {
            name: (
                _memory(watch, name, posted + _WARM, posted + _WARM + _COMPARED),
                _memory(watch, name, end - _COMPARED, end),
            )
            for name in _WORKERS
        }
    wrong = [f"{len(lost)} lost"] * bool(lost) + [f"{len(twice)} twice"] * bool(twice)
    wrong += [f"{dead} dead-lettered"] * bool(dead) + ["events are left"] * (not drained)
    wrong += [f"{n}: {a:.0f} MiB became {b:.0f}" for n, (a, b) in grown.items() if b > a * (1 + _FLAT) + _SLACK]
    return {
        "seed": seed,
        "accepted": accepted,
        "seconds": round(end - posted),
        "a_second": round(accepted / (end - posted)),
        **{"lost": len(lost), "doubled": len(twice), "dead": dead},
        "mib": {name: [round(each) for each in pair] for name, pair in grown.items()},
        "wrong": wrong,
    }


def main() -> int:
    """Run what the command line asks for. Returns 0 where all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.large_backlog", description=__doc__)
    parser.add_argument("--events", type=int, default=300_000, help="how many wait [300000]")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)), help="the seed [one is drawn]")
    arguments = parser.parse_args()
    report = deliver(arguments.events, arguments.seed)
    print(json.dumps(report))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
