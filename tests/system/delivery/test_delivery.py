"""An event that is posted is delivered: over real wires, on every channel."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from notifier.vocabulary.ids import new_id
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, made_of, reaches, wait_for


def test_an_email_arrives(system: Running, smtp: SmtpReceiver) -> None:
    event_id = system.event(recipient="arrives@example.com", channel="email", payload={"name": "Ada"})
    notification = system.finished(event_id)
    [mail] = smtp.mails_to("arrives@example.com")
    assert mail["Message-ID"] == f"<{notification['id']}@localhost>"
    assert mail["Subject"] == "test.event"
    assert "name: Ada" in mail.get_content()
    assert notification["status"] == "sent"
    assert notification["due_at"] is None
    assert notification["attempts"] == 1
    [attempt] = notification["attempt_log"]
    assert attempt["number"] == 1
    assert attempt["provider"] == "smtp"
    assert attempt["outcome"] == "accepted"
    assert attempt["duration_ms"] > 0
    assert attempt["started_at"].endswith("Z")
    assert (attempt["request_headers"], attempt["response_headers"], attempt["timing"]) == (None, None, None)


def test_a_webhook_arrives_signed_and_as_it_was_sent(system: Running, http: HttpReceiver) -> None:
    payload = '{"z": 1.10, "a": {"big": 18446744073709551615, "e": 1e3}, "text": "h\\u00e9 ☃"}'
    body = (
        f'{{"event_type": "order.paid", "channel": "webhook", "recipient": "{http.url("/as-sent")}",'
        f' "occurred_at": "2026-11-21T10:00:00+01:00", "payload": {payload}}}'
    )
    http.answer("/as-sent", (204, {"X-Request-Id": "r-1", "Set-Cookie": "session=hunter2"}))
    answer = system.http.post(
        f"{system.url}/api/v1/events", data=body.encode(), headers={"content-type": "application/json"}, timeout=10
    )
    assert answer.status_code == 202, answer.text
    notification = system.finished(answer.json()["id"])
    [received] = http.received("/as-sent")
    assert notification["status"] == "delivered"
    assert notification["delivered_at"]
    [attempt] = notification["attempt_log"]
    assert attempt["status_code"] == 204
    assert attempt["request_headers"] == {
        "content-type": "application/json",
        "user-agent": received.headers["user-agent"],
        "webhook-id": notification["id"],
        "webhook-timestamp": received.headers["webhook-timestamp"],
        "webhook-signature": "v1,***",
    }
    assert (attempt["response_headers"]["x-request-id"], attempt["response_headers"]["set-cookie"]) == ("r-1", "***")
    assert 0 <= attempt["timing"]["first_byte_ms"] <= attempt["timing"]["total_ms"]
    assert attempt["timing"]["tls_ms"] is None
    assert system.get(f"/api/v1/notifications/{notification['id']}/attempts").json()["items"] == [attempt]
    assert received.id == notification["id"]
    assert received.headers["content-type"] == "application/json"
    assert f'"data":{payload}'.encode() in received.body
    assert received.json["type"] == "order.paid"
    assert received.json["timestamp"] == "2026-11-21T09:00:00Z"
    assert received.json["id"] == answer.json()["id"]
    Webhook(system.environment["NOTIFIER_WEBHOOK_SECRET"]).verify(received.body, received.headers)


def test_an_answer_that_repeats_credentials_is_kept_without_them(system: Running, http: HttpReceiver) -> None:
    direct = "/repeats-direct?token=s3crettok&page=2"
    basic = base64.b64encode(b"ada:s3cretpw").decode()
    http.echo(direct, 410)
    url = http.url(direct).replace("http://", "http://ada:s3cretpw@")
    found = system.finished(system.event(recipient=url, channel="webhook"))
    [received] = http.received(direct)
    assert received.headers["authorization"] == f"Basic {basic}"
    excerpt = found["attempt_log"][0]["response_excerpt"]
    assert excerpt.startswith("POST /repeats-direct?token=***&page=2 HTTP/1.1")
    assert "authorization: Basic ***" in excerpt.replace("Authorization", "authorization")
    assert found["recipient"] == http.url(direct).replace("http://", "http://***@").replace("s3crettok", "***")

    http.echo("/repeats-own", 422)
    subscription = {
        "url": http.url("/repeats-own").replace("http://", "http://ada:s3cretpw@"),
        "event_types": ["repeats.it"],
    }
    subscription |= {"headers": {"X-Key": "s3cretkey", "Accept": "text/plain"}, "permanent_statuses": [422]}
    made = system.post("/api/v1/subscriptions", subscription)
    assert made.status_code == 201, made.text
    own = reaches(system, made_of(system, "repeats.it", {})[0]["id"], "failed")
    [received] = http.received("/repeats-own")
    assert received.headers["x-key"] == "s3cretkey"
    assert "Key: ***" in own["attempt_log"][0]["response_excerpt"].replace("key: ***", "Key: ***")
    assert "text/plain" in own["attempt_log"][0]["response_excerpt"]
    revealed = system.get(f"/api/v1/notifications/{found['id']}?reveal=1").json()
    assert revealed["recipient"] == url
    said = [system.get(f"/api/v1/notifications/{each['id']}").text for each in (found, own)]
    said += [str(system.dead_letter(each["event_id"])) for each in (found, own)]
    said += [made.text, str(revealed["attempt_log"])]
    for each in said:
        for secret in ("s3cret", basic):
            assert secret not in each
    kept = system.sql("SELECT CAST(row_to_json(a) AS text) FROM attempts a WHERE response_excerpt LIKE '%/repeats-%'")
    assert len(kept) == 2
    assert "s3cret" not in str(kept)


def content_of(system: Running, notification_id: str) -> tuple[int, dict[str, Any]]:
    answer = system.get(f"/api/v1/notifications/{notification_id}/content")
    return answer.status_code, answer.json()


def test_what_was_sent_can_be_read(system: Running, smtp: SmtpReceiver, http: HttpReceiver) -> None:
    given = {"channel": "email", "recipient": "content@example.com", "subject": "Hi", "body": "As given"}
    given |= {"from": "Shop <shop@example.com>", "attachments": [{"name": "a.txt", "content": "aGVsbG8="}]}
    [made] = system.post("/api/v1/notifications", given).json()["items"]
    reaches(system, made["id"], "sent")
    status, found = content_of(system, made["id"])
    assert status == 200, found
    assert (found["subject"], found["text"], found["html"]) == ("Hi", "As given", None)
    assert (found["from"], found["attempts"], found["rendered_now"]) == ("Shop <shop@example.com>", 1, False)
    assert [(each["name"], each["bytes"]) for each in found["attachments"]] == [("a.txt", 5)]
    http.answer("/content", 204)
    hook = system.finished(system.event(recipient=http.url("/content"), channel="webhook", payload={"n": 1}))
    [received] = http.received("/content")
    assert content_of(system, hook["id"])[1]["text"].encode() == received.body


def test_what_a_template_said_is_in_the_version_that_was_sent(system: Running, smtp: SmtpReceiver) -> None:
    template = f"{system.url}/api/v1/templates/content"
    said = {"channel": "email", "subject": "{{ n }}", "html": "<p>{{ n }} {{ unsubscribe_url }}</p>"}
    assert system.http.put(template, json=said, timeout=20).ok
    sent = system.finished(
        system.event(recipient="version@example.com", channel="email", template="content", payload={"n": "one"})
    )
    assert system.http.put(template, json={**said, "subject": "changed", "html": "changed"}, timeout=20).ok
    status, found = content_of(system, sent["id"])
    assert status == 200, found
    assert (found["subject"], found["template"]["version"], found["rendered_now"]) == ("one", 1, True)
    # A reader gets no key to somebody's preferences.
    assert found["html"].startswith("<p>one http")
    assert found["html"].endswith("/u/***</p>")


def test_what_an_erased_person_was_sent_is_gone(system: Running, smtp: SmtpReceiver) -> None:
    user = {"email": "content-gone@example.com"}
    assert system.http.put(f"{system.url}/api/v1/users/u_content", json=user, timeout=20).ok
    body = {"user_id": "u_content", "channel": "email", "body": "Dear you"}
    [made] = system.post("/api/v1/notifications", body).json()["items"]
    reaches(system, made["id"], "sent")
    assert content_of(system, made["id"])[1]["text"] == "Dear you"
    assert system.http.delete(f"{system.url}/api/v1/users/u_content", timeout=20).ok
    status, found = content_of(system, made["id"])
    assert (status, "erased" in found["detail"]) == (404, True)
    assert "Dear" not in str(found)


@pytest.mark.parametrize(
    ("channel", "recipient"), [("sms", "+4915112345678"), ("push", "token-1"), ("chat", "slack://T/B/C")]
)
def test_channels_without_a_provider_go_to_the_outbox(system: Running, channel: str, recipient: str) -> None:
    event_id = system.event(recipient=recipient, channel=channel, payload={"n": 1})
    notification = system.finished(event_id)
    assert notification["status"] == "sent"
    assert notification["attempt_log"][0]["provider"] == "outbox"
    [row] = system.sql("SELECT * FROM outbox WHERE notification_id = :id", id=notification["id"])
    assert (row.channel, system.seals.opened(row.recipient), row.text) == (channel, recipient, "test.event\n\nn: 1")


def test_a_notification_without_an_event(system: Running, smtp: SmtpReceiver) -> None:
    answer = system.post(
        "/api/v1/notifications",
        {"recipient": "direct@example.com", "channel": "email", "subject": "Hello", "body": "Just this."},
    )
    assert answer.status_code == 202, answer.text
    [made] = answer.json()["items"]
    assert made["event_id"] is None
    wait_for(lambda: system.notification(made["id"])["status"] == "sent")
    [mail] = smtp.mails_to("direct@example.com")
    assert mail["Subject"] == "Hello"
    assert mail.get_content().strip() == "Just this."


def test_a_direct_webhook_has_the_notifications_id(system: Running, http: HttpReceiver) -> None:
    body = {"recipient": http.url("/direct"), "channel": "webhook", "body": "hi"}
    [made] = system.post("/api/v1/notifications", body).json()["items"]
    wait_for(lambda: system.notification(made["id"])["status"] == "delivered")
    [received] = http.received("/direct")
    assert received.json["id"] == made["id"]
    assert received.json["data"] == {"subject": None, "body": "hi"}


def test_an_event_that_matches_nobody_is_kept(system: Running) -> None:
    event_id = system.event(payload={"nobody": "listens"})
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
    event = system.get(f"/api/v1/events/{event_id}").json()
    assert event["notifications"] == []
    assert event["payload"] == {"nobody": "listens"}


@pytest.mark.parametrize("channel", ["email", None])
def test_an_unknown_user_is_skipped_and_says_why(system: Running, channel: str | None) -> None:
    event_id = system.event(user_id="u_unknown", **({"channel": channel} if channel else {}))
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
    [notification] = system.notifications(event_id)
    assert (notification["status"], notification["reason"]) == ("skipped", "no_address")
    assert notification["user_id"] == "u_unknown"
    assert notification["channel"] == channel
    assert notification["due_at"] is None


def test_send_at_waits_for_its_hour(system: Running, http: HttpReceiver) -> None:
    due = datetime.now(UTC) + timedelta(seconds=2.5)
    event_id = system.event(recipient=http.url("/later"), channel="webhook", send_at=due.isoformat())
    [notification] = system.notifications(event_id)
    assert notification["status"] == "scheduled"
    assert abs(datetime.fromisoformat(notification["due_at"]) - due) < timedelta(milliseconds=1)
    assert system.finished(event_id)["status"] == "delivered"
    arrived = datetime.now(UTC) - timedelta(seconds=time.monotonic() - http.received("/later")[0].at)
    assert arrived >= due


def test_what_has_expired_is_not_sent(system: Running, http: HttpReceiver) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    event_id = system.event(recipient=http.url("/expired"), channel="webhook", expires_at=past)
    notification = system.finished(event_id)
    assert (notification["status"], notification["attempts"]) == ("expired", 0)
    assert http.received("/expired") == []


def test_a_replay_makes_new_notifications(system: Running, http: HttpReceiver) -> None:
    event_id = system.event(recipient=http.url("/replayed"), channel="webhook", payload={"n": 1})
    first = system.finished(event_id)
    answer = system.post(f"/api/v1/events/{event_id}/replay")
    assert answer.status_code == 202, answer.text
    notifications = wait_for(
        lambda: [n for n in system.notifications(event_id) if n["status"] == "delivered" and n["id"] != first["id"]]
    )
    received = http.received("/replayed")
    assert [each.id for each in received] == [first["id"], notifications[0]["id"]]
    assert received[0].body == received[1].body


def test_connections_to_the_mail_server_are_reused(system: Running, smtp: SmtpReceiver) -> None:
    before = smtp.connections
    for number in range(30):
        system.event(recipient=f"many-{number}@example.com", channel="email")
    wait_for(lambda: all(smtp.mails_to(f"many-{number}@example.com") for number in range(30)))
    assert smtp.connections - before < 30


def _queue_by_hand(system: Running, recipient: str, contents: list[str | None]) -> list[UUID]:
    """Notifications as no request would make them: with this content, or of an event that does not exist."""
    ids = [new_id() for _ in contents]
    system.sql(
        """
        INSERT INTO notifications (id, event_id, source, recipient, channel, critical, priority, content, queue,
            status, due_at, created_at)
        SELECT id, CASE WHEN content IS NULL THEN gen_random_uuid() END, 'test', :recipient, 'email', false, 'normal',
            CAST(content AS json), 'email', 'queued', now(), now()
        FROM unnest(CAST(:ids AS uuid[]), CAST(:contents AS text[])) AS made(id, content)
        """,
        ids=ids,
        contents=contents,
        recipient=recipient,
    )
    return ids


@pytest.mark.parametrize(("broken", "error"), [("[]", "render: "), (None, "content: its event is gone")])
def test_a_row_that_breaks_the_code_dies_alone(
    system: Running, smtp: SmtpReceiver, broken: str | None, error: str
) -> None:
    good = '{"body": "ok"}'
    recipient = f"neighbour-{len(broken or '')}@example.com"
    _, dead_id, _ = _queue_by_hand(system, recipient, [good, broken, good])
    wait_for(lambda: len(smtp.mails_to(recipient)) == 2)
    dead = wait_for(lambda: _if_failed(system, dead_id))
    assert (dead["reason"], dead["attempts"]) == ("permanent_error", 0)
    letters = system.get("/api/v1/dead-letters", params={"reason": "permanent_error"}).json()["items"]
    [letter] = [letter for letter in letters if letter["notification_id"] == str(dead_id)]
    assert letter["error"].startswith(error)


def _if_failed(system: Running, notification_id: UUID) -> dict[str, object] | None:
    notification = system.notification(str(notification_id))
    return notification if notification["status"] == "failed" else None


def test_high_priority_is_for_critical_events(system: Running) -> None:
    event_id = system.event(recipient="+4915112345678", channel="sms", critical=True, priority="low")
    [notification] = system.notifications(event_id)
    assert (notification["priority"], notification["critical"]) == ("high", True)
    assert system.sql("SELECT queue FROM notifications WHERE id = :id", id=notification["id"])[0].queue == "sms.high"


def test_every_finished_row_has_no_due_at_and_postgres_holds_us_to_it(system: Running) -> None:
    event_id = system.event(recipient="+4915112345678", channel="sms")
    notification = system.finished(event_id)
    with pytest.raises(Exception, match="live_rows_are_due"):
        system.sql("UPDATE notifications SET due_at = now() WHERE id = :id", id=notification["id"])
    with pytest.raises(Exception, match="live_rows_are_due"):
        system.sql("UPDATE notifications SET status = 'queued' WHERE id = :id", id=notification["id"])


def test_payloads_come_out_as_they_went_in(system: Running) -> None:
    payload = '{"b":1.50,"a":[true,null,-0.0,1E+2],"n":9223372036854775807,"s":"\\u0041"}'
    answer = system.http.post(
        f"{system.url}/api/v1/events",
        data=f'{{"event_type":"x","payload":{payload}}}',
        headers={"content-type": "application/json"},
        timeout=10,
    )
    read = system.get(answer.headers["Location"])
    assert f'"payload":{payload}' in read.text
    assert json.loads(read.text)["payload"]["s"] == "A"
