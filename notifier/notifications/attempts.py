"""Attempts: every call to a provider leaves one, and its notification's counters follow from it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from notifier.models import Attempt, attempt_id
from notifier.models.columns import types_of
from notifier.notifications.status_events import emit_status_events
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.runtime.isolation import in_parts, kind_of
from notifier.storage.engines import autocommit_of
from notifier.storage.personal_data import wipe
from notifier.vocabulary.ids import millisecond_of
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.states import Status


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one call, and the claim under which it was made."""

    result: Result
    claims: int
    #: The attempt's number, from 1.
    number: int
    #: Failed attempts including this one, where it failed.
    failures: int
    #: Zero-based index of this provider call within the claim; all but the last are `handed_on`.
    call: int = 0


#: The largest number that its column holds: a counter stays there, rather than break the statement.
_MOST: Final = 2**31 - 1
_LONGEST_ERROR: Final = 1000

#: The columns of an attempt that a record gives, with their SQL types: all but its id and its notification's.
_GIVEN: Final = {name: kind for name, kind in types_of(Attempt).items() if name not in {"id", "notification_id"}}
# The worker's own record replaces the attempt that the clock wrote when it thought the worker dead.
_ATTEMPTS: Final = f"""
    INSERT INTO attempts (id, notification_id, {", ".join(_GIVEN)}) SELECT attempt_id, id, {", ".join(_GIVEN)}
    FROM json_to_recordset(CAST(:records AS json))
        AS record(attempt_id uuid, id uuid, {", ".join(f"{name} {kind}" for name, kind in _GIVEN.items())})
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _GIVEN)}
        WHERE attempts.provider IS NULL
"""
# Every value is absolute, so that recording twice (a lost COMMIT) changes nothing. An accepted notification is finished
# also if the clock had queued it again and nobody has claimed it since.
_NOTIFICATIONS: Final = f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
    ), recorded AS (UPDATE notifications n SET
        attempts = greatest(n.attempts, record.number),
        tries = CASE WHEN record.accepted OR record.handed_on THEN n.tries ELSE record.tries END,
        status = CASE WHEN record.accepted THEN :finished ELSE n.status END,
        due_at = CASE WHEN record.accepted THEN NULL ELSE n.due_at END,
        sent_at = CASE WHEN record.accepted THEN record.ended_at ELSE n.sent_at END,
        delivered_at = CASE WHEN record.accepted AND :finished = '{Status.DELIVERED}' THEN record.ended_at
            ELSE n.delivered_at END
    FROM json_to_recordset(CAST(:records AS json)) AS record(id uuid, claims integer, number integer, tries integer,
        accepted boolean, handed_on boolean, newest boolean, ended_at timestamptz) JOIN locked USING (id)
    WHERE record.newest AND n.id = ANY(:ids) AND n.id = record.id AND n.claims = record.claims
        AND (n.status = '{Status.SENDING}' OR record.accepted AND n.status = '{Status.QUEUED}')
        RETURNING n.id, n.recipient
    ) SELECT id, recipient IS NULL AS erased FROM recorded WHERE recipient IS NULL OR :emit_events
"""
# One round trip and one commit: two statements in one string are one implicit transaction (autocommit).
_RECORD: Final = text(f"{_ATTEMPTS}; {_NOTIFICATIONS}")


def record(engine: Engine, records: Sequence[Record], *, finished: Status, emit_events: bool) -> None:
    """Write attempts and their consequences for their notifications, in one transaction.

    Accepted ones become `finished`: delivered where the provider's yes is a confirmation, else sent; `emit_events` if
    somebody may subscribe to that. The others stay as they are, with their failures counted. Safe to repeat. An attempt
    leaves out the part of its answer that cannot be stored; the others are recorded all the same. Raises if the
    database is away.
    """

    def work(part: Sequence[Record]) -> None:
        _record(engine, part, finished=finished, emit_events=emit_events)

    def give_up(each: Record, error: Exception) -> None:
        known = each.result
        said = f"{known.error}; " if known.error else ""
        bare = Result(
            *(known.id, known.outcome, known.provider, known.started_at, known.duration_ms),
            handed_on=known.handed_on,
            error=f"{said}record: the answer cannot be kept ({kind_of(error)})"[:_LONGEST_ERROR],
        )
        _record(engine, [replace(each, result=bare)], finished=finished, emit_events=emit_events)

    in_parts(records, work, give_up)


def _record(engine: Engine, records: Sequence[Record], *, finished: Status, emit_events: bool) -> None:
    newest = {each.result.id: each for each in records}
    rows = [_row(each, is_newest=newest[each.result.id] is each) for each in records]
    document = to_json(rows)
    values = {"records": document, "ids": list(newest), "finished": finished.value, "emit_events": emit_events}
    # Status events are written in the same transaction; without them a single statement needs none.
    transaction = engine.begin() if emit_events else autocommit_of(engine).connect()
    with transaction as connection:
        recorded = connection.execute(_RECORD, values).all()
        # Erased while they were being sent: the answers are erased too.
        wipe(connection, [row.id for row in recorded if row.erased])
        if emit_events:
            emit_status_events(connection, [row.id for row in recorded])


def _row(record: Record, *, is_newest: bool) -> dict[str, Any]:
    """Build the JSON members of a record. `is_newest`: of its notification, which only its newest record changes."""
    result = record.result
    return {
        "attempt_id": attempt_id(result.id, record.claims, record.call if result.handed_on else None),
        "id": result.id,
        "claims": record.claims,
        "number": min(record.number, _MOST),
        "tries": min(record.failures, _MOST),
        "accepted": result.outcome is Outcome.ACCEPTED,
        "handed_on": result.handed_on,
        "newest": is_newest,
        "provider": result.provider,
        "outcome": result.outcome,
        "status_code": result.status_code,
        "fault": result.fault,
        "message_id": result.message_id,
        "error": result.error,
        "response_excerpt": result.response_excerpt,
        "duration_ms": result.duration_ms,
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "request_headers": result.request_headers,
        "response_headers": result.response_headers,
        "timing": result.timing,
    }


#: The prefix of the error of an attempt that was accepted, bounced later, and was followed by another attempt.
BOUNCED_ATTEMPT: Final = "bounced: "

# Attempts are of their notification's millisecond: the bounds leave out the days of others.
_ATTEMPTS_OF: Final = text("""
    SELECT id, notification_id, number, provider, outcome, fault, message_id, error, started_at FROM attempts
    WHERE notification_id = ANY(:ids) AND id >= :first AND id < :after ORDER BY notification_id, number, id
