"""Intake: accept events exactly once, by group commit.

Requests that arrive together share one multi-row INSERT and one COMMIT. A writer thread in each API process takes the
waiting requests (it never sleeps to wait for more), writes, commits and wakes them. At 64 connections that is about six
times the events a second that a session and a commit for each would give.
"""

import contextlib
import queue
import threading
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from notifier.observability import metrics
from notifier.observability.request_context import RequestContext
from notifier.planning.drafts import Draft, as_document, insert_events, insert_notifications
from notifier.runtime.isolation import is_away, is_of_data, kind_of, why_away
from notifier.runtime.threads import start_lasting
from notifier.storage.deadlines import allow
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.errors import Invalid, KeyReused, NotifierError, Unavailable

log = structlog.get_logger()

#: Rows that one group takes at the most: a commit of that size takes some tens of milliseconds.
_GROUP: Final = 2000
#: How often a group is tried: it may be chosen as a deadlock's victim, or find its connection lost.
_TRIES: Final = 5
#: Seconds until a connection that does not answer is given up: slightly more than the server's limit for the statement.
_ANSWER: Final = 4.5
_DEADLOCK: Final = frozenset({"40P01", "40001"})  # deadlock_detected, serialization_failure


@dataclass(frozen=True, slots=True)
class Accepted:
    """The records that a request created, or that the first request with its idempotency key created."""

    ids: list[UUID]
    created_at: datetime
    duplicate: bool


#: The outcome of one draft.
Answer = Accepted | NotifierError


class Publisher(Protocol):
    """Where hints go: (queue, id) of rows that are due now. Must return at once and raise nothing."""

    def hint(self, hints: Sequence[tuple[str, UUID]], causes: Sequence[RequestContext]) -> None:
        """Notify the workers, if they can be reached; `causes` are the requests that brought each."""
        ...


@dataclass(slots=True)
class _Request:
    drafts: Sequence[Draft]
    answers: "Future[list[Answer]]"


_WON = "WHERE row.key IS NULL OR (row.source, row.key) IN (SELECT source, key FROM won)"
# One round trip and one commit a group: the whole string is one implicit transaction (autocommit).
# Keys go in in one order everywhere, else two processes deadlock. An expired key is taken over; one that is there
# with our own ids was written by ourselves, over a connection that was lost before it could say so.
_WRITE = text(f"""
    SET LOCAL statement_timeout = '4s';
    WITH won AS (
        INSERT INTO idempotency_keys AS known (source, key, fingerprint, ids, created_at, expires_at)
        SELECT source, key, decode(fingerprint, 'hex'), ids, created_at, now() + CAST(:ttl AS interval)
        FROM json_to_recordset(CAST(:keys AS json))
            AS given(source text, key text, fingerprint text, ids uuid[], created_at timestamptz)
        ORDER BY source, key
        ON CONFLICT (source, key) DO UPDATE SET fingerprint = excluded.fingerprint, ids = excluded.ids,
            created_at = excluded.created_at, expires_at = excluded.expires_at
            WHERE known.expires_at <= now() OR known.ids = excluded.ids
        RETURNING source, key
    ), new_events AS ({insert_events(_WON)}), new_notifications AS ({insert_notifications(_WON)})
    SELECT source, key FROM won
""")
# A second statement, whose snapshot shows the rows that the winners of the first one committed.
_READ_KEYS = text("""
    SELECT source, key, fingerprint, ids, created_at
    FROM idempotency_keys JOIN json_to_recordset(CAST(:keys AS json)) AS given(source text, key text)
        USING (source, key)
""")


def withdraw(answers: "Future[list[Answer]]") -> Unavailable:
    """Withdraw drafts that were submitted and not answered in time, if that is still possible; returns the error."""
    if answers.cancel():
        return Unavailable("Postgres did not answer in time; nothing was written.")
    return Unavailable(
        "Postgres did not answer in time; it may have been written. Repeat it with the same idempotency key."
    )


