"""What may be asked of a notification that stands: PATCH moves it, resend sends it once more."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, made, reaches, wait_for

FAR = "2040-06-01T12:00:00Z"
FARTHER = "2040-07-01T12:00:00Z"


def patch(system: Running, notification_id: str, body: Any) -> requests.Response:
    return system.http.patch(f"{system.url}/api/v1/notifications/{notification_id}", json=body, timeout=20)


def moved(system: Running, notification_id: str, **changes: str | None) -> dict[str, Any]:
    answer = patch(system, notification_id, changes)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["id"] == notification_id
    return found


def resend(system: Running, notification_id: str) -> requests.Response:
    return system.post(f"/api/v1/notifications/{notification_id}/resend")


def put_user(system: Running, user_id: str, preferences: Any = None, **fields: Any) -> None:
    path = f"{system.url}/api/v1/users/{user_id}"
    system.http.put(path, json=fields, timeout=20).raise_for_status()
    if preferences is not None:
        system.http.put(f"{path}/preferences", json=preferences, timeout=20).raise_for_status()


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


# In every state.


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


# Resend.


def test_a_delivered_one_is_sent_again_as_itself(system: Running, http: HttpReceiver) -> None:
    notification = made(system, recipient=http.url("/resend-1"), channel="webhook")
    reaches(system, notification, "delivered")
    answer = resend(system, notification)
    assert answer.status_code == 202, answer.text
    assert answer.json()["id"] == notification
    wait_for(lambda: system.notification(notification)["attempts"] == 2)
    found = reaches(system, notification, "delivered")
    assert [attempt["number"] for attempt in found["attempt_log"]] == [1, 2]
    first, second = http.received("/resend-1")
    assert (first.id, first.body) == (second.id, second.body) == (notification, first.body)


def test_a_dead_one_gets_its_full_number_of_attempts_once_more(system: Running, http: HttpReceiver) -> None:
    http.answer("/resend-dead", 500)
    event = system.event(recipient=http.url("/resend-dead"), channel="webhook")
    dead = system.finished(event)
    letter = system.dead_letter(event)
    assert resend(system, dead["id"]).status_code == 202
    assert system.get(f"/api/v1/dead-letters/{letter['id']}").json()["requeued_at"]
    assert system.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 409
    wait_for(lambda: system.notification(dead["id"])["attempts"] == 6)
    found = reaches(system, dead["id"], "failed")
    assert [attempt["number"] for attempt in found["attempt_log"]] == [1, 2, 3, 4, 5, 6]
    assert http.times("/resend-dead") == {dead["id"]: 6}
    newer = system.dead_letter(event)
    assert (newer["requeued_at"], newer["attempts"]) == (None, 6)
    assert newer["id"] != letter["id"]


def test_a_retrying_one_goes_now(system: Running, http: HttpReceiver) -> None:
    http.answer("/resend-now", (429, {"Retry-After": "3600"}), 204)
    notification = made(system, recipient=http.url("/resend-now"), channel="webhook")
    reaches(system, notification, "retrying")
    assert resend(system, notification).status_code == 202
    found = reaches(system, notification, "delivered")
    assert [attempt["outcome"] for attempt in found["attempt_log"]] == ["unsent", "accepted"]


def test_an_expired_one_is_sent_all_the_same(system: Running, http: HttpReceiver) -> None:
    fields = {"recipient": http.url("/resend-ended"), "channel": "webhook"}
    expired = made(system, **fields, expires_at=ahead(seconds=-1))
    late = made(system, **fields, target_date=ahead(seconds=-1), lead_time="PT1H")
    for notification in (expired, late):
        assert resend(system, notification).status_code == 202
        assert reaches(system, notification, "delivered")["reason"] is None
    assert http.times("/resend-ended") == {expired: 1, late: 1}


def row_of(system: Running, notification_id: str) -> dict[str, Any]:
    """All that Postgres has of a notification."""
    [[row]] = system.sql("SELECT row_to_json(n) FROM notifications n WHERE id = :id", id=notification_id)
    found: dict[str, Any] = row
    return found


def refused(system: Running, notification_id: str, reason: str) -> str:
    """Check that a resend is refused and changes nothing, and return the detail of the refusal."""
    before = row_of(system, notification_id)
    answer = resend(system, notification_id)
    assert (answer.status_code, answer.headers["Content-Type"]) == (409, "application/problem+json")
    assert answer.json()["reason"] == reason
    assert row_of(system, notification_id) == before
    assert system.notification(notification_id)["earlier_sends"] == []
    return str(answer.json()["detail"])


def test_a_cancelled_one_stays_cancelled(system: Running) -> None:
    notification = made(system, recipient="resend-cancelled", channel="push", send_at=FAR)
    system.post(f"/api/v1/notifications/{notification}/cancel")
    assert "cancelled" in refused(system, notification, "cancelled")


@pytest.mark.parametrize("times", ["expires_at", "target_date"])
def test_one_that_went_out_in_time_is_sent_again_after_it(system: Running, http: HttpReceiver, times: str) -> None:
    path, end = f"/resend-late-{times}", datetime.now(UTC) + timedelta(seconds=1.5)
    fields = {times: end.isoformat(), **({"lead_time": "PT1H"} if times == "target_date" else {})}
    notification = made(system, recipient=http.url(path), channel="webhook", **fields)
    reaches(system, notification, "delivered")
    wait_for(lambda: datetime.now(UTC) > end)
    assert resend(system, notification).status_code == 202
    wait_for(lambda: system.notification(notification)["status"] not in {"queued", "sending"})
    assert system.notification(notification)["status"] == "delivered"
    assert http.times(path) == {notification: 2}


def test_a_replaced_reminder_stays_replaced(system: Running, http: HttpReceiver) -> None:
    fields = {"recipient": http.url("/resend-replaced"), "channel": "webhook", "cancellation_key": "k-resend-replaced"}
    old, new = (made(system, **fields, target_date=FAR, lead_time="P7D") for _ in range(2))
    assert reaches(system, old, "cancelled")["reason"] == "replaced"
    assert "replaced" in refused(system, old, "cancelled")
    assert system.notification(new)["status"] == "scheduled"


def test_one_without_an_address_is_sent_once_there_is_one(system: Running) -> None:
    notification = made(system, user_id="u-resend-late", channel="push")
    reaches(system, notification, "skipped")
    assert resend(system, notification).status_code == 409
    put_user(system, "u-resend-late", push_tokens=["resend-late"])
    assert resend(system, notification).status_code == 202
    assert reaches(system, notification, "sent")["recipient"] == "resend-late"


# A rule that forbids it: a sent notification stays sent.


def suppress(system: Running, channel: str, address: str) -> None:
    answer = system.post("/api/v1/suppressions", {"channel": channel, "address": address, "reason": "complaint"})
    assert answer.status_code in {200, 201}, answer.text


@pytest.mark.parametrize("status", ["sent", "skipped"])
@pytest.mark.parametrize("rule", ["channel", "category", "suppression", "deleted"])
def test_a_rule_that_forbids_it_is_asked_first(system: Running, rule: str, status: str) -> None:
    user, token = f"u-rule-{rule}-{status}", f"rule-{rule}-{status}"
    put_user(system, user, {"channels": {"push": status == "sent"}}, push_tokens=[token])
    notification = made(system, user_id=user, channel="push", category="news")
    reaches(system, notification, status)
    if rule == "channel":
        put_user(system, user, {"channels": {"push": False}}, push_tokens=[token])
    elif rule == "category":
        put_user(system, user, {"categories": {"news": {"push": False}}}, push_tokens=[token])
    elif rule == "suppression":
        suppress(system, "push", token)
    else:
        assert system.http.delete(f"{system.url}/api/v1/users/{user}", timeout=20).status_code == 204
    reasons = {"channel": "opted_out", "category": "opted_out", "suppression": "suppressed", "deleted": "no_address"}
    said = refused(system, notification, reasons[rule])
    words = {"channel": "push off", "category": "category news", "suppression": "complaint", "deleted": "no address"}
    assert words[rule] in said


def test_critical_ones_pass_what_they_pass_at_the_gate(system: Running) -> None:
    put_user(system, "u-rule-critical", {"channels": {"push": False}}, push_tokens=["rule-critical"])
    notification = made(system, user_id="u-rule-critical", channel="push", critical=True)
    reaches(system, notification, "sent")
    assert resend(system, notification).status_code == 202
    wait_for(lambda: system.notification(notification)["attempts"] == 2)
    suppress(system, "push", "rule-critical")
    reaches(system, notification, "sent")
    before = row_of(system, notification)
    assert resend(system, notification).json()["reason"] == "suppressed"
    assert row_of(system, notification) == before


def test_a_double_is_not_sent_by_a_resend(system: Running) -> None:
    fields = {"recipient": "rule-double", "channel": "push", "dedup_key": "d-rule", "dedup_window": "PT1H"}
    reaches(system, made(system, **fields), "sent")
    second = made(system, **fields)
    assert reaches(system, second, "skipped")["reason"] == "duplicate"
    refused(system, second, "duplicate")


def test_what_only_defers_refuses_nothing(system: Running) -> None:
    halves = ({"start": "00:00", "end": "12:00"}, {"start": "12:00", "end": "00:00"})
    rules = {"quiet_hours": [{"channels": ["push"], **half} for half in halves]}
    put_user(system, "u-rule-quiet", push_tokens=["rule-quiet"])
    notification = made(system, user_id="u-rule-quiet", channel="push")
    reaches(system, notification, "sent")
    put_user(system, "u-rule-quiet", rules, push_tokens=["rule-quiet"])
    assert resend(system, notification).status_code == 202
    assert reaches(system, notification, "scheduled")["reason"] == "quiet_hours"


def test_a_rule_that_changes_after_the_answer_leaves_the_history(system: Running) -> None:
    put_user(system, "u-rule-race", push_tokens=["rule-race"])
    notification = made(system, user_id="u-rule-race", channel="push")
    sent = reaches(system, notification, "sent")
    # As if it waited in its queue, and somebody opted out meanwhile.
    assert system.http.put(f"{system.url}/api/v1/holds/push", timeout=20).ok
    try:
        assert resend(system, notification).status_code == 202
        assert reaches(system, notification, "scheduled")["reason"] == "held"
        put_user(system, "u-rule-race", {"channels": {"push": False}}, push_tokens=["rule-race"])
    finally:
        assert system.http.delete(f"{system.url}/api/v1/holds/push", timeout=20).ok
    skipped = reaches(system, notification, "skipped")
    assert (skipped["reason"], skipped["attempts"]) == ("opted_out", 1)
    [earlier] = skipped["earlier_sends"]
    assert earlier["asked_at"] > earlier["sent_at"] == sent["sent_at"]
    assert {name: earlier[name] for name in ("how", "asked_by", "status", "attempts", "reason")} == {
        "how": "resend",
        "asked_by": "anonymous",
        "status": "sent",
        "attempts": 1,
        "reason": None,
    }


# A requeue asks the same.


def dead(system: Running, http: HttpReceiver, user: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A dead webhook to a user, and its letter."""
    http.answer(f"/{user}", 410, 204)
    put_user(system, user, webhook_url=http.url(f"/{user}"))
    event = system.event(event_type="requeue.rule", user_id=user, channel="webhook", **fields)
    wait_for(lambda: system.notifications(event))
    return system.finished(event)["id"], system.dead_letter(event)


