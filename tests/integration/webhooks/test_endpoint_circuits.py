"""The breaker of an endpoint as its row keeps it: what failures, probes and successes of several batches make of it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.notifications.claims import Claimed
from notifier.providers.protocol import Outcome, Result
from notifier.vocabulary.ids import new_id
from notifier.webhooks import endpoint_slots
from notifier.webhooks.endpoint_health import Watch
from notifier.webhooks.targets import read_targets

DISABLE_AFTER = timedelta(days=5)


@pytest.fixture
def endpoint(engine: Engine) -> UUID:
    """A subscription's endpoint."""
    made = new_id()
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)
                VALUES (:id, 'https://example.com/', '{x}', '{}', true, 'x', now(), now())
            """),
            {"id": made},
        )
    return made


def batch(engine: Engine, endpoint: UUID) -> Callable[..., None]:
    """A batch that begins now; returns what reports its results, so many of one outcome."""
    with engine.connect() as connection:
        watch = Watch(engine, read_targets(connection, [endpoint]), (), DISABLE_AFTER)

    def ends(outcome: Outcome, times: int = 1) -> None:
        known = {"id": new_id(), "subscription_id": endpoint}
        row = Claimed(**{**dict.fromkeys(Claimed.__slots__), **known})
        for _ in range(times):
            watch.add(row, Result(row.id, outcome, "webhook", datetime.now(UTC), 1.0, status_code=500))
        watch.take()()

    return ends


def probes(engine: Engine, endpoint: UUID) -> bool:
    """Whether a worker that asks now may send the probe."""
    with engine.begin() as connection:
        endpoint_slots.lock(connection, [endpoint])
        return endpoint_slots.take_probes(connection, [endpoint]) == {endpoint}


def row_of(engine: Engine, endpoint: UUID) -> tuple[Any, ...]:
    """Failures, seconds for which it is open, about how many of them are left, and whether a probe is under way."""
    columns = "failures, open_for, round(extract(epoch FROM open_until - now()) / 5) * 5, probing"
    with engine.connect() as connection:
        row = connection.execute(text(f"SELECT {columns} FROM endpoints WHERE id = :id"), {"id": endpoint}).one()
    return tuple(row)


def half_open(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE endpoints SET open_until = now()"))


def test_results_of_several_batches_add_up_and_what_comes_late_changes_nothing(engine: Engine, endpoint: UUID) -> None:
    first, second, late, later = (batch(engine, endpoint) for _ in range(4))
    first(Outcome.UNSENT, 3)
    assert row_of(engine, endpoint) == (3, None, None, False)
    second(Outcome.UNSENT, 2)
    assert row_of(engine, endpoint) == (5, 15, 15, False)
    late(Outcome.UNSENT, 4)
    assert row_of(engine, endpoint) == (9, 15, 15, False), "it is open already"
    half_open(engine)
    later(Outcome.UNSENT)
    assert row_of(engine, endpoint) == (10, 15, 0, False), "no probe has failed: the next message may be one"
    assert probes(engine, endpoint)


def test_one_probe_at_a_time_and_one_that_fails_doubles_the_wait(engine: Engine, endpoint: UUID) -> None:
    assert not probes(engine, endpoint), "it is closed"
    batch(engine, endpoint)(Outcome.UNSENT, 5)
    for wait in (30, 60, 120):
        assert not probes(engine, endpoint), "it is open"
        half_open(engine)
        assert probes(engine, endpoint)
        assert row_of(engine, endpoint)[2:] == (45, True)
        assert not probes(engine, endpoint), "one is under way"
        batch(engine, endpoint)(Outcome.UNSENT)
        assert row_of(engine, endpoint)[1:] == (wait, wait, False)
    half_open(engine)
    assert probes(engine, endpoint)
    batch(engine, endpoint)(Outcome.ACCEPTED)
    assert row_of(engine, endpoint) == (0, None, None, False)


def test_a_lost_probe_is_followed_by_another(engine: Engine, endpoint: UUID) -> None:
    batch(engine, endpoint)(Outcome.UNSENT, 5)
    half_open(engine)
    assert probes(engine, endpoint)
    half_open(engine)  # its time is over
    assert probes(engine, endpoint)
    batch(engine, endpoint)(Outcome.UNSENT)
    assert row_of(engine, endpoint) == (6, 30, 30, False)
