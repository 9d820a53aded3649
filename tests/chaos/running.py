"""Runs scenarios, one fault each, and says what became of them."""

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.chaos import histories
from tests.chaos.faults import FAULTS, Fault, NotHere, Spell
from tests.chaos.judging import Outcome, judge, lost_events
from tests.chaos.load import Load
from tests.chaos.system import System, temporary_folder, until
from tests.chaos.watching import Watch

#: Events a second.
RATE: Final = 30.0
#: Events that wait when a fault comes, in the form with a backlog, and how slowly they are taken.
BACKLOG: Final = 1500
_BACKLOG_SLOWNESS: Final = 0.3
#: Seconds of load before a fault, and after it.
_BEFORE: Final = 2.0
_AFTER: Final = 3.0
#: Seconds that a backlog may take to end.
_DRAINS_WITHIN: Final = 180.0
#: Lost notifications whose history is written out.
_HISTORIES: Final = 5
_DISK: Final = "256m"


class Runner:
    """Runs faults on one system after the other: one on which something went wrong is used no more."""

    def __init__(self, seed: int, *, short: bool, seconds: float | None, logs: Path) -> None:
        """`seconds`: how long faults last, if not as long as they say; `logs`: where the logs of failures are kept."""
        self._seed = seed
        self._short = short
        self._seconds = seconds
        self._logs = logs
        self._stack = contextlib.ExitStack()
        self._system: System | None = None

    def close(self) -> None:
        """Stop what runs."""
        self._stack.close()
        self._system = None

    def run(self, name: str, load: str) -> Outcome:
        """Run one fault under one load (`steady` or `backlog`). Raises NotHere where it cannot be had here."""
        fault = FAULTS[name]
        outcome = Outcome(name, load, self._seed)
        rng = random.Random(f"{self._seed} {name} {load}")
        began = time.monotonic()
        try:
            with self._own_system(fault, rng) as system:
                self._scenario(system, fault, rng, outcome)
        except NotHere:
            raise
        except Exception as error:
            outcome.wrong.append(f"{type(error).__name__}: {error}")
        outcome.seconds = time.monotonic() - began
        if outcome.wrong:
            self._keep_logs(outcome)
            self.close()
        return outcome

    @contextlib.contextmanager
    def _own_system(self, fault: Fault, rng: random.Random) -> Iterator[System]:
        if fault.disk:
            self.close()
            with temporary_folder() as folder:
                own = System(folder, rng)
                with _small_disk(getattr(own, fault.disk)), own:
                    yield own
            return
        if self._system is None:
            folder = self._stack.enter_context(temporary_folder())
            self._system = self._stack.enter_context(System(folder, rng))
        yield self._system

    def _scenario(self, system: System, fault: Fault, rng: random.Random, outcome: Outcome) -> None:
        lasts = fault.short if self._short and fault.short is not None else fault.seconds
        spell = Spell(system, rng, lasts if self._seconds is None else self._seconds)
        first, respawned = system.number, system.respawns
        arrived = len(system.arrivals.all)
        started = time.time()
        load = Load(system.port, f"http://127.0.0.1:{system.to_sink.port}", rng, first)
        with Watch(system) as watch:
            load.begin(RATE)
            if outcome.load == "backlog":
                system.sink.slowness = system.mail.slowness = _BACKLOG_SLOWNESS
                load.burst(BACKLOG)
            time.sleep(_BEFORE + rng.random())
            try:
                fault.happen(spell)
            finally:
                ended = time.time()
                system.behave()
                time.sleep(_AFTER)
                load.finish()
            outcome.drained = _seconds_until_drained(system, ended)
            until(lambda: system.readiness() == "ok", 30)
        system.number = first + len(load.posted)
        arrivals = system.arrivals.all[arrived:]
        later = [each.at for each in arrivals if each.at > ended and each.taken]
        outcome.resumed = min(later) - ended if later else None
        outcome.respawns, outcome.ready, outcome.peaks = system.respawns - respawned, watch.longest, watch.peaks
        outcome.dead = histories.dead_letters_since(system, started)
        lost = lost_events(load.posted, arrivals)
        promise = fault.promise
        judge(outcome, promise, load.posted, arrivals, histories.ambiguous_since(system, started), lost, spell.causes)
        outcome.histories = [histories.of(system, each) for each in lost[:_HISTORIES]]
        outcome.histories += histories.of_dead(system, started, _HISTORIES)
        outcome.histories += histories.of_doubled(system, outcome.uncaused[:_HISTORIES])

    def _keep_logs(self, outcome: Outcome) -> None:
        if self._system is None:
            return
        folder = self._logs / f"{outcome.fault}-{outcome.load}"
        folder.mkdir(parents=True, exist_ok=True)
        for log in self._system.logs():
            (folder / log.name).write_bytes(log.read_bytes())


def _seconds_until_drained(system: System, since: float) -> float | None:
    if until(system.is_drained, _DRAINS_WITHIN):
        return time.time() - since
    return None


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own, of some hundred megabytes. Raises NotHere where this process may not make one."""
    folder.mkdir(mode=0o711)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=0711", "none", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if not made:
        raise NotHere("a small disk of its own needs root and mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def chosen(names: Sequence[str], *, short: bool) -> list[str]:
    """The faults that are to be run. Raises ValueError for one that is unknown."""
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    return list(names) or [name for name, fault in FAULTS.items() if not short or fault.short is not None]


def not_run(name: str, load: str, seed: int, why: str) -> Outcome:
    """The outcome of a fault that cannot be had on this machine."""
    return replace(Outcome(name, load, seed), wrong=[f"not run: {why}"])