def test_a_requeue_that_a_rule_forbids_changes_nothing(system: Running, http: HttpReceiver) -> None:
    notification, letter = dead(system, http, "u-requeue-1")
    put_user(system, "u-requeue-1", {"channels": {"webhook": False}}, webhook_url=http.url("/u-requeue-1"))
    before = row_of(system, notification)
    answer = system.post(f"/api/v1/dead-letters/{letter['id']}/requeue")
    assert (answer.status_code, answer.json()["reason"]) == (409, "opted_out")
    assert "webhook off" in answer.json()["detail"]
    assert row_of(system, notification) == before
    assert system.get(f"/api/v1/dead-letters/{letter['id']}").json() == letter


def test_requeueing_many_leaves_alone_what_rules_forbid(system: Running, http: HttpReceiver) -> None:
    since = datetime.now(UTC).isoformat()
    goes, _ = dead(system, http, "u-requeue-goes")
    stays = {
        "opted_out": dead(system, http, "u-requeue-out"),
        "suppressed": dead(system, http, "u-requeue-suppressed"),
        "no_address": dead(system, http, "u-requeue-deleted"),
        "expired": dead(system, http, "u-requeue-expired", expires_at=ahead(seconds=2)),
    }
    put_user(system, "u-requeue-out", {"channels": {"webhook": False}}, webhook_url=http.url("/u-requeue-out"))
    suppress(system, "webhook", http.url("/u-requeue-suppressed"))
    assert system.http.delete(f"{system.url}/api/v1/users/u-requeue-deleted", timeout=20).status_code == 204
    [[expires_at]] = system.sql("SELECT expires_at FROM notifications WHERE id = :id", id=stays["expired"][0])
    wait_for(lambda: datetime.now(UTC) > expires_at)
    before = {notification: row_of(system, notification) for notification, _ in stays.values()}
    asked = {"event_type": "requeue.rule", "created_after": since}
    answer = system.post("/api/v1/dead-letters/requeue", asked)
    assert (answer.status_code, answer.json()) == (
        202,
        {"requeued": 1, "refused": 4, "refused_reasons": dict.fromkeys(stays, 1)},
    )
    earlier = reaches(system, goes, "delivered")["earlier_sends"]
    assert [(each["how"], each["status"], each["reason"]) for each in earlier] == [
        ("requeue", "failed", "permanent_error")
    ]
    assert {notification: row_of(system, notification) for notification in before} == before
    for _, letter in stays.values():
        assert system.get(f"/api/v1/dead-letters/{letter['id']}").json()["requeued_at"] is None
    assert system.post("/api/v1/dead-letters/requeue", asked).json()["requeued"] == 0


