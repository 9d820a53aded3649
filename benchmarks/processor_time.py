"""The CPU that processes have used."""

import contextlib
from collections.abc import Collection

import psutil


def seconds_of(process: psutil.Process) -> float:
    """Return the seconds of CPU of a process, with those of the children whose end it has seen."""
    used = process.cpu_times()
    ended: float = getattr(used, "children_user", 0.0) + getattr(used, "children_system", 0.0)
    return float(used.user + used.system + ended)


def descendants() -> frozenset[int]:
    """Return the ids of all processes that this one and its children have started."""
    return frozenset(child.pid for child in psutil.Process().children(recursive=True))


def seconds_by_program(besides: Collection[int] = ()) -> dict[str, float]:
    """Return the seconds of CPU of this process' descendants, but for some, by their programs."""
    seconds: dict[str, float] = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.pid not in besides:
                seconds[child.name()] = seconds.get(child.name(), 0.0) + seconds_of(child)
    return seconds


def seconds_of_descendants(besides: Collection[int] = ()) -> float:
    """Return the seconds of CPU of this process' descendants, but for some."""
    return sum(seconds_by_program(besides).values())
