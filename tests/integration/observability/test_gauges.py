"""Gauges that the exporter reads, and counts of the clock and the breakers, against rows of our own."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from sqlalchemy import Engine, text

from config.queues import ALL, WORKERS
from notifier.delivery.telemetry import eligible_at
from notifier.notifications import holds
from notifier.notifications.claims import Claimed
from notifier.notifications.retries import RetryPolicy
from notifier.observability import gauges, heartbeats, metrics
from notifier.providers import breakers
from notifier.providers.circuit import Circuit
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.scheduling.due import hand_over
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.queues import DELIVERY, FAN_OUT
from notifier.vocabulary.states import Channel
from tasks.hints import HintPublisher
from tests.support.running import wait_for


def row(engine: Engine, status: str, *, queue: str = "email", late: float | None = None) -> UUID:
    """A notification; `late` is for how many seconds it has been due."""
    row_id = new_id()
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO notifications (id, source, recipient, channel, critical, priority, queue, status, due_at,
                    claims, attempts, created_at)
                VALUES (:id, 'test', 'ada@example.com', split_part(:queue, '.', 1), false, 'normal', :queue, :status,
                    now() - :late * interval '1 second', 1, 0, now())
            """),
            {"id": row_id, "status": status, "queue": queue, "late": late},
        )
    return row_id


def test_gauges_of_postgres(engine: Engine) -> None:
    row(engine, "scheduled", late=-60)
    row(engine, "queued", late=100)
    row(engine, "queued", queue="sms.retry", late=7)
    row(engine, "sent")
    holds.hold(engine, "sms", "test")
    known = [("email", "primary"), ("webhook", "a:b")]
    heartbeats.sign(engine, "all@here", heartbeats.WORKER, ALL, known)
    heartbeats.sign(engine, "gone@here", heartbeats.WORKER, ALL, [("email", "old")])
    with engine.begin() as connection:
        connection.execute(text("UPDATE heartbeats SET seen_at = now() - interval '1 min' WHERE name = 'gone@here'"))
    heartbeats.sign(engine, "clock", heartbeats.CLOCK)
    heartbeats.sign(engine, heartbeats.canary("sms.low"), heartbeats.CANARY)
    with engine.begin() as connection:
        for reason, requeued in (("bounced", None), ("bounced", None), ("too_old", None), ("too_old", "now")):
            connection.execute(
                text("""
                    INSERT INTO dead_letters (id, notification_id, claims, channel, reason, attempts, created_at,
                        requeued_at)
                    VALUES (:id, :id, 1, 'email', :reason, 1, now(), CAST(:requeued AS timestamptz))
                """),
                {"id": new_id(), "reason": reason, "requeued": requeued},
            )
        connection.execute(
            text("""
                INSERT INTO providers (channel, name, open_until) VALUES ('email', 'well', NULL),
                    ('email', 'half', now() - interval '1 second'), ('sms', 'down', now() + interval '1 minute')
            """)
        )
    found = gauges.read(engine)
    assert found.lateness.keys() == {*DELIVERY, FAN_OUT}
    assert (found.lateness["email"], found.lateness["sms.retry"]) == (
        pytest.approx(100, abs=5),
        pytest.approx(7, abs=5),
    )
    assert found.lateness["push"] == found.lateness["fan_out"] == 0
    assert found.live == {("email", "scheduled"): 1, ("email", "queued"): 1, ("sms", "queued"): 1}
    assert found.letters == {("email", "bounced"): 2, ("email", "too_old"): 1}
    assert found.breakers == {("email", "well"): 0, ("email", "half"): 1, ("sms", "down"): 2}
    assert found.providers == frozenset(known)
    assert found.workers == [frozenset(ALL)]
    assert all(frozenset(ALL) >= set(queues) for queues in WORKERS.values())
    assert found.tick_age is not None
    assert found.tick_age < 10
    assert found.canaries.keys() == {"sms.low"}
    assert (found.events, found.holds) == (0, 1)


def test_gauges_of_an_empty_database(engine: Engine) -> None:
    found = gauges.read(engine)
    assert (found.live, found.letters, found.breakers, found.canaries, found.workers) == ({}, {}, {}, {}, [])
    assert (found.tick_age, found.events, found.holds) == (None, 0, 0)
    assert set(found.lateness.values()) == {0}


# --- What the clock and breakers count, in this process


