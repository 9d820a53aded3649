"""Checks of the doctor: their findings, and a time limit for each."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy.exc import DBAPIError

#: Seconds that one check may take. A server that hangs counts as unreachable.
PATIENCE: Final = 3.0


class State(StrEnum):
    """The state that a finding reports."""

    OK = "ok"
    FAILED = "failed"
    #: Nothing is wrong, or nothing was looked at; it says which.
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's output."""

    check: str
    state: State
    says: str
    #: The remedy, if the check failed.
    todo: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    name: str
    #: Yields the findings. An exception becomes a failed finding.
    look: Callable[[], Iterator[Finding]]
    #: The remedy if the check itself fails.
    todo: str


def well(check: str, says: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, State.OK, says)


def ill(check: str, says: str, todo: str) -> Finding:
    """Return a finding that something is wrong."""
    return Finding(check, State.FAILED, says, todo)


def note(check: str, says: str) -> Finding:
    """Return a finding that is worth mentioning, with nothing wrong."""
    return Finding(check, State.NOTE, says)


def findings(check: Check, patience: float = PATIENCE) -> Sequence[Finding]:
    """Return a check's findings within so many seconds.

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
    """Return an error's message in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__