class Intake:
    """The writer of one API process. Its thread starts with the first request, in the process that serves it."""

    def __init__(self, engine: Engine, publisher: Publisher, *, idempotency_ttl: timedelta) -> None:
        self._engine = autocommit_of(engine)
        #: Held from group to group; made anew where it was lost.
        self._connection: Connection | None = None
        self._publisher = publisher
        self._ttl = idempotency_ttl
        self._waiting: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None

    def accept(self, drafts: Sequence[Draft], timeout: float) -> list[Answer]:
        """Write drafts, each independently, and wait until they are committed: an answer a draft.

        An answer is Accepted, Invalid (KeyReused if an idempotency key came back with another body), or Unavailable.
        Raises Unavailable after `timeout` seconds: drafts that the writer has not taken by then are withdrawn and will
        not be written.
        """
        return self._ask(drafts, timeout)

    def submit(self, drafts: Sequence[Draft]) -> "Future[list[Answer]]":
        """Have drafts written as `accept` does, without waiting.

        The writer's thread calls the future's callbacks, which must be short. Drafts are withdrawn by cancelling it,
        which fails once the writer has taken them.
        """
        if self._writer is None:
            with self._starting:
                if self._writer is None:
                    self._writer = start_lasting("intake", self._write_for_ever)
        request = _Request(drafts, Future())
        self._waiting.put(request)
        return request.answers

    def check(self, timeout: float) -> None:
        """Go the way of `accept` with nothing to write. Raises Unavailable where that would be."""
        for answer in self._ask((), timeout):
            if isinstance(answer, Unavailable):
                raise answer

    def _ask(self, drafts: Sequence[Draft], timeout: float) -> list[Answer]:
        """Have the writer write drafts; none: have it try, and answer Unavailable where it could not."""
        answers = self.submit(drafts)
        try:
            return answers.result(timeout)
        except FutureTimeout:
            raise withdraw(answers) from None

    def _write_for_ever(self) -> None:
        while True:
            group = [self._waiting.get()]
            size = len(group[0].drafts)
            while size < _GROUP:
                try:
                    group.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
                size += len(group[-1].drafts)
            taken = [request for request in group if request.answers.set_running_or_notify_cancel()]
            try:
                self._write(taken)
            except BaseException:
                # The thread must survive any error of a group; its requests receive the error.
                log.exception("intake_failed", requests=len(taken))
                for request in taken:
                    if not request.answers.done():
                        request.answers.set_result([Unavailable("It could not be written.")] * len(request.drafts))

    def _write(self, requests: Sequence[_Request]) -> None:
        drafts = [draft for request in requests for draft in request.drafts]
        if not drafts:
            self._try(requests)
            return
        with metrics.timed(metrics.GROUP_SECONDS):
            answers = self._answers(drafts)
        away = [answer for answer in answers if isinstance(answer, Unavailable)][:1]
        accepted = [pair for pair in zip(drafts, answers, strict=True) if isinstance(pair[1], Accepted)]
        new = [draft for draft, answer in accepted if isinstance(answer, Accepted) and not answer.duplicate]
        remaining = iter(answers)
        for request in requests:
            request.answers.set_result([next(remaining) for _ in request.drafts] if request.drafts else [*away])
        hints = [(hint, draft.cause) for draft in new for hint in draft.hints]
        self._publisher.hint([hint for hint, _ in hints], [cause for _, cause in hints])
        _count(len(drafts), new, len(accepted) - len(new))

    def _try(self, requests: Sequence[_Request]) -> None:
        """Write nothing, as everything is written, and say whether that works."""
        away: list[Answer] = []
        try:
            self._commit(())
        except Exception as error:
            log.warning("intake_unavailable", error=kind_of(error), drafts=0)
            away = [Unavailable(why_away(error))]
        for request in requests:
            request.answers.set_result([*away])

    def _answers(self, drafts: Sequence[Draft]) -> list[Answer]:
        try:
            return self._commit(drafts)
        except Exception as error:
            if is_away(error):
                log.warning("intake_unavailable", error=kind_of(error), drafts=len(drafts))
                return [Unavailable(why_away(error))] * len(drafts)
            if len(drafts) > 1:
                # One poisoned row must not fail its neighbours.
                return [answer for draft in drafts for answer in self._answers([draft])]
            log.warning("intake_refused", error=kind_of(error))
            if is_of_data(error):
                return [Invalid({"_schema": ["Postgres cannot store this."]})]
            return [Unavailable("Postgres did not take this; nothing was written.")]

    def _commit(self, drafts: Sequence[Draft]) -> list[Answer]:
        """Write a group; on a connection that was lost, or after a deadlock, again: that is safe, by its ids."""
        for _ in range(_TRIES):
            fresh = self._connection is None
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                    allow(self._connection, _ANSWER)
                return _write_group(self._connection, drafts, self._ttl)
            except DBAPIError as error:
                self._drop_connection()
                # One that was held may have died since; one that was just made says that Postgres is away.
                lost = error.connection_invalidated and not fresh
                if not lost and getattr(error.orig, "pgcode", None) not in _DEADLOCK:
                    raise
        return [Unavailable("Too much happens at once.")] * len(drafts)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()


