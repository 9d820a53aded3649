"""Receipts over HTTP, as vendors send them, and the clock that applies those that came early."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
import pytest
import requests
from sqlalchemy import Engine

from notifier.providers.dsn import parse
from notifier.providers.vendors.vonage_receipts import callback_query
from notifier.vocabulary.ids import new_id
from tests.providers import receivers
from tests.providers.signed import (
    PATH,
    PUBLIC_URL,
    SENDGRID_KEY,
    SNS,
    TOKEN,
    TOPIC,
    certificate,
    sendgrid_callback,
    sns_callback,
    sns_message,
    twilio_signature,
)
from tests.support.receipt_rows import attempted, bounce, of, one, row, rows, sql, state, suppressed, taken
from tests.support.running import Running, made, reaches, wait_for

# Over HTTP.


@pytest.fixture(scope="module")
def receiving(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API whose providers are Twilio, SendGrid and SES; nobody sends."""
    with receivers.http(receivers.response(200, certificate())) as (amazon, _):
        yield from _receiving(new_system, amazon.port)


#: Which signs nothing: the address of each message's callback is its key.
VONAGE = "vonage://KEY:PASSWORD@default?from=Acme&receipts=on"


def _receiving(new_system: Callable[..., Running], amazon: int) -> Iterator[Running]:
    ses = f"ses://KEY:SECRET@127.0.0.1:{amazon}?tls=none&region=eu-central-1&topic={TOPIC}"
    sendgrid = f"sendgrid://key@default?webhook_key={quote(SENDGRID_KEY, safe='')}"
    system = new_system(
        NOTIFIER_AUTH="required",
        NOTIFIER_PUBLIC_URL=PUBLIC_URL + "/",
        NOTIFIER_SMS=f"twilio://AC1:{TOKEN}@default?from=+15550100, {VONAGE}",
        NOTIFIER_EMAIL=f"{sendgrid}, {ses}",
    )
    system.start(only=[system.api])
    yield system
    system.stop()


def twilio(system: Running, form: dict[str, str], query: str = "", **headers: str) -> requests.Response:
    url = f"{PATH}/twilio" + (f"?{query}" if query else "")
    signed = {"X-Twilio-Signature": twilio_signature(PUBLIC_URL + url, form), **headers}
    return system.http.post(system.url + url, data=form, headers=signed, timeout=20)


def sendgrid(system: Running, *events: dict[str, Any], body: bytes | None = None, **headers: str) -> requests.Response:
    callback = sendgrid_callback(orjson.dumps(events) if body is None else body)
    url = f"{system.url}{PATH}/sendgrid"
    return system.http.post(url, data=callback.body, headers={**callback.headers, **headers}, timeout=20)


def sms(engine: Engine) -> UUID:
    """A notification that Twilio has taken over."""
    row_id = row(engine, "sent")
    sql(engine, "UPDATE notifications SET channel = 'sms', recipient = '+4915112340001' WHERE id = :id", id=row_id)
    attempted(engine, [row_id], provider="twilio")
    return row_id


def test_twilio_over_http(receiving: Running) -> None:
    engine = receiving.engine
    arrives, fails = sms(engine), sms(engine)
    done = twilio(receiving, {"MessageStatus": "delivered"}, f"notification={arrives}")
    assert (done.status_code, done.headers["content-type"]) == (200, "text/xml")
    assert done.text.endswith("<Response/>")
    form = {"MessageStatus": "undelivered", "ErrorCode": "30005", "To": "+4915112340001"}
    assert twilio(receiving, form, f"notification={fails}").ok
    assert (state(engine, arrives), state(engine, fails)) == (("delivered", None), ("failed", "bounced"))
    assert ("sms", "+4915112340001", "hard_bounce", None) in suppressed(engine)
    assert twilio(receiving, {"From": "+4915112340002", "Body": "Stop"}).ok
    assert ("sms", "+4915112340002", "stop", None) in suppressed(engine)
    assert twilio(receiving, {"From": "+4915112340002", "Body": "Start"}).ok
    assert "+4915112340002" not in {each[1] for each in suppressed(engine)}


def test_a_bounce_for_now_over_http(receiving: Running) -> None:
    engine = receiving.engine
    row_id = sms(engine)
    form = {"MessageStatus": "undelivered", "ErrorCode": "30022", "To": "+4915112340001"}
    assert twilio(receiving, form, f"notification={row_id}").ok
    found = one(engine, "SELECT * FROM notifications WHERE id = :id", id=row_id)
    assert (found.status, found.tries, found.queue) == ("retrying", 1, "sms.retry")
    assert sendgrid(receiving, {"event": "delivered", "notification_id": str(row_id)}).ok
    assert state(engine, row_id) == ("retrying", None)


