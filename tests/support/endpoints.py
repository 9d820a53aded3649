"""Endpoints that fail, and what is known of their health."""

import contextlib
from typing import Any

from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


def subscribe(system: Running, url: str, *event_types: str, **fields: Any) -> str:
    """Make a subscription; returns its id."""
    answer = system.post("/api/v1/subscriptions", {"url": url, "event_types": list(event_types), **fields})
    assert answer.status_code == 201, answer.text
    subscription_id: str = answer.json()["id"]
    return subscription_id


def rows_of(system: Running, subscription_id: str) -> list[dict[str, Any]]:
    """The notifications of a subscription, oldest first."""
    found: Any = system.get(f"/api/v1/subscriptions/{subscription_id}/notifications?limit=200").json()["items"]
    return list(reversed(found))


def finished(system: Running, event_id: str) -> dict[str, Any]:
    """The notification of an event once it has one, and that is finished."""
    wait_for(lambda: system.notifications(event_id), 40)
    return system.finished(event_id, 40)


def post(system: Running, event_type: str, count: int) -> None:
    """Post events in one request."""
    answer = system.post("/api/v1/events/batch", {"events": [{"event_type": event_type}] * count})
    assert answer.json()["accepted"] == count, answer.text


def wait_for_states(system: Running, subscription_id: str, *states: tuple[str, str | None]) -> Any:
    """The notifications of a subscription once their (status, reason) are these, in any order."""

    def states_of(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return sorted((row["status"], row["reason"] or "") for row in rows)

    wanted = sorted((status, reason or "") for status, reason in states)
    with contextlib.suppress(AssertionError):
        return wait_for(lambda: states_of(rows := rows_of(system, subscription_id)) == wanted and rows, 30)
    found = states_of(rows_of(system, subscription_id))
    assert found == wanted, found
    return rows_of(system, subscription_id)


WAITS = ("scheduled", "breaker_open")
DELIVERED = ("delivered", None)
KEEP_OPEN = "UPDATE endpoints SET open_until = now() + interval '1 hour' WHERE id = :id"


def open_breaker(system: Running, http: HttpReceiver, subscription_id: str, path: str, event_type: str) -> Any:
    """Let five events fail, so that they wait for the breaker; it stays open until `hurry`."""
    http.answer(path, 500)
    post(system, event_type, 5)
    rows = wait_for_states(system, subscription_id, *[WAITS] * 5)
    system.sql(KEEP_OPEN, id=subscription_id)
    assert len(http.received(path)) == 5
    return rows


def hurry(system: Running, subscription_id: str, *, open_still: bool = False) -> None:
    """Put the clock forward for the notifications that wait for a breaker; and to its end, but for `open_still`."""
    if not open_still:
        system.sql("UPDATE endpoints SET open_until = now() WHERE id = :id", id=subscription_id)
    due = "UPDATE notifications SET due_at = now() WHERE subscription_id = :id AND reason = 'breaker_open'"
    system.sql(due, id=subscription_id)


def come_up(system: Running, subscription_id: str, rows: int) -> None:
    """Let workers look at notifications that wait for a breaker, while it is open."""
    claims = "SELECT coalesce(sum(claims), 0) FROM notifications WHERE subscription_id = :id"
    before = system.sql(claims, id=subscription_id)[0][0]
    system.sql(KEEP_OPEN, id=subscription_id)
    hurry(system, subscription_id, open_still=True)
    wait_for(lambda: system.sql(claims, id=subscription_id)[0][0] >= before + rows, 30)