def _count(size: int, new: Sequence[Draft], duplicates: int) -> None:
    """Count the outcomes of a group."""
    metrics.GROUP_SIZE.observe(size)
    metrics.EVENTS_ACCEPTED.inc(sum(draft.event is not None for draft in new))
    metrics.DUPLICATES.inc(duplicates)
    rows = [row for draft in new for row in draft.notifications]
    direct = (row["channel"] or metrics.NONE for draft in new if draft.event is None for row in draft.notifications)
    metrics.count(metrics.NOTIFICATIONS_ACCEPTED, ((channel,) for channel in direct))
    metrics.count_finished(rows)


def _key_of(draft: Draft) -> tuple[str, str]:
    return draft.source, draft.idempotency_key or ""  # no key is empty


def _write_group(connection: Connection, drafts: Sequence[Draft], ttl: timedelta) -> list[Answer]:
    """Write drafts in one transaction: those that win their keys are inserted, the others answered for."""
    leaders: dict[tuple[str, str], Draft] = {}
    for draft in drafts:
        if draft.idempotency_key is not None:
            leaders.setdefault(_key_of(draft), draft)
    written = [draft for draft in drafts if leaders.get(_key_of(draft), draft) is draft]
    document = {
        "ttl": ttl,
        "keys": orjson.dumps([_key_row(leader) for leader in leaders.values()]).decode(),
        # If they differ, a subscription has changed meanwhile: the oldest version makes sure that this is noticed.
        "version": min((draft.version for draft in written), default=0),
        "events": as_document([draft.event for draft in written if draft.event]),
        "notifications": as_document([row for draft in written for row in draft.notifications]),
    }
    won = {(row.source, row.key) for row in connection.execute(_WRITE, document)}
    known = _read_keys(connection, [leader for key, leader in leaders.items() if key not in won])
    return [_answer(draft, leaders.get(_key_of(draft)), won, known) for draft in drafts]


@dataclass(frozen=True, slots=True)
class _KnownKey:
    fingerprint: bytes
    ids: list[UUID]
    created_at: datetime


def _answer(
    draft: Draft, leader: Draft | None, won: Container[tuple[str, str]], known: Mapping[tuple[str, str], _KnownKey]
) -> Answer:
    """Return a draft's outcome: `leader` is the first of its group with its key, `known` what others created."""
    if leader is None or (leader is draft and _key_of(draft) in won):
        return Accepted(draft.ids, draft.created_at, duplicate=False)
    if _key_of(draft) in won:
        first = _KnownKey(leader.fingerprint, leader.ids, leader.created_at)
    elif _key_of(draft) in known:
        first = known[_key_of(draft)]
    else:
        # Its time ran out between the two statements, and somebody swept it away.
        return Unavailable("The idempotency key expired just now; send it again.")
    if draft.fingerprint != first.fingerprint:
        return KeyReused()
    return Accepted(first.ids, first.created_at, duplicate=True)


def _key_row(draft: Draft) -> dict[str, object]:
    return {
        "source": draft.source,
        "key": draft.idempotency_key,
        "fingerprint": draft.fingerprint.hex(),
        "ids": draft.ids,
        "created_at": draft.created_at,
    }


def _read_keys(connection: Connection, losers: Sequence[Draft]) -> dict[tuple[str, str], _KnownKey]:
    """Read the records that the keys of `losers` have created."""
    if not losers:
        return {}
    lost = [{"source": draft.source, "key": draft.idempotency_key} for draft in losers]
    rows = connection.execute(_READ_KEYS, {"keys": orjson.dumps(lost).decode()}).all()
    return {(row.source, row.key): _KnownKey(bytes(row.fingerprint), row.ids, row.created_at) for row in rows}
