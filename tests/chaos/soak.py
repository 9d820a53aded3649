"""`make soak`: half an hour at a third of the peak, with a fault a minute, and nothing may grow.

The first third warms the system up. For its first half processes are killed too, afterwards no more, so that each has
its age; then the faults come under which a process needs the most threads, connections and memory. From then on nothing
may grow: memory, descriptors and connections of the last quarter are held against those of the first.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.chaos import histories
from tests.chaos.every_fault import FAULTS
from tests.chaos.faults import Fault, Spell
from tests.chaos.judging import doubled, lost_events
from tests.chaos.load import Load
from tests.chaos.system import System, temporary_folder, until
from tests.chaos.watching import Watch

#: Events by which the peak is measured.
_PEAK: Final = 2000
#: A share of growth that is no growth, and so much besides: MiB, descriptors, connections.
_FLAT: Final = 0.10
_SLACK: Final = (8.0, 8.0, 4.0)
#: Dead tuples that a table may have beside a third of its rows: as many as autovacuum leaves.
_DEAD: Final = 20_000
_LONGEST_FAULT: Final = 8.0
_KILLS: Final = ("kill", "stop")
#: With these a process needs the most that it ever does.
_HEAVIEST: Final = ("providers-slow", "providers-silent", "providers-down", "providers-flap")


def _peak(system: System, rng: random.Random) -> float:
    """Events a second that are accepted and delivered, many waiting."""
    load = Load(system.port, f"http://127.0.0.1:{system.to_sink.port}", rng, system.number)
    load.begin(1)
    began = time.monotonic()
    load.burst(_PEAK, size=50)
    load.finish()
    assert until(system.is_drained, 120), "the peak's backlog did not end"
    system.number += len(load.posted)
    return len(load.posted) / (time.monotonic() - began)


def _break(system: System, rng: random.Random, fault: Fault, broken: list[str]) -> None:
    spell = Spell(system, rng, min(fault.seconds, _LONGEST_FAULT))
    try:
        fault.happen(spell)
    finally:
        system.behave()
    broken.append(fault.name)


def _faults(rng: random.Random) -> Callable[[float], Fault]:
    """Return a function that chooses the next fault, given the share of the warm-up that is over."""
    all_faults = [each for each in FAULTS.values() if each.mixes]
    harmless = [each for each in all_faults if not each.name.startswith(_KILLS)]
    heaviest = [FAULTS[name] for name in _HEAVIEST]

    def choose(warm: float) -> Fault:
        if warm < 0.5:
            return rng.choice(all_faults)
        return heaviest.pop() if heaviest else rng.choice(harmless)

    return choose


def _grown(samples: Sequence[tuple[float, str, float, int, int]], since: float, end: float) -> list[str]:
    """Return the values that have grown from the quarter after `since` to the last one."""
    quarter = (end - since) / 4
    values: dict[str, list[list[float]]] = defaultdict(lambda: [[], []])
    for at, name, memory, descriptors, connections in samples:
        part = 0 if at < since + quarter else 1 if at > end - quarter else None
        if at >= since and part is not None:
            values[f"{name}: MiB"][part].append(memory)
            values[f"{name}: descriptors"][part].append(descriptors)
            values["connections to Postgres"][part].append(connections)
    grown = []
    for what, (first, last) in values.items():
        slack = _SLACK[0] if what.endswith("MiB") else _SLACK[1] if what.endswith("descriptors") else _SLACK[2]
        if first and last:
            before, after = statistics.median(first), statistics.median(last)
            if after > before * (1 + _FLAT) + slack:
                grown.append(f"{what}: {before:.0f} became {after:.0f}")
    return grown


def _by_minute(samples: Sequence[tuple[float, str, float, int, int]], since: float) -> dict[str, list[list[float]]]:
    """Return for each process, and each minute, the medians of its MiB, its descriptors, and of all connections."""
    values: dict[tuple[str, int], list[tuple[float, int, int]]] = defaultdict(list)
    for at, name, memory, descriptors, connections in samples:
        values[name, int((at - since) / 60)].append((memory, descriptors, connections))
    series: dict[str, list[list[float]]] = defaultdict(list)
    for name, minute in sorted(values):
        series[name].append([round(statistics.median(each)) for each in zip(*values[name, minute], strict=True)])
    return series


def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Break a system for so many minutes. Returns the report, whose `wrong` is empty where all held."""
    rng = random.Random(seed)
    choose = _faults(rng)
    wrong: list[str] = []
    broken: list[str] = []
    with temporary_folder() as folder, System(folder, rng) as system:
        peak = _peak(system, rng)
        began, end = time.time(), time.time() + minutes * 60
        warm = began + minutes * 20
        load = Load(system.port, f"http://127.0.0.1:{system.to_sink.port}", rng, system.number)
        with Watch(system) as watch:
            load.begin(peak / 3)
            while time.time() < end:
                time.sleep(min(60 - _LONGEST_FAULT, max(0.0, end - time.time())) * min(1.0, minutes / 10))
                _break(system, rng, choose((time.time() - began) / (warm - began)), broken)
                print(f"{(time.time() - began) / 60:.1f} min: {broken[-1]}, {len(load.posted)} posted", flush=True)
            load.finish()
            drained = until(system.is_drained, 180)
        time.sleep(2)
        arrivals = [each for each in system.arrivals.all if each.number >= system.number]
        lost, dead = lost_events(load.posted, arrivals), histories.dead_letters_since(system, began)
        marked = histories.ambiguous_since(system, began)
        twice = doubled(arrivals)
        unmarked = [key for key, came in twice.items() if came[0].notification not in marked]
        refused = [each for each in load.posted if each.refused]
        tuples = histories.tuples(system)
        grown = _grown(watch.samples, warm, end)
        wrong += [f"{len(lost)} lost"] * bool(lost) + [f"{dead} dead-lettered"] * bool(dead) + grown
        wrong += [f"{len(unmarked)} twice and not marked"] * bool(unmarked) + ["live rows are left"] * (not drained)
        wrong += [f"{len(refused)} refused: {refused[0].refused}"] if refused else []
        wrong += [f"{name}: {each} dead tuples" for name, (rows, each) in tuples.items() if each > rows / 3 + _DEAD]
        for each in lost[:5]:
            print(histories.of(system, each), flush=True)
    return {
        **{
            "seed": seed,
            "minutes": minutes,
            "peak": round(peak),
            "accepted": sum(1 for p in load.posted if p.accepted),
        },
        **{"lost": len(lost), "doubled": len(twice), "unmarked": len(unmarked), "dead": dead, "faults": broken},
        **{"respawns": system.respawns, "peaks": watch.peaks, "tuples": tuples, "wrong": wrong},
        "by_minute": _by_minute(watch.samples, began),
    }


def main() -> int:
    """Run what the command line asks for. Returns 0 where all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="how long [30]")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)), help="the seed [one is drawn]")
    parser.add_argument("--report", type=Path, default=Path("build/chaos"), help="the report's folder [build/chaos]")
    arguments = parser.parse_args()
    print(f"Seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    report = soak(arguments.minutes, arguments.seed)
    arguments.report.mkdir(parents=True, exist_ok=True)
    (arguments.report / "soak.json").write_text(json.dumps(report))
    print(json.dumps(report))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
