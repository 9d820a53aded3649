"""Notifications that are moved, in every state."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.support.receivers import HttpReceiver
from tests.support.resending import FAR, put_user, resend
from tests.support.running import Running, ahead, made, reaches, wait_for

FARTHER = "2040-07-01T12:00:00Z"


def patch(system: Running, notification_id: str, body: Any) -> requests.Response:
    return system.http.patch(f"{system.url}/api/v1/notifications/{notification_id}", json=body, timeout=20)


def moved(system: Running, notification_id: str, **changes: str | None) -> dict[str, Any]:
    answer = patch(system, notification_id, changes)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["id"] == notification_id
    return found


# PATCH.


def test_what_is_scheduled_is_moved(system: Running) -> None:
    notification = made(system, recipient="patch-1", channel="push", send_at=FAR)
    found = moved(system, notification, send_at="2040-07-01T14:00:00.000001+02:00")
    assert (found["status"], found["reason"]) == ("scheduled", None)
    assert found["send_at"] == found["due_at"] == "2040-07-01T12:00:00.000001Z"
    assert moved(system, notification, send_at=FAR, expires_at=FARTHER)["expires_at"] == FARTHER
    found = moved(system, notification, expires_at=None)
    assert (found["expires_at"], found["due_at"]) == (None, FAR)


@pytest.mark.parametrize("to", ["past", "null", "soon"])
def test_what_is_moved_to_now_goes(system: Running, http: HttpReceiver, to: str) -> None:
    path = f"/patch-{to}"
    notification = made(system, recipient=http.url(path), channel="webhook", send_at=FAR)
    send_at = {"past": "2020-01-01T00:00:00Z", "null": None, "soon": ahead(seconds=0.5)}[to]
    moved(system, notification, send_at=send_at)
    reaches(system, notification, "delivered")
    assert http.times(path) == {notification: 1}


@pytest.mark.parametrize(
    ("target", "due"),
    [("2040-04-02T09:00:00+02:00", "2040-03-24T08:00:00Z"), ("2040-03-20T09:00:00+01:00", "2040-03-11T08:00:00Z")],
)
def test_a_reminder_keeps_its_lead_time_on_its_wall_clock(system: Running, target: str, due: str) -> None:
    reminder = {"target_date": FAR, "lead_time": "P9D", "timezone": "Europe/Berlin"}
    notification = made(system, recipient="patch-2", channel="push", **reminder)
    assert moved(system, notification, target_date=target)["due_at"] == due


def test_a_reminder_whose_moment_is_over_by_the_move_goes_soon(system: Running, http: HttpReceiver) -> None:
    reminder = {"target_date": FAR, "lead_time": "P9D"}
    notification = made(system, recipient=http.url("/patch-near"), channel="webhook", **reminder)
    moved(system, notification, target_date=ahead(days=2))
    reaches(system, notification, "delivered")
    assert http.times("/patch-near") == {notification: 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"target_date": "2026-01-01T00:00:00Z"},
        {"expires_at": "2040-05-20T00:00:00Z"},
        {"expires_at": "2040-05-25T12:00:00Z"},
        {"expires_at": "2026-01-01T00:00:00Z"},
        {"target_date": "2040-09-01T00:00:00Z", "expires_at": FAR},
        {"send_at": FARTHER},
    ],
)
def test_what_could_only_go_past_its_deadline_is_expired(system: Running, changes: dict[str, str]) -> None:
    reminder = {"target_date": FAR, "lead_time": "P7D"}
    notification = made(system, recipient="patch-3", channel="push", **reminder)
    found = moved(system, notification, **changes)
    assert (found["status"], found["due_at"], found["attempts"]) == ("expired", None, 0)


#: Together they leave no minute of the day.
ALL_DAY = {
    "quiet_hours": [
        {"channels": ["push"], "start": "12:01", "end": "12:00"},
        {"channels": ["push"], "start": "11:00", "end": "13:00"},
    ]
}


def test_what_was_put_off_waits_for_its_new_hour_and_for_no_rule(system: Running) -> None:
    put_user(system, "u-patch-quiet", ALL_DAY, push_tokens=["patch-quiet"])
    notification = made(system, user_id="u-patch-quiet", channel="push")
    wait_for(lambda: system.notification(notification)["reason"] == "quiet_hours")
    found = moved(system, notification, send_at=FAR)
    assert (found["status"], found["reason"], found["due_at"]) == ("scheduled", None, FAR)
    assert "quiet" not in found["explanation"].lower()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"send_at": FAR, "target_date": FAR},
        {"target_date": FAR},
        {"target_date": None},
        {"send_at": "2040-06-01T12:00:00"},
        {"expires_at": 7},
        {"body": "another"},
        {"send_at": FAR, "status": "sent"},
        [],
    ],
    ids=str,
)
def test_a_move_that_makes_no_sense_changes_nothing(system: Running, body: Any) -> None:
    notification = made(system, recipient="patch-4", channel="push", send_at=FAR)
    before = system.notification(notification)
    assert patch(system, notification, body).status_code == 422
    assert system.notification(notification) == before


def test_a_reminder_needs_its_target(system: Running) -> None:
    notification = made(system, recipient="patch-5", channel="push", target_date=FAR, lead_time="P7D")
    answer = patch(system, notification, {"target_date": None})
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["target_date"])


def _sending(system: Running, http: HttpReceiver) -> tuple[str, Callable[[], None]]:
    release = http.hold("/changes-sending")
    notification = made(system, recipient=http.url("/changes-sending"), channel="webhook")
    reaches(system, notification, "sending")
    return notification, release


def test_only_what_is_scheduled_can_be_moved_and_only_what_waits_for_nothing_resent(
    system: Running, http: HttpReceiver
) -> None:
    sending, release = _sending(system, http)
    asked = {"sending": (patch(system, sending, {"send_at": FAR}), resend(system, sending))}
    release()
    http.answer("/changes-failed", 410)
    http.answer("/changes-retrying", (429, {"Retry-After": "600"}))
    ended = {
        "delivered": sending,
        "sent": made(system, recipient="changes-sent", channel="push"),
        "failed": made(system, recipient=http.url("/changes-failed"), channel="webhook"),
        "retrying": made(system, recipient=http.url("/changes-retrying"), channel="webhook"),
        "cancelled": made(system, recipient="changes-cancelled", channel="push", send_at=FAR),
        "expired": made(system, recipient="changes-expired", channel="push", expires_at=ahead(seconds=-1)),
        "skipped": made(system, user_id="u-changes-nobody", channel="push"),
    }
    system.post(f"/api/v1/notifications/{ended['cancelled']}/cancel")
    for status, notification in ended.items():
        before = reaches(system, notification, status)
        answer = patch(system, notification, {"send_at": FAR})
        assert answer.status_code == 409, answer.text
        assert status in answer.json()["detail"]
        assert system.notification(notification) == before
    scheduled = made(system, recipient="changes-scheduled", channel="push", send_at=FAR)
    assert resend(system, scheduled).status_code == 409
    assert [answer.status_code for answer in asked["sending"]] == [409, 409]
    assert "sending" in asked["sending"][1].json()["detail"]
    assert len(http.received("/changes-sending")) == 1


def test_what_is_queued_can_neither_be_moved_nor_resent(new_system: Callable[..., Running]) -> None:
    system = new_system()
    try:
        system.start(only=[system.api])
        notification = made(system, recipient="changes-queued", channel="push")
        assert patch(system, notification, {"send_at": FAR}).status_code == 409
        assert resend(system, notification).status_code == 409
        assert system.notification(notification)["status"] == "queued"
    finally:
        system.stop()


def test_what_is_unknown_is_not_found(system: Running) -> None:
    for unknown in (str(uuid4()), "x"):
        assert patch(system, unknown, {"send_at": FAR}).status_code == 404
        assert resend(system, unknown).status_code == 404
