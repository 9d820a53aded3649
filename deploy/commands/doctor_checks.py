"""Checks of the doctor: what one finds, and how it is kept from taking for ever."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy.exc import DBAPIError

#: Seconds that one check may take. What hangs is as good as away.
PATIENCE: Final = 3.0


class State(StrEnum):
    """How it is."""

    OK = "ok"
    FAILED = "failed"
    #: Nothing is wrong, or nothing was looked at; it says which.
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's."""

    check: str
    state: State
    says: str
    #: What to do about it, where it failed.
    todo: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at."""

    name: str
    #: Makes the findings; what it raises is one too.
    look: Callable[[], Iterator[Finding]]
    #: What to do where it cannot be looked at.
    todo: str


def well(check: str, says: str) -> Finding:
    """It is as it should be."""
    return Finding(check, State.OK, says)


def ill(check: str, says: str, todo: str) -> Finding:
    """It is not as it should be."""
    return Finding(check, State.FAILED, says, todo)


def note(check: str, says: str) -> Finding:
    """It is worth saying, and nothing is wrong."""
    return Finding(check, State.NOTE, says)


def findings(check: Check, patience: float = PATIENCE) -> Sequence[Finding]:
    """What a check finds within so many seconds.

    It runs on a thread of its own, which is left behind where it hangs: looking a name up cannot be interrupted.
    """
    found: queue.SimpleQueue[Sequence[Finding]] = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put(list(check.look()))
        except Exception as error:
            found.put([ill(check.name, in_words(error), check.todo)])

    threading.Thread(target=run, name=f"check-{check.name}", daemon=True).start()
    try:
        return found.get(timeout=patience)
    except queue.Empty:
        return [ill(check.name, f"no answer within {patience:g} s", check.todo)]


def in_words(error: Exception) -> str:
    """An error in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__