def test_sendgrid_over_http(receiving: Running) -> None:
    engine = receiving.engine
    ids = rows(engine, "sent", 1500)
    attempted(engine, ids, provider="sendgrid")
    events = [
        {
            "event": "bounce" if number == 7 else "delivered",
            "type": "bounce",
            "status": "5.1.1",
            "email": f"s{number}@example.com",
            "timestamp": int(datetime.now(UTC).timestamp()),
            "notification_id": str(row_id),
            "sg_event_id": "x" * 64,
            "response": "250 " + "y" * 64,
        }
        for number, row_id in enumerate(ids)
    ]
    answer = sendgrid(receiving, *events)
    assert (answer.status_code, answer.content) == (204, b"")
    counts = sql(
        engine, "SELECT status, count(*) FROM notifications WHERE id = ANY(:ids) GROUP BY 1 ORDER BY 1", ids=ids
    )
    assert [tuple(each) for each in counts] == [("delivered", 1499), ("failed", 1)]
    assert ("email", "s7@example.com", "hard_bounce", None) in suppressed(engine)


@pytest.mark.parametrize("method", ["get", "post"])
def test_vonage_over_http(receiving: Running, method: str) -> None:
    engine = receiving.engine
    row_id, other = sms(engine), sms(engine)
    attempted(engine, [row_id], provider="vonage")
    for each, status, then in ((row_id, 200, "delivered"), (other, 200, "sent")):
        url = f"{receiving.url}{PATH}/vonage?{callback_query(parse(VONAGE), each)}"
        given = {"status": "delivered", "err-code": "0", "client-ref": str(each)}
        where = {"params": given} if method == "get" else {"json": given}
        assert receiving.http.request(method, url[:-1], **where, timeout=20).status_code == 401
        assert receiving.http.request(method, url, **where, timeout=20).status_code == status
        assert state(engine, each)[0] == then


def test_ses_over_http(receiving: Running) -> None:
    engine = receiving.engine
    ids = arrives, bounces, forged = rows(engine, "sent", 3)
    attempted(engine, ids, provider="ses")

    def said(row_id: UUID, name: str, detail: dict[str, Any], **more: str) -> requests.Response:
        event = {"eventType": name, "mail": {"tags": {"notification_id": [str(row_id)]}}, name.lower(): detail}
        callback = sns_callback(sns_message(orjson.dumps(event).decode(), **more))
        url = f"{receiving.url}{PATH}/ses"
        return receiving.http.post(url, data=callback.body, headers=callback.headers, timeout=20)

    assert said(arrives, "Delivery", {}).status_code == 204
    address = {"emailAddress": "ses@example.com"}
    gone = {"bounceType": "Permanent", "bounceSubType": "General", "bouncedRecipients": [address]}
    assert said(bounces, "Bounce", gone).status_code == 204
    assert said(forged, "Bounce", gone, TopicArn=f"{TOPIC}2").status_code == 401
    assert [state(engine, row_id)[0] for row_id in ids] == ["delivered", "failed", "sent"]
    assert ("email", "ses@example.com", "hard_bounce", None) in suppressed(engine)
    # Of what SendGrid sent it knows nothing.
    attempted(engine, [forged], provider="sendgrid")
    assert said(forged, "Delivery", {}).status_code == 204
    assert state(engine, forged) == ("sent", None)
    away = f"{SNS}/none.txt"
    assert said(forged, "Delivery", {}, SigningCertURL=away).status_code == 401


def test_what_is_wrong_changes_nothing(receiving: Running) -> None:
    engine = receiving.engine
    row_id = row(engine, "sent")
    attempted(engine, [row_id], provider="sendgrid")
    sent = {"event": "delivered", "notification_id": str(row_id)}
    arrived, query = {"MessageStatus": "delivered"}, f"notification={row_id}"
    answers = {
        401: [
            twilio(receiving, arrived, query, **{"X-Twilio-Signature": "forged"}),
            receiving.http.post(f"{receiving.url}{PATH}/twilio?{query}", data=arrived, timeout=9),
            sendgrid(receiving, sent, **{"X-Twilio-Email-Event-Webhook-Timestamp": "1"}),
            receiving.post(f"{PATH}/sendgrid", [sent]),
        ],
        400: [
            twilio(receiving, arrived, "notification=1"),
            receiving.http.post(f"{receiving.url}{PATH}/twilio?{query}", data=b"\xff", timeout=9),
            sendgrid(receiving, body=b"{}"),
            sendgrid(receiving, body=b""),
        ],
        404: [receiving.post(f"{PATH}/{name}", [sent]) for name in ("plivo", "outbox", "Twilio", "x y")],
        405: [receiving.get(f"{PATH}/twilio")],
        413: [receiving.http.post(f"{receiving.url}{PATH}/sendgrid", data=b" " * (1024**2 + 1), timeout=9)],
    }
    for status, each in answers.items():
        for answer in each:
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
    assert state(engine, row_id) == ("sent", None)
    assert {answer.json()["type"] for answer in answers[401]} == {"/problems/invalid-signature"}
    assert "WWW-Authenticate" in answers[401][0].headers
    assert TOKEN not in receiving.api.output()
    assert sendgrid(receiving, sent).ok
    assert state(engine, row_id) == ("delivered", None)