def test_each_resend_that_was_accepted_is_one_more(system: Running, http: HttpReceiver) -> None:
    notification = made(system, recipient=http.url("/resend-race"), channel="webhook")
    reaches(system, notification, "delivered")
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: resend(system, notification).status_code, range(16)))
    assert set(codes) <= {202, 409}
    accepted = codes.count(202)
    assert accepted
    wait_for(lambda: system.notification(notification)["attempts"] == 1 + accepted)
    reaches(system, notification, "delivered")
    assert http.times("/resend-race") == {notification: 1 + accepted}


# Finding it again.


def test_what_a_request_brought_is_found_by_all_that_is_known_of_it(system: Running) -> None:
    put_user(system, "u-found", push_tokens=["found"])
    keys = {"cancellation_key": "ck-found", "dedup_key": "dk-found", "idempotency_key": "ik-found"}
    asked = {"user_id": "u-found", "channel": "push", "category": "found", **keys, "dedup_window": "PT1H"}
    headers = {"X-Request-Id": "req-found"}
    event = system.post("/api/v1/events", {"event_type": "found.event", **asked}, headers=headers).json()["id"]
    wait_for(lambda: system.notifications(event))
    notification = system.finished(event)
    assert {name: notification[name] for name in ("event_type", "source", "request_id")} == {
        "event_type": "found.event",
        "source": "anonymous",
        "request_id": "req-found",
    }
    provider = system.notification(notification["id"])["attempt_log"][0]["provider"]
    system.sql("UPDATE attempts SET message_id = 'm+found' WHERE notification_id = :id", id=notification["id"])
    known = {"user_id": "u-found", "category": "found", "request_id": "req-found", **keys}
    for name, value in {**known, "event_id": event, "message_id": "m+found"}.items():
        found = system.get("/api/v1/notifications", params={name: value}).json()["items"]
        assert [each["id"] for each in found] == [notification["id"]], name
    for name, value in {"provider": provider, "source": "anonymous"}.items():
        found = system.get("/api/v1/notifications", params={name: value, "request_id": "req-found"}).json()["items"]
        assert [each["id"] for each in found] == [notification["id"]], name
    of_made = {"notification_id": notification["id"], "message_id": "m+found", "event_id": event}
    for name, value in {**known, **of_made, "provider": provider}.items():
        params = {name: value, "request_id": "req-found"}
        found = system.get("/api/v1/events", params=params).json()["items"]
        assert [each["id"] for each in found] == [event], name
    for name in (*of_made, "subscription_id"):
        found = system.get("/api/v1/events", params={name: str(uuid4())}).json()["items"]
        assert found == [], name
    for name in ("provider", "reason"):
        params = {name: "other", "request_id": "req-found"}
        assert system.get("/api/v1/events", params=params).json()["items"] == []
    for name in known:
        assert system.get("/api/v1/notifications", params={name: "other"}).json()["items"] == []


