"""Which parts of a tick have work: one look a second, by a function of the database (migration 0032)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from sqlalchemy import Engine, text

_LOOK: Final = text("SELECT part FROM notifier_clock_work(:queues)")
_QUEUE: Final = "queue:"


class Part(StrEnum):
    """A part of a tick, beside handing over."""

    HOLDS = "holds"
    NEXT_CHANNELS = "next_channels"
    ENDPOINTS = "endpoints"
    PROVIDERS = "providers"
    LINES = "lines"
    RECOVERIES = "recoveries"
    DEAD_LETTER_ACTS = "dead_letter_acts"
    ERASURES = "erasures"
    RECEIPTS = "receipts"


@dataclass(frozen=True, slots=True)
class ClockWork:
    """The parts that may have work, and the queues in which something is due."""

    parts: frozenset[Part]
    queues: list[str]

    @classmethod
    def all_of(cls, queues: Sequence[str]) -> Self:
        """Return that everything may have work, where nobody could look."""
        return cls(frozenset(Part), list(queues))


def look(engine: Engine, queues: Sequence[str]) -> ClockWork:
    """Look for work. The queues stay in their order. A part that is named may find nothing to do after all."""
    with engine.connect() as connection:
        found = set(connection.scalars(_LOOK, {"queues": list(queues)}))
    return ClockWork(
        frozenset(each for each in Part if each in found), [each for each in queues if _QUEUE + each in found]
    )
