"""Deliver a batch of notifications of one channel: claim → gate → render → send → record.

    queued ──claim──> sending ──accepted──> sent | delivered
                         │ failed for now, or for good: left in `sending`, its attempt recorded and counted,
                         │ and given to the caller, who reschedules or dead-letters it
                         │ expired ──> expired
                         └ not begun in time ──> queued again

What is true throughout: only the worker whose `claims` a row carries may change it, no transaction is open
while a provider is called, and every call leaves an attempt row whose id follows from the claim.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import InterfaceError, OperationalError

from notifier.attempts import Record, record
from notifier.channels import Channel, Status
from notifier.errors import NotifierError
from notifier.providers import Message, Outcome, Provider, Result
from notifier.rendering import Content, render

log = structlog.get_logger()

#: What a lease keeps over the longest send, in seconds: time enough to record it.
MARGIN: Final = 5.0
#: Results are recorded when this many have come, or after this many seconds.
_RECORD_ROWS: Final = 100
_RECORD_SECONDS: Final = 0.1
#: Between tries to record while Postgres is away, in seconds.
_RECORD_PAUSE: Final = 0.25


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A notification whose attempt failed; still in `sending` under `claims`. Pickles, as Celery requires."""

    id: UUID
    claims: int
    #: No retry can help.
    permanent: bool
    error: str | None
    #: Seconds that the provider asked to wait, as a floor under the backoff.
    retry_after: float | None = None


class BatchFailed(NotifierError):
    """Something in a batch failed. All state is in `args`, so that it survives pickling."""

    def __init__(self, rows: Sequence[FailedRow]) -> None:
        super().__init__(tuple(rows))

    @property
    def rows(self) -> tuple[FailedRow, ...]:
        """The notifications that failed."""
        rows: tuple[FailedRow, ...] = self.args[0]
        return rows

    def __str__(self) -> str:
        permanent = sum(row.permanent for row in self.rows)
        return f"{len(self.rows)} failed, {permanent} of them for good"

    def __repr__(self) -> str:
        return f"BatchFailed({self})"  # short: it goes to logs and to Flower


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A row as it was claimed."""

    id: UUID
    event_id: UUID | None
    event_type: str | None
    recipient: str
    content: str | None
    claims: int
    attempts: int
    expired: bool
    created_at: datetime


# `= ANY(:ids)` prunes partitions; the rows are locked in id order before they are changed, against deadlocks.
_CLAIM: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE id = ANY(:ids) AND status = '{Status.QUEUED}' AND tries = :tries AND channel = :channel
        ORDER BY id FOR UPDATE
    )
    UPDATE notifications n SET status = '{Status.SENDING}', claims = claims + 1,
        due_at = now() + :lease * interval '1 second'
    FROM locked WHERE n.id = locked.id AND n.id = ANY(:ids)
    RETURNING n.id, n.event_id, n.event_type, n.recipient, CAST(n.content AS text) AS content, n.claims, n.attempts,
        coalesce(n.expires_at <= now(), false) AS expired, n.created_at
""")
_EVENTS: Final = text("""
    SELECT id, CAST(payload AS text) AS payload, coalesce(occurred_at, created_at) AS moment
    FROM events WHERE id = ANY(:ids)
""")
_BY_FENCE: Final = """
    FROM unnest(CAST(:ids AS uuid[]), CAST(:claims AS integer[])) AS held(id, claims)
    WHERE n.id = ANY(:ids) AND n.id = held.id AND n.claims = held.claims AND n.status = 'sending'
"""
_EXPIRE: Final = text(f"UPDATE notifications n SET status = '{Status.EXPIRED}', due_at = NULL {_BY_FENCE}")
_GIVE_BACK: Final = text(f"UPDATE notifications n SET status = '{Status.QUEUED}', due_at = now() {_BY_FENCE}")


class Delivery:
    """Delivers over one channel. Used by several threads at once."""

    def __init__(self, engine: Engine, channel: Channel, provider: Provider, *, sending_window: float) -> None:
        #: Each statement is a transaction of its own: a third of the round trips.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._channel = channel
        self._provider = provider
        self._window = sending_window

    def deliver(self, ids: Sequence[UUID], tries: int) -> None:
        """Deliver those of `ids` that are queued with `tries` failed attempts; the others are somebody else's.

        Raises BatchFailed where any failed. Whatever else is raised leaves rows to their lease.
        """
        # Read before the claim: a send begins only while the row is ours for a whole send and MARGIN more.
        began = time.monotonic()
        claimed = self._claim(ids, tries)
        if not claimed:
            return
        batch = _Batch(self._engine, self._channel, self._provider, claimed, tries, began + self._window)
        failed = batch.run()
        log.info(
            "batch",
            channel=self._channel.value,
            tries=tries,
            claimed=len(claimed),
            failed=len(failed),
            seconds=round(time.monotonic() - began, 3),
        )
        if failed:
            raise BatchFailed(failed)

    def _claim(self, ids: Sequence[UUID], tries: int) -> list[_Claimed]:
        """Claim what is ours, and put aside what has expired."""
        lease = self._window + self._provider.timeout + MARGIN
        with self._engine.connect() as connection:
            rows = [
                _Claimed(*row)
                for row in connection.execute(
                    _CLAIM, {"ids": list(ids), "tries": tries, "channel": self._channel.value, "lease": lease}
                )
            ]
            _change(connection, _EXPIRE, [row for row in rows if row.expired])
        return [row for row in rows if not row.expired]


