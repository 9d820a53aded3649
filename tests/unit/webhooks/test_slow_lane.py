"""Slow endpoints: moved out of the way, and forgotten once it is over."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from notifier.delivery.endpoint_gate import EndpointGate
from notifier.notifications.claims import Claimed
from notifier.vocabulary.addresses import endpoint_of
from notifier.vocabulary.ids import new_id
from notifier.webhooks.endpoint_health import delete_healthy

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
URL = "https://example.com/hook"


def _claimed(queue: str, deferred_at: datetime) -> Claimed:
    known = {"id": new_id(), "recipient": URL, "critical": False, "claims": 1, "attempts": 0, "created_at": NOW}
    absent = dict.fromkeys(set(Claimed.__slots__) - known.keys())
    return Claimed(**{**absent, **known, "queue": queue, "deferred_at": deferred_at, "now": NOW})


def test_moving_to_the_slow_lane_keeps_how_long_a_row_was_put_off() -> None:
    gate, since = EndpointGate(timedelta(hours=72)), NOW - timedelta(hours=5)
    moved = gate.divert(_claimed("webhook", since), {endpoint_of(URL)})
    assert moved
    assert (moved.queue, moved.deferred_at, moved.due_at) == ("webhook.slow", since, NOW)
    for there in ("webhook.slow", "webhook.retry"):
        assert gate.divert(_claimed(there, since), {endpoint_of(URL)}) is None
    assert gate.divert(_claimed("webhook", since), set()) is None
    gate.suspects.update([endpoint_of(URL)])
    assert gate.divert(_claimed("webhook.high", since), set())


def test_endpoints_of_which_nothing_is_left_to_know_are_forgotten(engine: Engine) -> None:
    failing, limited = new_id(), new_id()
    subscribe = text("""
        INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)
        SELECT id, 'https://example.com/', '{x}', '{}', true, 'x', now(), now() FROM unnest(CAST(:ids AS uuid[])) AS id
    """)
    later, earlier = "now() + interval '1 minute'", "now() - interval '1 minute'"
    kept = {
        failing: ("failing_since", "now()"),
        limited: ("next_slot", later),
        new_id(): ("slow_until", later),
        new_id(): ("waited_for", "true"),
    }
    # A failure and a slot count as long as there is a subscription whose they are.
    gone = {
        new_id(): ("slow_until", earlier),
        new_id(): ("next_slot", later),
        new_id(): ("failing_since", "now()"),
        new_id(): ("failures", "0"),
    }
    with engine.begin() as connection:
        connection.execute(subscribe, {"ids": [failing, limited]})
        for endpoint, (column, value) in {**kept, **gone}.items():
            connection.execute(text(f"INSERT INTO endpoints (id, {column}) VALUES (:id, {value})"), {"id": endpoint})
    assert delete_healthy(engine) == len(gone)
    with engine.connect() as connection:
        assert set(connection.scalars(text("SELECT id FROM endpoints"))) == kept.keys()
    assert delete_healthy(engine) == 0
