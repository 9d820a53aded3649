"""Accept events exactly once: group commit.

Requests that arrive together share one multi-row INSERT and one COMMIT. A writer thread in each API process
takes what is waiting (it never sleeps to wait for more), writes, commits and wakes the requests. At 64
connections that is about six times the events a second that a session and a commit for each would give.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from notifier.drafts import INSERT_EVENTS, INSERT_NOTIFICATIONS, Draft, as_document
from notifier.errors import Invalid, KeyReused, NotifierError, Unavailable

log = structlog.get_logger()

#: Rows that one group takes at the most: a commit of that size takes some tens of milliseconds.
_GROUP: Final = 2000
#: A group that was chosen as a deadlock's victim is repeated this often.
_DEADLOCK_RETRIES: Final = 5
_DEADLOCK: Final = frozenset({"40P01", "40001"})  # deadlock_detected, serialization_failure


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request made, or what the first one with its idempotency key did."""

    ids: list[UUID]
    created_at: datetime
    duplicate: bool


#: What became of one draft.
Answer = Accepted | NotifierError


class Publisher(Protocol):
    """Where hints go: (queue, id) of rows that are due now. Must return at once and raise nothing."""

    def hint(self, hints: Sequence[tuple[str, UUID]]) -> None:
        """Tell the workers, if they can be told."""
        ...


@dataclass(slots=True)
class _Request:
    drafts: Sequence[Draft]
    answers: "Future[list[Answer]]"


# Keys go in in one order everywhere, else two processes deadlock. An expired key is taken over.
_CLAIM_KEYS = text("""
    INSERT INTO idempotency_keys AS known (source, key, fingerprint, ids, created_at, expires_at)
    SELECT source, key, decode(fingerprint, 'hex'), ids, created_at, now() + CAST(:ttl AS interval)
    FROM json_to_recordset(CAST(:keys AS json))
        AS given(source text, key text, fingerprint text, ids uuid[], created_at timestamptz)
    ORDER BY source, key
    ON CONFLICT (source, key) DO UPDATE SET fingerprint = excluded.fingerprint, ids = excluded.ids,
        created_at = excluded.created_at, expires_at = excluded.expires_at
        WHERE known.expires_at <= now()
    RETURNING source, key
""")
# A statement of its own, so that its snapshot shows what the winners of the first one committed.
_READ_KEYS = text("""
    SELECT source, key, fingerprint, ids, created_at
    FROM idempotency_keys JOIN json_to_recordset(CAST(:keys AS json)) AS given(source text, key text)
        USING (source, key)
""")
_BOUND = text("SET LOCAL statement_timeout = '8s'")


class Intake:
    """The writer of one API process. Its thread starts with the first request, in the process that serves it."""

    def __init__(self, engine: Engine, publisher: Publisher, *, idempotency_ttl: timedelta) -> None:
        self._engine = engine
        self._publisher = publisher
        self._ttl = idempotency_ttl
        self._waiting: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None

    def accept(self, drafts: Sequence[Draft], timeout: float) -> list[Answer]:
        """Write drafts, each on its own merits, and wait until they are committed: an answer a draft.

        An answer is Accepted, Invalid (KeyReused where an idempotency key came back with another body), or
        Unavailable. Raises Unavailable where `timeout` seconds pass: what the writer has not taken by then
        is withdrawn and will not be written.
        """
        if self._writer is None:
            with self._starting:
                if self._writer is None:
                    self._writer = threading.Thread(target=self._write_for_ever, name="intake", daemon=True)
                    self._writer.start()
        request = _Request(drafts, Future())
        self._waiting.put(request)
        try:
            return request.answers.result(timeout)
        except FutureTimeout:
            if request.answers.cancel():
                raise Unavailable("Postgres did not answer in time; nothing was written.") from None
            raise Unavailable(
                "Postgres did not answer in time; it may have been written. Repeat it with the same idempotency key."
            ) from None

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
            except Exception:
                # The thread must outlive whatever a group brings; its requests hear of it.
                log.exception("intake_failed", requests=len(taken))
                for request in taken:
                    if not request.answers.done():
                        request.answers.set_result([Unavailable("It could not be written.")] * len(request.drafts))

    def _write(self, requests: Sequence[_Request]) -> None:
        drafts = [draft for request in requests for draft in request.drafts]
        answers = self._answers(drafts)
        hints = [
            hint
            for draft, answer in zip(drafts, answers, strict=True)
            if isinstance(answer, Accepted) and not answer.duplicate
            for hint in draft.hints
        ]
        remaining = iter(answers)
        for request in requests:
            request.answers.set_result([next(remaining) for _ in request.drafts])
        self._publisher.hint(hints)

    def _answers(self, drafts: Sequence[Draft]) -> list[Answer]:
        if not drafts:
            return []
        try:
            return self._commit(drafts)
        except (OperationalError, InterfaceError) as error:
            # Its connection is gone with it; the pool makes the next one.
            log.warning("intake_unavailable", error=type(error.orig).__name__, drafts=len(drafts))
            return [Unavailable("Postgres cannot be reached.")] * len(drafts)
        except (DataError, IntegrityError, ProgrammingError, DBAPIError) as error:
            if len(drafts) > 1:
                # One poisoned row must not fail its neighbours.
                return [answer for draft in drafts for answer in self._answers([draft])]
            log.warning("intake_refused", error=type(error.orig).__name__)
            return [Invalid({"_schema": ["Postgres cannot store this."]})]

    def _commit(self, drafts: Sequence[Draft]) -> list[Answer]:
        for _ in range(_DEADLOCK_RETRIES):
            try:
                with self._engine.begin() as connection:
                    return _write_group(connection, drafts, self._ttl)
            except OperationalError as error:
                if getattr(error.orig, "pgcode", None) not in _DEADLOCK:
                    raise
        return [Unavailable("Too much happens at once.")] * len(drafts)


