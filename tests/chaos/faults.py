"""The register of faults, and what all of them have in common."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.judging import Promise
from tests.chaos.system import System


@dataclass
class Spell:
    """One time that a fault is brought about."""

    system: System
    rng: random.Random
    #: How long it lasts.
    seconds: float
    #: Unix times at which a process was killed or stopped: what it was sending then may come twice.
    kills: list[float] = field(default_factory=list)
    #: Unix time at which it was over, where that is before its function returns.
    ended: float | None = None

    def wait(self, seconds: float | None = None) -> None:
        """Let it last."""
        time.sleep(self.seconds if seconds is None else seconds)

    def every(self, interval: float) -> Iterator[None]:
        """Do something again and again for as long as it lasts."""
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            yield
            time.sleep(interval)


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
    #: Whether it needs a system of its own, and how that is made.
    own_system: bool = False
    #: Whether a mix may contain it.
    mixes: bool = True


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    name: str,
    *,
    seconds: float,
    short: float | None = None,
    doubles: bool = False,
    resumes: float = 5.0,
    own_system: bool = False,
    mixes: bool = True,
) -> Callable[[Callable[[Spell], None]], Callable[[Spell], None]]:
    """Register a function that brings a fault about, lets it last, and ends it. Its docstring says what it is."""

    def register(bring_about: Callable[[Spell], None]) -> Callable[[Spell], None]:
        what = (bring_about.__doc__ or "").strip().splitlines()[0]
        promise = Promise(doubles=doubles, resumes=resumes)
        FAULTS[name] = Fault(
            name, what, bring_about, promise, seconds, short, own_system=own_system, mixes=mixes and not own_system
        )
        return bring_about

    return register