def test_dead_letters_are_found_and_requeued_by_all_that_is_known_of_them(system: Running, http: HttpReceiver) -> None:
    keys = {"cancellation_key": "ck-dead", "dedup_key": "dk-dead", "idempotency_key": "ik-dead"}
    notification, letter = dead(system, http, "u-found-dead", **keys, dedup_window="PT1H")
    attempt = system.notification(notification)["attempt_log"][0]
    system.sql("UPDATE attempts SET message_id = 'm+dead' WHERE notification_id = :id", id=notification)
    address = http.url("/u-found-dead")
    known = {
        **keys,
        "user_id": "u-found-dead",
        "request_id": system.notification(notification)["request_id"],
        "event_id": letter["event_id"],
        "message_id": "m+dead",
        "recipient": address,
    }
    for name, value in known.items():
        assert found_letters(system, **{name: value}) == [letter["id"]], name
        assert found_letters(system, **{name: str(uuid4())}) == [], name
    assert found_letters(system, user_id="u-found-dead", provider=attempt["provider"]) == [letter["id"]]
    assert found_letters(system, user_id="u-found-dead", provider="other") == []
    assert found_letters(system, user_id="u-found-dead", subscription_id=str(uuid4())) == []
    assert system.post("/api/v1/dead-letters/requeue", {"message_id": "other"}).json()["requeued"] == 0
    assert system.post("/api/v1/dead-letters/requeue", {"recipient": [address]}).status_code == 422
    asked = {"recipient": address, "message_id": "m+dead", "provider": attempt["provider"], **keys}
    assert system.post("/api/v1/dead-letters/requeue", asked).json()["requeued"] == 1
    reaches(system, notification, "delivered")


def test_an_event_that_broke_fan_out_is_found_by_its_address(system: Running) -> None:
    event = system.event(event_type="found.broken", recipient="+4915112340099", channel="sms", send_at=FAR)
    letter = str(uuid4())
    system.sql(
        "INSERT INTO dead_letters (id, event_id, claims, event_type, reason, attempts, created_at)"
        " VALUES (:id, :event, 0, 'found.broken', 'fan_out_failed', 0, now())",
        id=letter,
        event=event,
    )
    # As a browser sends a plus that nobody escaped, and as people write numbers.
    for form in ("+4915112340099", " 4915112340099", "+49 1511 2340099"):
        assert found_letters(system, recipient=form) == [letter], form
        found = system.get("/api/v1/events", params={"recipient": form}).json()["items"]
        assert [each["id"] for each in found] == [event], form
    assert found_letters(system, recipient="+4915112340099", provider="twilio") == []
    system.sql("DELETE FROM dead_letters WHERE id = :id", id=letter)


def found_letters(system: Running, **params: str) -> list[str]:
    answer = system.get("/api/v1/dead-letters", params=params)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["items"]]
