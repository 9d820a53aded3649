"""Messages in flight: those that a provider was given and has not answered yet. Used by the batch's thread alone."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from notifier.notifications.claims import Claimed
from notifier.providers.masked_results import without_secrets
from notifier.providers.protocol import Result

#: Seconds after which a send counts as late: a thread is not kept by those alone.
_LATE: Final = 1.0
#: Seconds between two looks, where a tenth is usual, that say that this process is slow itself.
_STALLED: Final = 0.3


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a provider that has ended."""

    row: Claimed
    #: Without the credentials that the message was sent with.
    result: Result
    #: Zero-based index of the call within the claim.
    index: int

    @property
    def number(self) -> int:
        """The attempt's number among all of the notification's."""
        return self.row.attempts + self.index + 1


class InFlight:
    """The messages of one batch that are in flight, and when each call began."""

    def __init__(self) -> None:
        self._begun: dict[UUID, tuple[Claimed, float]] = {}
        #: How many calls those have behind them that went on to another provider.
        self._calls: dict[UUID, int] = {}
        #: The credentials that they were sent with, which answers may repeat.
        self._secrets: dict[UUID, frozenset[str]] = {}
        self._looked_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, row: Claimed, secrets: frozenset[str]) -> None:
        """Take in a message that a provider is given."""
        self._begun[row.id] = (row, time.monotonic())
        if secrets:
            self._secrets[row.id] = secrets

    def end(self, found: Result) -> Call:
        """Return the call that a result ends. Where the message is handed on, it stays in flight for the next one."""
        row, _ = self._begun.pop(found.id)
        # Of a message that is handed on they are needed again.
        secrets = self._secrets.get(row.id) if found.handed_on else self._secrets.pop(row.id, None)
        result = without_secrets(found, secrets) if secrets else found
        call = Call(row, result, self._calls.pop(row.id, 0))
        if found.handed_on:
            self._calls[row.id] = call.index + 1
            self._begun[row.id] = (row, time.monotonic())
        return call

    def return_unbegun(self, ids: Iterable[UUID]) -> list[Claimed]:
        """Return the rows of messages that no provider could begin; they are in flight no longer."""
        return [self._begun.pop(row_id)[0] for row_id in ids]

    def rows(self) -> list[Claimed]:
        """Return the rows in flight. Called by any thread."""
        return [row for row, _ in list(self._begun.values())]

    def late(self) -> list[Claimed]:
        """Return the rows whose calls began a while ago. To be called many times a second."""
        now = time.monotonic()
        if now - self._looked_at > _STALLED:
            # This process itself did not get on: that is held against nobody.
            gap = now - self._looked_at
            self._begun = {each: (row, begun + gap) for each, (row, begun) in self._begun.items()}
        self._looked_at = now
        return [row for row, begun in self._begun.values() if begun < now - _LATE]