class _Batch:
    """One claimed batch on its way through the provider."""

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        provider: Provider,
        claimed: Sequence[_Claimed],
        tries: int,
        start_until: float,
    ) -> None:
        self._engine = engine
        self._channel = channel
        self._provider = provider
        self._tries = tries
        self._start_until = start_until
        self._waiting = deque(claimed)
        self._begun: dict[UUID, _Claimed] = {}
        self._unrecorded: list[Record] = []
        self._recorded_at = time.monotonic()
        self._postgres_is_away = False
        self._failed: list[FailedRow] = []

    def run(self) -> list[FailedRow]:
        """Send all that can begin in time, record it, and give the rest back; returns what failed."""
        contents = _contents(self._engine, self._waiting)
        while self._waiting and self._may_begin():
            for results in self._provider.send(self._messages(contents)):
                self._note(results)
                if self._record_is_due():
                    self._record()
            # Postgres may have gone meanwhile. What went out is recorded before anything more does.
            while self._unrecorded and not self._record():
                time.sleep(_RECORD_PAUSE)
        if self._waiting:
            with self._engine.connect() as connection:
                _change(connection, _GIVE_BACK, list(self._waiting))
        return self._failed

    def _may_begin(self) -> bool:
        return not self._postgres_is_away and time.monotonic() < self._start_until

    def _messages(self, contents: Mapping[UUID, Content]) -> Iterator[Message]:
        """What the provider may begin now; ends early where time or Postgres runs out."""
        while self._waiting and self._may_begin():
            row = self._waiting.popleft()
            if row.id not in contents:
                self._failed.append(FailedRow(row.id, row.claims, True, "content: its event is gone"))
                continue
            try:
                message = render(row.id, self._channel, row.recipient, contents[row.id])
            except Exception as error:
                # This row breaks our code: it dies alone, its batch goes on.
                log.warning("render_failed", notification_id=str(row.id), error=type(error).__name__)
                self._failed.append(FailedRow(row.id, row.claims, True, f"render: {type(error).__name__}"))
                continue
            self._begun[row.id] = row
            yield message

    def _note(self, results: Sequence[Result]) -> None:
        for result in results:
            row = self._begun.pop(result.id)
            self._unrecorded.append(Record(result, row.claims, row.attempts + 1, self._tries + 1))
            if result.outcome is not Outcome.ACCEPTED:
                permanent = result.outcome is Outcome.REJECTED
                self._failed.append(FailedRow(row.id, row.claims, permanent, result.error, result.retry_after))

    def _record_is_due(self) -> bool:
        if not self._unrecorded or self._postgres_is_away:
            return False
        return len(self._unrecorded) >= _RECORD_ROWS or time.monotonic() - self._recorded_at >= _RECORD_SECONDS

    def _record(self) -> bool:
        """Record what has finished, and say whether that worked; while it does not, nothing more is begun."""
        try:
            record(self._engine, self._unrecorded, confirmed=self._provider.confirms_delivery)
        except (OperationalError, InterfaceError) as error:
            log.warning("record_failed", error=type(error.orig).__name__, results=len(self._unrecorded))
            self._postgres_is_away = True
            return False
        self._unrecorded = []
        self._recorded_at = time.monotonic()
        self._postgres_is_away = False
        return True


def _contents(engine: Engine, rows: Iterable[_Claimed]) -> dict[UUID, Content]:
    """What each row is about; those whose event is gone are missing."""
    rows = list(rows)
    event_ids = [row.event_id for row in rows if row.event_id]
    with engine.connect() as connection:
        events = {row.id: row for row in connection.execute(_EVENTS, {"ids": event_ids})} if event_ids else {}
    contents = {}
    for row in rows:
        if row.content is not None:
            contents[row.id] = Content(None, None, row.content, row.created_at)
        elif event := events.get(row.event_id):
            contents[row.id] = Content(row.event_id, row.event_type, event.payload, event.moment)
    return contents


def _change(connection: Connection, statement: TextClause, rows: Sequence[_Claimed]) -> None:
    if rows:
        rows = sorted(rows, key=lambda row: row.id)
        connection.execute(statement, {"ids": [row.id for row in rows], "claims": [row.claims for row in rows]})