""")


def attempts_of(connection: Connection, notification_ids: Collection[UUID]) -> dict[UUID, list[Row[Any]]]:
    """Look up the attempts of some notifications, the oldest first."""
    attempts: dict[UUID, list[Row[Any]]] = {}
    if notification_ids:
        moments = [millisecond_of(each) for each in notification_ids]
        bounds = {"first": UUID(int=min(moments) << 80), "after": UUID(int=max(moments) + 1 << 80)}
        for row in connection.execute(_ATTEMPTS_OF, {"ids": list(notification_ids), **bounds}):
            attempts.setdefault(row.notification_id, []).append(row)
    return attempts


def bounced_by(attempts: Iterable[Row[Any]]) -> frozenset[str]:
    """Return the providers that took a message and could not deliver it, by its attempts (see `attempts_of`)."""
    return frozenset(each.provider for each in attempts if _has_bounced(each))


def _has_bounced(attempt: Row[Any]) -> bool:
    return (attempt.error or "").startswith(BOUNCED_ATTEMPT)


def last_resort(attempts: Sequence[Row[Any]], avoided: int, *, is_retry: bool) -> tuple[str, ...]:
    """Return the providers to be asked after the others, by a message's attempts; the one called last is at the end.

    They are those of the first `avoided` attempts, and in a retry those that could not deliver it.
    """
    names = [each.provider for each in attempts if each.number <= avoided or (is_retry and _has_bounced(each))]
    # Each at its latest call. Nobody knows whom a lost worker has called.
    return tuple(dict.fromkeys(name for name in reversed(names) if name is not None))[::-1]


def without_route(attempts: Iterable[Row[Any]], since: datetime) -> frozenset[str]:
    """Return the providers that have said since then that they have no route to a message's recipient."""
    return frozenset(
        each.provider
        for each in attempts
        if each.fault == Fault.ROUTE and each.started_at is not None and each.started_at > since
    )


_MAY_BE_OUT: Final = text(f"""
    SELECT notification_id FROM attempts WHERE id = ANY(:attempt_ids) AND outcome = '{Outcome.AMBIGUOUS}'
""")


def may_be_out(connection: Connection, held: Sequence["AbandonedClaim"]) -> set[UUID]:
    """Return the notifications whose claim's last attempt may have been sent."""
    ids = [attempt_id(row.id, row.claims) for row in held]
    return set(connection.scalars(_MAY_BE_OUT, {"attempt_ids": ids})) if ids else set()


# A worker that vanished may have sent its rows; the claim's own attempt, where it was recorded, says more.
_RECORD_WORKER_LOSSES: Final = text("""
    INSERT INTO attempts (id, notification_id, number, outcome, error)
    SELECT * FROM unnest(CAST(:attempt_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:numbers AS integer[])),
        (VALUES ('ambiguous', 'worker lost: it may have been sent')) AS lost
    ON CONFLICT (id) DO NOTHING
    RETURNING notification_id
""")


@dataclass(frozen=True, slots=True)
class AbandonedClaim:
    """A claim on a notification: its id, `claims`, and the attempts recorded so far."""

    id: UUID
    claims: int
    attempts: int


def record_worker_losses(connection: Connection, held: Sequence[AbandonedClaim]) -> set[UUID]:
    """Write an ambiguous attempt for each claim whose worker is gone; returns those that had none recorded."""
    return set(
        connection.scalars(
            _RECORD_WORKER_LOSSES,
            {
                "attempt_ids": [attempt_id(row.id, row.claims) for row in held],
                "ids": [row.id for row in held],
                "numbers": [min(row.attempts + 1, _MOST) for row in held],
            },
        )
    )
