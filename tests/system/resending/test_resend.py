"""Notifications that are sent again, and the rules that forbid it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.receivers import HttpReceiver
from tests.support.resending import FAR, dead, put_user, resend
from tests.support.running import Running, ahead, made, reaches, wait_for


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
