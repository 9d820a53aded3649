"""What recipients read."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

from notifier.channels import Channel
from notifier.rendering import Content, render
from notifier.times import rfc3339

ID, EVENT = UUID(int=1), UUID(int=2)
AT = datetime(2026, 11, 21, 9, 0, 0, 123000, tzinfo=UTC)


def test_a_webhook_carries_the_payload_as_it_was_sent() -> None:
    data = '{"z": 1.10, "a": [1e2, 12345678901234567890], "é": "\\u00e9"}'
    body = render(ID, Channel.WEBHOOK, "https://x.test", Content(EVENT, "order.paid", data, AT)).text
    assert f'"data":{data}}}' in body
    parsed = json.loads(body)
    assert list(parsed) == ["type", "timestamp", "id", "data"]
    assert parsed["type"] == "order.paid"
    assert parsed["id"] == str(EVENT)
    assert parsed["timestamp"] == "2026-11-21T09:00:00.123000Z"


def test_a_webhook_without_an_event_carries_the_notifications_id() -> None:
    body = render(ID, Channel.WEBHOOK, "https://x.test", Content(None, None, '{"subject":null,"body":"hi"}', AT)).text
    assert json.loads(body) == {
        "type": "notification",
        "timestamp": "2026-11-21T09:00:00.123000Z",
        "id": str(ID),
        "data": {"subject": None, "body": "hi"},
    }


def test_the_built_in_template_shows_type_and_payload() -> None:
    message = render(ID, Channel.EMAIL, "a@b.test", Content(EVENT, "user.signup", '{"name": "Ada", "n": [1, 2]}', AT))
    assert message.subject == "user.signup"
    assert message.text == "user.signup\n\nname: Ada\nn: [1,2]"
    assert render(ID, Channel.SMS, "+4915112345678", Content(EVENT, "ping", "{}", AT)).text == "ping"


def test_a_direct_message_is_its_subject_and_body() -> None:
    message = render(ID, Channel.EMAIL, "a@b.test", Content(None, None, '{"subject":"Hi","body":"there"}', AT, given=True))
    assert (message.id, message.subject, message.text) == (ID, "Hi", "there")


def test_times_come_out_in_utc() -> None:
    assert rfc3339(datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31T23:00:00Z"