def _key_of(draft: Draft) -> tuple[str, str]:
    return draft.source, draft.idempotency_key or ""


def _write_group(connection: Connection, drafts: Sequence[Draft], ttl: timedelta) -> list[Answer]:
    """Write drafts in the connection's transaction: winners of their keys are inserted, the others answered for."""
    connection.execute(_BOUND)
    leaders: dict[tuple[str, str], Draft] = {}
    for draft in drafts:
        if draft.idempotency_key is not None:
            leaders.setdefault(_key_of(draft), draft)
    known = _claim_keys(connection, list(leaders.values()), ttl) if leaders else {}

    answers: list[Answer] = []
    winners: list[Draft] = []
    for draft in drafts:
        leader = leaders.get(_key_of(draft), draft)
        first = known.get(_key_of(draft))
        if draft is leader and first is None:
            winners.append(draft)
            answers.append(Accepted(draft.ids, draft.created_at, duplicate=False))
        elif draft.fingerprint != (first.fingerprint if first else leader.fingerprint):
            answers.append(KeyReused())
        else:
            answers.append(
                Accepted(first.ids, first.created_at, duplicate=True)
                if first
                else Accepted(leader.ids, leader.created_at, duplicate=True)
            )
    events = [draft.event for draft in winners if draft.event]
    notifications = [row for draft in winners for row in draft.notifications]
    if events:
        connection.execute(INSERT_EVENTS, {"events": as_document(events)})
    if notifications:
        connection.execute(INSERT_NOTIFICATIONS, {"notifications": as_document(notifications)})
    return answers


@dataclass(frozen=True, slots=True)
class _KnownKey:
    fingerprint: bytes
    ids: list[UUID]
    created_at: datetime


def _claim_keys(connection: Connection, leaders: Sequence[Draft], ttl: timedelta) -> dict[tuple[str, str], _KnownKey]:
    """Insert the keys of `leaders`; returns those that somebody else had before, with what they stand for."""
    given = [
        {
            "source": draft.source,
            "key": draft.idempotency_key,
            "fingerprint": draft.fingerprint.hex(),
            "ids": draft.ids,
            "created_at": draft.created_at,
        }
        for draft in leaders
    ]
    won = {
        (row.source, row.key)
        for row in connection.execute(_CLAIM_KEYS, {"keys": orjson.dumps(given).decode(), "ttl": ttl})
    }
    lost = [{"source": draft.source, "key": draft.idempotency_key} for draft in leaders if _key_of(draft) not in won]
    if not lost:
        return {}
    return {
        (row.source, row.key): _KnownKey(bytes(row.fingerprint), row.ids, row.created_at)
        for row in connection.execute(_READ_KEYS, {"keys": orjson.dumps(lost).decode()})
    }
