"""The sender takes one claimed batch through the providers: compose, send, record, give back the rest."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from notifier.delivery.composer import CannotCompose, Composition
from notifier.delivery.in_flight import InFlight
from notifier.delivery.outcomes import Outcomes
from notifier.delivery.recorder import Recorder
from notifier.delivery.telemetry import COMPOSE, Meter
from notifier.notifications.claims import COMPOSING, Claimed
from notifier.providers.failover_run import FailoverRun
from notifier.providers.protocol import Message
from notifier.runtime.isolation import is_away, kind_of
from notifier.security.redaction import secrets_of

log = structlog.get_logger()

#: Seconds by which a lease outlasts the longest send: time enough to record it.
MARGIN: Final = 5.0
#: The most messages that are made at once, and from how many seconds on that is too slow for as many.
_MOST_AT_ONCE: Final = 16
_SLOW_COMPOSING: Final = 0.1
#: About so many bytes of attachments are under way at once in a batch: a worker has no memory for all of them.
_MOST_CARRIED: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Window:
    """The time that a batch has, on the monotonic clock."""

    #: When the last send may begin.
    start_until: float
    #: When the rows' leases end, unless they are renewed.
    lease_ends: float


class Sender:
    """Sends one claimed batch. Used by one thread at a time, but for `to_renew`."""

    def __init__(
        self,
        rows: Sequence[Claimed],
        *,
        composition: Composition,
        failover: FailoverRun,
        outcomes: Outcomes,
        meter: Meter,
        window: Window,
    ) -> None:
        self._waiting = deque(rows)
        self._composition = composition
        self._failover = failover
        self._outcomes = outcomes
        self._meter = meter
        self._window = window
        self._recorder = Recorder(outcomes)
        self._in_flight = InFlight()
        #: How many messages are made at once: one, and twice as many each time that goes quickly.
        self._at_once = 1
        #: Bytes of attachments that the provider was given and may still hold.
        self._carried = 0
        #: How many writes were committed when attachments could not be read; None while they can.
        self._unreadable_since: int | None = None

    def steps(self) -> Iterator[None]:
        """Send all that can begin in time, record it, and give the rest back; yields many times a second."""
        while self._waiting and self._may_begin():
            try:
                for results in self._failover.send(self._messages()):
                    for result in results:
                        self._recorder.add(self._outcomes.add(self._in_flight.end(result)))
                    self._return(self._failover.take_unbegun())
                    self._recorder.go_on()
                    yield
            except Exception:
                # A provider broke: what has been taken until then must not be sent once more, and what has not need
                # not wait for a lease.
                self._give_back()
                self._recorder.finish()
                raise
            # Postgres may have gone meanwhile. Results are recorded before anything more does.
            self._recorder.finish()
        self._give_back()
        self._recorder.finish()

    def to_renew(self, now: float, soon: float) -> list[tuple[UUID, int]]:
        """Return the claims of what is in flight or not recorded yet, once their leases end within `soon` seconds.

        Results are held until they are recorded, however long Postgres is away. A send that does not come back, though
        it should have long before, is left to its lease.
        """
        if now < self._window.lease_ends - soon:
            return []
        begun = self._in_flight.rows() if now < self._window.lease_ends + MARGIN else []
        return [*self._recorder.held(), *((row.id, row.claims) for row in begun)]

    def late(self) -> list[Claimed]:
        """Return the rows whose calls began a while ago and have not ended."""
        return self._in_flight.late()

    def is_waiting_for(self, late: Sequence[Claimed]) -> bool:
        """Whether nothing is left but these; then the rest, which has no time to begin, is given back."""
        if len(late) < len(self._in_flight) or not late or self._recorder.has_any:
            return False
        if self._waiting and self._may_begin():
            return False
        self._give_back()
        return True

    def _return(self, unbegun: Sequence[UUID]) -> None:
        """Give back what no provider could begin."""
        for row in self._in_flight.return_unbegun(unbegun):
            self._meter.returned(row)
            self._recorder.give_back([row])

    def _give_back(self) -> None:
        self._recorder.give_back(self._waiting)
        self._waiting.clear()

    def _may_begin(self) -> bool:
        if self._cannot_read or self._recorder.is_behind:
            return False
        return time.monotonic() < self._window.start_until and not self._failover.all_open

    @property
    def _cannot_read(self) -> bool:
        """Whether Postgres was away when attachments were read, and has committed nothing since."""
        return self._unreadable_since is not None and self._unreadable_since == self._recorder.commits

    def _messages(self) -> Iterator[Message]:
        """Yield what the provider may begin now; end early where time, Postgres or room for attachments runs out."""
        self._carried = 0  # it is asked anew only when nothing is in flight
        while self._waiting and self._may_begin() and self._carried < _MOST_CARRIED:
            # Messages that are made are sent, so that every claim gets on however slow its templates are.
            yield from self._made()

    def _made(self) -> Iterator[Message]:
        """Make the messages of the next few rows, and yield them; rows that cannot be made have failed."""
        began = time.monotonic()
        rows = self._composition.fitting(list(islice(self._waiting, self._at_once)), _MOST_CARRIED - self._carried)
        try:
            with self._meter.step(COMPOSE):
                made = self._composition.messages(rows)
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            log.warning("attachments_not_read", error=kind_of(error), messages=len(rows))
            self._unreadable_since = self._recorder.commits
            return
        took = time.monotonic() - began
        # A template may take seconds, and the lease goes on meanwhile.
        self._at_once = min(_MOST_AT_ONCE, 2 * self._at_once) if took < _SLOW_COMPOSING else 1
        for row, message in zip(rows, made, strict=True):
            if not self._waiting:
                return  # given back meanwhile
            if isinstance(message, CannotCompose):
                self._waiting.popleft()
                self._outcomes.add_unmade(row, str(message))
                continue
            grace = COMPOSING if row.template_id is not None else 0
            if time.monotonic() >= self._window.start_until + grace:
                return
            self._waiting.popleft()
            self._in_flight.begin(row, secrets_of(message.recipient, message.headers))
            self._carried += sum(len(each.content) for each in message.attachments)
            yield self._meter.begin(row, message)
