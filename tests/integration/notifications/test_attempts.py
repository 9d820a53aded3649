"""Attempts: each call leaves one, whatever it came to, however often it is written, and whoever dies meanwhile."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.notifications.attempts import AbandonedClaim, Record, may_be_out, record, record_worker_losses
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Status

_INSERT = text("""
    INSERT INTO notifications
        (id, source, recipient, channel, critical, priority, queue, status, due_at, claims, created_at)
    VALUES (:id, 'test', '+15550100', 'sms', false, 'normal', 'sms', 'sending', now() + interval '1 minute', 3, now())
""")


@pytest.fixture
def held(engine: Engine) -> UUID:
    """A notification that a worker holds under its third claim."""
    row_id = new_id()
    with engine.begin() as connection:
        connection.execute(_INSERT, {"id": row_id})
    return row_id


def came(row_id: UUID, outcome: Outcome, provider: str, *, handed_on: bool = False, **more: Any) -> Result:
    return Result(row_id, outcome, provider, datetime.now(UTC), 5.0, handed_on=handed_on, **more)


def write(engine: Engine, *records: Record) -> None:
    record(engine, records, finished=Status.SENT, emit_events=False)


def log_of(engine: Engine, row_id: UUID) -> list[tuple[Any, ...]]:
    query = text(
        "SELECT number, provider, outcome, message_id FROM attempts WHERE notification_id = :id ORDER BY number"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"id": row_id})]


def counters(engine: Engine, row_id: UUID) -> tuple[Any, ...]:
    query = text("SELECT status, attempts, tries FROM notifications WHERE id = :id")
    with engine.connect() as connection:
        return tuple(connection.execute(query, {"id": row_id}).one())


@pytest.mark.parametrize("together", [True, False])
def test_calls_that_went_on_are_attempts_and_cost_no_try(engine: Engine, held: UUID, together: bool) -> None:
    first = came(held, Outcome.UNSENT, "one", handed_on=True, fault=Fault.PROVIDER)
    last = came(held, Outcome.ACCEPTED, "two", message_id="SM1")
    records = [Record(first, 3, 1, 1, 0), Record(last, 3, 2, 1, 1)]
    for part in [records] if together else [records[:1], records[1:]]:
        write(engine, *part)
        if part == records[:1]:
            assert counters(engine, held) == ("sending", 1, 0)
    assert log_of(engine, held) == [(1, "one", "unsent", None), (2, "two", "accepted", "SM1")]
    assert counters(engine, held) == ("sent", 2, 0)
    write(engine, *records)  # a COMMIT whose answer was lost
    assert len(log_of(engine, held)) == 2
    assert counters(engine, held) == ("sent", 2, 0)


def test_where_the_last_call_fails_the_claim_costs_one_try(engine: Engine, held: UUID) -> None:
    results = [came(held, Outcome.UNSENT, name, handed_on=name != "three") for name in ("one", "two", "three")]
    write(engine, *[Record(each, 3, place + 1, 1, place) for place, each in enumerate(results)])
    assert [number for number, *_ in log_of(engine, held)] == [1, 2, 3]
    assert counters(engine, held) == ("sending", 3, 1)


def test_a_worker_that_dies_between_two_providers_leaves_an_attempt_for_the_second(engine: Engine, held: UUID) -> None:
    write(engine, Record(came(held, Outcome.UNSENT, "one", handed_on=True), 3, 1, 1, 0))
    with engine.begin() as connection:
        assert record_worker_losses(connection, [AbandonedClaim(held, 3, 1)]) == {held}
        assert may_be_out(connection, [AbandonedClaim(held, 3, 1)]) == {held}
    assert log_of(engine, held) == [(1, "one", "unsent", None), (2, None, "ambiguous", None)]


def test_a_recorded_failure_is_not_taken_for_a_lost_worker(engine: Engine, held: UUID) -> None:
    write(engine, Record(came(held, Outcome.UNSENT, "one"), 3, 1, 1))
    with engine.begin() as connection:
        assert record_worker_losses(connection, [AbandonedClaim(held, 3, 1)]) == set()
        assert may_be_out(connection, [AbandonedClaim(held, 3, 1)]) == set()


#: Answers that a server or a plug-in provider may give, and that Postgres cannot store.
ANSWERS: list[dict[str, Any]] = [
    {"error": "http 400: \0"},
    {"error": "\ud800", "message_id": "\udfff"},
    {"response_excerpt": "a\0b", "response_headers": {"x\0": "\ud800"}, "request_headers": {"\ud800": "\0"}},
    {"status_code": 2**40},
    {"status_code": 2**70},
    {"timing": {"total_ms": float("nan")}, "retry_after": float("inf")},
    {"timing": {"total_ms": object()}},
    {"message_id": b"bytes"},
]


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.REJECTED])
@pytest.mark.parametrize("emit_events", [True, False])
def test_an_answer_that_cannot_be_kept_costs_no_other_its_record(
    engine: Engine, outcome: Outcome, emit_events: bool
) -> None:
    ids = [new_id() for _ in range(20 + len(ANSWERS))]
    with engine.begin() as connection:
        connection.execute(_INSERT, [{"id": each} for each in ids])
    answers = [{}] * 10 + ANSWERS + [{}] * 10
    records = [Record(came(each, outcome, "one", **more), 3, 1, 1) for each, more in zip(ids, answers, strict=True)]
    record(engine, records, finished=Status.SENT, emit_events=emit_events)
    status = Status.SENT if outcome is Outcome.ACCEPTED else Status.SENDING
    for each in ids:
        assert counters(engine, each) == (status, 1, 0 if outcome is Outcome.ACCEPTED else 1)
        assert [row[:3] for row in log_of(engine, each)] == [(1, "one", outcome)]


def test_counters_at_their_end_stay_there(engine: Engine, held: UUID) -> None:
    write(engine, Record(came(held, Outcome.UNSENT, "one"), 3, 2**31, 2**31))
    assert counters(engine, held) == ("sending", 2**31 - 1, 2**31 - 1)
    with engine.begin() as connection:
        assert record_worker_losses(connection, [AbandonedClaim(held, 4, 2**31 - 1)]) == {held}
