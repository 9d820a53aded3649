"""Holds: an operator pauses a channel, a route or everything. Nothing is lost, and held rows say so."""

import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.support.commands import manage
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, reaches, wait_for


@pytest.fixture(scope="module")
def whole(new_system: Callable[..., Running]) -> Iterator[Running]:
    """A system of this module's own: a hold on it disturbs nobody else. One thread, so that an order can be seen."""
    system = new_system(NOTIFIER_WORKER_CONCURRENCY="1")
    try:
        system.start()
        yield system
    finally:
        system.stop()


@pytest.fixture
def own(whole: Running) -> Iterator[Running]:
    """The module's system; nothing is held after the test."""
    yield whole
    for each in whole.get("/api/v1/holds").json()["items"]:
        release(whole, each["target"])


def hold(system: Running, target: str) -> requests.Response:
    return system.http.put(f"{system.url}/api/v1/holds/{target}", timeout=20)


def release(system: Running, target: str) -> int:
    return system.http.delete(f"{system.url}/api/v1/holds/{target}", timeout=20).status_code


def targets(system: Running) -> set[str]:
    return {each["target"] for each in system.get("/api/v1/holds").json()["items"]}


def made(system: Running, channel: str = "push", recipient: str = "held", **fields: Any) -> str:
    body = {"channel": channel, "recipient": recipient, "body": "x", **fields}
    answer = system.post("/api/v1/notifications", body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["items"][0]["id"])


