"""The register of faults, and what all of them have in common."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.judging import Causes, Promise
from tests.chaos.system import System


@dataclass
class Spell:
    """One time that a fault is brought about."""

    system: System
    rng: random.Random
    #: How long it lasts.
    seconds: float
    #: The moments at which it did what may make a message come twice.
    causes: Causes = field(default_factory=Causes)
    #: Unix time at which it was over, where that is before its function returns.
    ended: float | None = None

    def wait(self, seconds: float | None = None) -> None:
        """Let it last."""
        time.sleep(self.seconds if seconds is None else seconds)

    def note_kill(self) -> None:
        """Note that a process is killed or stopped now."""
        self.causes.kills.append(time.time())

    @contextlib.contextmanager
    def loses_answers(self) -> Iterator[None]:
        """Note that receivers' answers are lost while this lasts."""
        began = time.time()
        yield
        self.causes.lost_answers.append((began, time.time()))

    def every(self, interval: float) -> Iterator[None]:
        """Do something again and again for as long as it lasts."""
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            yield
            time.sleep(interval)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk that a folder is on, and make room in the end."""
    ballast = folder / "ballast"
    for _ in range(2):  # what others gave back meanwhile too
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
    try:
        yield
    finally:
        ballast.unlink()


class NotHere(Exception):
    """This machine lacks what the fault needs; the message says what."""


@dataclass(frozen=True)
class Fault:
    """One way of breaking the system."""

    name: str
    what: str
    bring_about: Callable[[Spell], None]
    promise: Promise
    #: Seconds that it lasts, and in the short form; None where the short form leaves it out.
    seconds: float
    short: float | None
    #: The folder of the system that must be a small disk of its own (`data` or `cluster`), if one must.
    disk: str | None = None
    #: Whether a mix may contain it.
    mixes: bool = True

    @property
    def family(self) -> str:
        """The server or the processes that it befalls."""
        return self.name.partition("-")[0]

    def happen(self, spell: Spell) -> None:
        """Bring it about, let it last, and end it. Raises NotHere where it cannot be had here."""
        began = time.time()
        try:
            self.bring_about(spell)
        finally:
            if self.family == "postgres":
                spell.causes.unrecordable.append((began, time.time()))


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    name: str,
    *,
    seconds: float,
    short: float | None = None,
    doubles: bool = False,
    resumes: float = 5.0,
    disk: str | None = None,
    mixes: bool = True,
) -> Callable[[Callable[[Spell], None]], Callable[[Spell], None]]:
    """Register a function that brings a fault about, lets it last, and ends it. Its docstring says what it is."""

    def register(bring_about: Callable[[Spell], None]) -> Callable[[Spell], None]:
        what = (bring_about.__doc__ or "").strip().splitlines()[0]
        promise = Promise(doubles=doubles, resumes=resumes)
        FAULTS[name] = Fault(name, what, bring_about, promise, seconds, short, disk=disk, mixes=mixes and not disk)
        return bring_about

    return register
