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


def seconds_of_descendants(besides: Collection[int] = ()) -> float:
    """Return the seconds of CPU of this process' descendants, but for some."""
    seconds = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.pid not in besides:
                seconds += seconds_of(child)
    return seconds