def test_it_is_described(receiving: Running) -> None:
    described = receiving.get("/openapi.json").json()["paths"][f"{PATH}/{{provider}}"]["post"]
    assert described["security"] == []
    assert {"200", "204", "400", "401", "404"} <= set(described["responses"])
    assert set(described["requestBody"]["content"]) == {
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    }


# The clock, and what it says of it.


def came(system: Running, notification_id: str, kind: str) -> None:
    """Put a receipt where it waits, and let the clock look at it."""
    system.sql(
        """
            INSERT INTO receipts (id, notification_id, provider, kind, error, happened_at, due_at, keep_until)
            VALUES (:id, :row, 'outbox', :kind, 'acme 5, nobody there', now(), now(), now() + interval '1 hour')
        """,
        id=new_id(),
        row=notification_id,
        kind=kind,
    )
    waits = "SELECT 1 FROM receipts WHERE notification_id = :id"
    wait_for(lambda: not system.sql(waits, id=notification_id), what="the clock")


def test_the_clock_applies_what_came_early(system: Running) -> None:
    event_id = system.event(channel="sms", recipient="+4915112349999")
    notification = system.finished(event_id)
    assert notification["status"] == "sent"
    assert "no receipt has confirmed it" in notification["explanation"]
    came(system, notification["id"], "bounced")
    came(system, notification["id"], "delivered")
    found = system.notification(notification["id"])
    assert (found["status"], found["reason"], found["due_at"]) == ("failed", "bounced", None)
    assert found["explanation"] == (
        "It failed for good and stands in the dead letters: the provider accepted it, and said later that it did not"
        " arrive (acme 5, nobody there)."
    )
    assert system.dead_letter(event_id)["reason"] == "bounced"


def test_a_bounce_for_now_is_sent_again(system: Running) -> None:
    sms = made(system, channel="sms", recipient="+4915112349997")
    reaches(system, sms, "sent")
    came(system, sms, "bounced_for_now")
    again = wait_for(lambda: next((each for each in [reaches(system, sms, "sent")] if each["attempts"] == 2), None))
    assert again["reason"] is None
    attempts = system.sql("SELECT outcome, error FROM attempts WHERE notification_id = :id ORDER BY number", id=sms)
    assert [(each.outcome, each.error) for each in attempts] == [
        ("accepted", "bounced: acme 5, nobody there"),
        ("accepted", None),
    ]


def test_a_bounce_brings_the_next_channel(system: Running) -> None:
    user = f"{system.url}/api/v1/users/bounces"
    assert system.http.put(user, json={"phone": "+4915112349998", "push_tokens": ["bounces"]}, timeout=20).ok
    sms = made(system, user_id="bounces", channels=["sms", "push"], strategy="first")
    assert reaches(system, sms, "sent")["reason"] is None
    came(system, sms, "bounced")
    push = wait_for(lambda: system.sql("SELECT id, channel FROM notifications WHERE follows = :id", id=sms))[0]
    assert push.channel == "push"
    assert reaches(system, str(push.id), "sent", "delivered")["attempts"] == 1


def test_a_notification_tells_its_receipts(system: Running) -> None:
    engine = system.engine
    row_id = row(engine, "sent")
    first = replace(of(row_id, ago=20), message_id="m-1")
    for _ in range(2):
        taken(engine, first)
    taken(engine, bounce(row_id))
    taken(engine, replace(of(row_id), provider="someone-else"))
    delivered, late = system.notification(str(row_id))["receipts"]
    assert (delivered["kind"], delivered["provider"], delivered["message_id"]) == ("delivered", "acme", "m-1")
    assert datetime.fromisoformat(delivered["happened_at"]) == first.happened_at.replace(
        microsecond=datetime.fromisoformat(delivered["happened_at"]).microsecond
    )
    assert delivered["taken_at"] > delivered["happened_at"]
    assert (late["kind"], late["error"]) == ("bounced", "acme 5, nobody there")
    assert (delivered["applied"], late["applied"]) == (True, False)
