"""Events of tasks, which Flower shows: deliveries say what they are, ticks and canaries send none."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import text

from notifier.observability import heartbeats
from tests.support.running import Running

Event = dict[str, Any]


@pytest.fixture
def app(system: Running) -> Iterator[Celery]:
    """A client of the system's broker."""
    broker = system.environment.get("BROKER_URL") or system.environment["REDIS_URL"]
    app = Celery(broker=broker, set_as_current=False)
    app.control.enable_events()
    yield app
    app.control.disable_events()
    app.close()


def _seen(system: Running, name: str) -> float:
    """When something gave its last sign of life, in seconds since the epoch."""
    query = text("SELECT extract(epoch FROM max(seen_at)) FROM heartbeats WHERE name = :name")
    with system.engine.connect() as connection:
        return float(connection.scalar(query, {"name": name}) or 0)


def _ids(captured: list[Event], kind: str, **values: str) -> set[str]:
    """The tasks of which such an event was captured."""
    return {each["uuid"] for each in captured if each["type"] == kind and values.items() <= each.items()}


def _capture(app: Celery, system: Running) -> tuple[list[Event], str]:
    """Capture events while a push message goes out, the clock ticks twice and a canary comes through.

    Returns them, and the id of the message's event.
    """
    captured: list[Event] = []
    began, first_tick, event_id = time.time(), 0.0, ""
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": captured.append})
        # It goes on after each event; a worker that sends events sends one every two seconds.
        for _ in receiver.itercapture(limit=None, timeout=30, wakeup=False):
            if not any(each["hostname"].startswith("clock@") for each in captured):
                continue
            if not event_id:
                # From now on a tick would send its events.
                first_tick = _seen(system, heartbeats.CLOCK)
                app.send_task("tasks.canary", args=("email", time.time()), queue="email", ignore_result=True)
                event_id = system.event(
                    **{"event_type": "user.signup", "payload": {"secret": "s3cret"}, "priority": "low"},
                    **{"channel": "push", "recipient": "flowers-token"},
                )
            ticked = _seen(system, heartbeats.CLOCK) > first_tick + 2
            canary = _seen(system, heartbeats.canary("email")) > began
            received = _ids(captured, "task-received", name="tasks.deliver.push")
            if ticked and canary and received & _ids(captured, "task-succeeded"):
                break
            assert time.time() < began + 60, f"seen were {sorted({each['type'] for each in captured})}"
    return captured, event_id


def test_deliveries_are_shown_and_ticks_and_canaries_are_not(app: Celery, system: Running) -> None:
    captured, event_id = _capture(app, system)
    received = [each for each in captured if each["type"] == "task-received"]
    assert {each["name"] for each in received} & {"tasks.hand_over_due", "tasks.canary"} == set()
    silent = (_ids(captured, "task-started") | _ids(captured, "task-succeeded")) - _ids(captured, "task-received")
    assert len(silent) <= 1, "no more than what was under way when the events began"
    [row] = system.notifications(event_id)
    # What other tests left may come through other queues.
    [delivery] = [each for each in received if each["args"].startswith("(push.low: ")]
    assert (delivery["name"], delivery["kwargs"]) == ("tasks.deliver.push", "{}")
    assert delivery["args"] == f"(push.low: notification {row['id']})"
    assert "flowers-token" not in str(captured)
    assert "s3cret" not in str(captured)