def value(name: str, **labels: str) -> float:
    """A sample of this process."""
    return metrics.REGISTRY.get_sample_value(name, labels) or 0


def test_breakers_count_each_transition(engine: Engine) -> None:
    def transitions() -> list[float]:
        labels = {"channel": "push", "provider": "acme"}
        return [
            value("notifier_breaker_transitions_total", state=state, **labels)
            for state in ("open", "half_open", "closed")
        ]

    def note(outcome: Outcome, *, probing: bool = False, times: int = 1) -> None:
        fault = None if outcome is Outcome.ACCEPTED else Fault.PROVIDER
        taken = breakers.ProviderTally("acme", Circuit(1, 5.0, 0.0))
        for _ in range(times):
            taken.add(Result(new_id(), outcome, "acme", datetime.now(UTC), 1.0, fault=fault), probing=probing)
        notes = taken.take()
        assert notes is not None
        breakers.remember(engine, Channel.PUSH, [notes])

    def due() -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE providers SET open_until = now()"))

    before = transitions()

    def since() -> list[float]:
        return [now - then for now, then in zip(transitions(), before, strict=True)]

    note(Outcome.UNSENT, times=breakers.OPENS_AT - 1)
    assert since() == [0, 0, 0]
    note(Outcome.UNSENT)
    note(Outcome.UNSENT)
    assert since() == [1, 0, 0]
    due()
    assert breakers.take_probe(engine, Channel.PUSH, "acme", 10)
    assert not breakers.take_probe(engine, Channel.PUSH, "acme", 10)
    note(Outcome.UNSENT, probing=True)
    assert since() == [2, 1, 0]
    due()
    assert breakers.take_probe(engine, Channel.PUSH, "acme", 10)
    note(Outcome.ACCEPTED, probing=True)
    note(Outcome.ACCEPTED)
    assert since() == [2, 2, 1]


def test_hints_that_are_dropped_are_counted() -> None:
    at_once = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "socket_connect_timeout": 1}
    app = Celery(broker="redis://127.0.0.1:9/0", set_as_current=False)
    app.conf.broker_transport_options = at_once
    before = value("notifier_hints_dropped_total")
    publisher = HintPublisher(app)
    publisher.hint([("email", new_id()), ("email", new_id())])
    wait_for(lambda: value("notifier_hints_dropped_total") - before == 2)
    publisher.hint([("email", new_id())])  # the broker is left alone for a second
    wait_for(lambda: value("notifier_hints_dropped_total") - before == 3)


def test_rows_of_lost_workers_are_counted(engine: Engine) -> None:
    labels = {"queue": "push.low"}
    before = value("notifier_lost_rows_total", **labels)
    row(engine, "sending", queue="push.low", late=1)
    row(engine, "scheduled", queue="push.low", late=1)
    policy = RetryPolicy(1, 1, 3)
    assert len([*_rows(engine, policy)]) == 1
    with engine.begin() as connection:  # the worker was asked, and said nothing
        connection.execute(text("UPDATE notifications SET due_at = now() WHERE status = 'sending'"))
    assert len([*_rows(engine, policy)]) == 1
    assert value("notifier_lost_rows_total", **labels) - before == 1


def _rows(engine: Engine, policy: RetryPolicy) -> Iterator[UUID]:
    for message in hand_over(engine, "push.low", 10, 5, policy):
        assert message.due is not None
        assert message.due < datetime.now(UTC)
        yield from message.ids


def test_from_when_on_a_notification_may_go() -> None:
    made_at = datetime(2026, 1, 1, tzinfo=UTC)
    due = made_at + timedelta(hours=5)
    nothing = dict.fromkeys(Claimed.__slots__)

    def eligible(handed_over_for: datetime | None = None, **fields: Any) -> datetime | None:
        return eligible_at(Claimed(**{**nothing, "attempts": 0, "created_at": made_at, **fields}), handed_over_for)

    later = made_at + timedelta(hours=1)
    assert eligible() == made_at
    assert eligible(due) == made_at  # its message was lost, and the clock came: all of that is latency
    assert eligible(due, send_at=later) == later
    assert eligible(send_at=made_at - timedelta(hours=1)) == made_at
    for fields in ({"attempts": 1}, {"deferred_at": later}, {"target_date": later}):
        assert eligible(due, **fields) == due
        assert eligible(**fields) is None  # requeued by hand: nobody knows since when