def is_held(system: Running, notification_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = system.notification(notification_id)
        return found if (found["status"], found["reason"]) == ("scheduled", "held") else None

    return wait_for(look, what="a notification that is held")


def test_a_hold_is_placed_once_listed_and_lifted_once(own: Running) -> None:
    placed = hold(own, "chat")
    assert placed.status_code == 201, placed.text
    assert placed.json()["target"] == "chat"
    again = hold(own, "chat")
    assert (again.status_code, again.json()) == (200, placed.json())
    assert own.get("/api/v1/holds").json() == {"items": [placed.json()], "next_cursor": None}
    assert release(own, "chat") == 204
    assert release(own, "chat") == 404
    assert targets(own) == set()


@pytest.mark.parametrize("target", ["fax", "no-such-route", "ALL", "Push", "%20"])
def test_an_unknown_target_is_refused(own: Running, target: str) -> None:
    assert hold(own, target).status_code == 422
    assert release(own, target) == 404
    assert targets(own) == set()


def test_a_channel_is_held_and_its_neighbours_go(own: Running) -> None:
    hold(own, "push")
    held = made(own)
    found = is_held(own, held)
    assert found["due_at"]
    assert found["attempts"] == 0
    assert "held" in found["explanation"]
    assert "push" in found["explanation"]
    assert reaches(own, made(own, "sms", "+4915112350001"), "sent")
    critical = made(own, critical=True)
    is_held(own, critical)
    release(own, "push")
    assert reaches(own, held, "sent")["reason"] is None
    reaches(own, critical, "sent")


def test_a_route_is_held_and_others_go(own: Running) -> None:
    for name in ("held-route", "free-route"):
        route = {"event_type": f"{name}.event", "to": {"recipient": "payload.token", "channel": "push"}}
        own.http.put(f"{own.url}/api/v1/routes/{name}", json=route, timeout=20).raise_for_status()
    assert hold(own, "held-route").status_code == 201
    events = [own.event(event_type=f"{name}.event", payload={"token": name}) for name in ("held-route", "free-route")]
    [held], [free] = (wait_for(lambda event=event: own.notifications(event)) for event in events)
    reaches(own, free["id"], "sent")
    assert "held-route" in is_held(own, held["id"])["explanation"]
    assert reaches(own, made(own), "sent")
    release(own, "held-route")
    reaches(own, held["id"], "sent")


def test_all_holds_everything_but_what_comes_in(own: Running, http: HttpReceiver) -> None:
    hold(own, "all")
    ids = [made(own), made(own, "sms", "+4915112350002"), made(own, "webhook", http.url("/held"))]
    event = own.event(recipient="slack://held", channel="chat")
    ids += [each["id"] for each in wait_for(lambda: own.notifications(event))]
    for each in ids:
        is_held(own, each)
    assert own.get(f"/api/v1/events/{event}").json()["status"] == "processed"
    assert http.received("/held") == []
    release(own, "all")
    for each in ids:
        reaches(own, each, "sent", "delivered")


def test_two_holds_over_one_must_both_be_lifted(own: Running) -> None:
    hold(own, "all")
    hold(own, "push")
    held, other = made(own), made(own, "sms", "+4915112350003")
    is_held(own, held)
    is_held(own, other)
    release(own, "all")
    reaches(own, other, "sent")
    assert is_held(own, held)
    release(own, "push")
    reaches(own, held, "sent")


def test_what_is_released_goes_out_in_the_order_in_which_it_was_made(own: Running) -> None:
    total = 1200
    hold(own, "push")
    event = {"event_type": "test.order", "recipient": "in-order", "channel": "push"}
    for _ in range(3):
        own.post("/api/v1/events/batch", {"events": [event] * (total // 3)}).raise_for_status()
    held = "SELECT count(*) AS n FROM notifications WHERE event_type = 'test.order' AND reason = 'held'"
    wait_for(lambda: own.sql(held)[0].n == total, 40)
    release(own, "push")
    wait_for(lambda: own.sql("SELECT count(*) AS n FROM outbox WHERE recipient = 'in-order'")[0].n == total, 40)
    rows = own.sql(
        "SELECT n.created_at FROM outbox o JOIN notifications n ON n.id = o.notification_id"
        " WHERE o.recipient = 'in-order' ORDER BY o.id"
    )
    assert [row.created_at for row in rows] == sorted(row.created_at for row in rows)


def test_what_expires_while_it_is_held_is_expired(own: Running) -> None:
    hold(own, "push")
    expires_at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    notification = made(own, expires_at=expires_at)
    other = made(own)
    assert is_held(own, notification)["due_at"] is not None
    assert reaches(own, notification, "expired")["attempts"] == 0
    assert is_held(own, other)


def test_an_expiry_that_is_given_to_a_held_one_counts_from_then_on(own: Running) -> None:
    hold(own, "push")
    spared, over = made(own), made(own)
    for each, distance in ((spared, timedelta(minutes=10)), (over, timedelta(seconds=1))):
        is_held(own, each)
        body = {"expires_at": (datetime.now(UTC) + distance).isoformat()}
        answer = own.http.patch(f"{own.url}/api/v1/notifications/{each}", json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        # The hold may be lifted at any moment: it is not late before it is.
        assert answer.json()["status"] == "scheduled"
    reaches(own, over, "expired")
    assert is_held(own, spared)
    release(own, "push")
    reaches(own, spared, "sent")


def test_what_is_held_can_be_cancelled(own: Running) -> None:
    hold(own, "push")
    notification = made(own)
    is_held(own, notification)
    assert own.post(f"/api/v1/notifications/{notification}/cancel").status_code == 200
    release(own, "push")
    reaches(own, made(own), "sent")
    assert own.notification(notification)["status"] == "cancelled"


def test_a_reminder_that_comes_due_under_a_hold_is_held(own: Running) -> None:
    hold(own, "push")
    due = datetime.now(UTC) + timedelta(seconds=1)
    notification = made(own, send_at=due.isoformat())
    assert own.notification(notification)["reason"] is None
    is_held(own, notification)
    release(own, "push")
    reaches(own, notification, "sent")


def _manage(system: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    return manage(*arguments, environment=system.environment)


def test_from_the_shell(own: Running) -> None:
    placed = _manage(own, "hold", "push")
    assert placed.returncode == 0, placed.stderr
    assert "Held: push." in placed.stdout
    assert targets(own) == {"push"}
    notification = made(own)
    is_held(own, notification)
    assert "held already" in _manage(own, "hold", "push").stdout
    looked = _manage(own, "hold")
    assert "push" in looked.stdout.replace("│", " ").split()
    assert targets(own) == {"push"}
    assert _manage(own, "hold", "sms", "--all").returncode == 2
    assert targets(own) == {"push"}
    assert "Held: all." in _manage(own, "hold", "--all").stdout
    assert targets(own) == {"push", "all"}
    listed = _manage(own, "hold", "--list")
    assert {"push", "all"} <= set(listed.stdout.replace("│", " ").split())
    assert "Still held: push." in _manage(own, "release").stdout
    assert _manage(own, "release", "push").returncode == 0
    reaches(own, notification, "sent")
    again = _manage(own, "release", "push")
    assert again.returncode != 0
    assert "push is not held" in again.stderr
    assert "Nothing is held." in _manage(own, "hold", "--list").stdout


def test_from_the_shell_an_unknown_target_is_refused_with_the_known_ones(own: Running) -> None:
    answer = _manage(own, "hold", "fax")
    assert answer.returncode != 0
    assert "webhook" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert targets(own) == set()


def test_a_system_may_be_held_from_its_start(start_system: Callable[..., Running]) -> None:
    system = start_system(NOTIFIER_HOLD="1")
    assert targets(system) == {"all"}
    notification = made(system)
    is_held(system, notification)
    assert release(system, "all") == 204
    reaches(system, notification, "sent")
    reaches(system, made(system), "sent")


def test_a_clock_that_is_killed_in_the_middle_of_a_release_loses_nothing(own: Running, http: HttpReceiver) -> None:
    total = 600
    hold(own, "webhook")
    event = {"event_type": "test.released", "recipient": http.url("/released"), "channel": "webhook"}
    answer = own.post("/api/v1/events/batch", {"events": [event] * total})
    assert answer.json()["accepted"] == total
    held = "SELECT count(*) AS n FROM notifications WHERE event_type = 'test.released' AND reason = 'held'"
    wait_for(lambda: own.sql(held)[0].n == total, 40)
    release(own, "webhook")
    for _ in range(3):
        own.clock.kill()
        wait_for(lambda: not own.clock.alive())
        own.clock.launch()
        seen = len(http.received("/released"))
        wait_for(lambda seen=seen: len(http.received("/released")) > min(seen, total - 1), 40)
    done = "SELECT count(*) AS n FROM notifications WHERE event_type = 'test.released' AND status = 'delivered'"
    wait_for(lambda: own.sql(done)[0].n == total, 40)
    assert len(http.times("/released")) == total
    assert set(http.times("/released").values()) == {1}
