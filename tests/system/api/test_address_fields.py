"""Every field of a request that holds an address: no line break, control character or encoded word gets in."""

from typing import Any
from uuid import uuid4

import pytest

from tests.support.running import Running, made_of

WORD = "=?utf-8?q?a=0D=0ABcc=3Ax=40evil.example?="
#: Texts that take the place of X below.
UNFIT = ["\r\nBcc: x@evil.example", "\n", "\x00", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", WORD]
EMAIL, PHONE, TOKEN = "aXda@example.org", "+49X15112345678", "tokXen"
CHAT, URL = "slack://token/cX", "https://example.com/X"
SIMULATED = "deliveredX@simulator.notifier"
BODY = {"subject": "Hi", "body": "Hello."}
RECIPIENTS = [("email", EMAIL), ("email", SIMULATED), ("sms", PHONE), ("push", TOKEN), ("chat", CHAT), ("webhook", URL)]
#: (method, path, body, field).
PLACES: list[tuple[str, str, dict[str, Any], str]] = [
    *(
        (*place, {"channel": channel, "recipient": address, **more}, "recipient")
        for *place, more in (
            ("POST", "/api/v1/notifications", BODY),
            ("POST", "/send-notification", BODY),
            ("POST", "/api/v1/events", {"event_type": "a.b"}),
            ("POST", "/events", {"type": "a.b"}),
        )
        for channel, address in RECIPIENTS
    ),
    *(
        ("POST", "/api/v1/notifications", {"channel": "email", "recipient": "a@b.example", field: value} | BODY, field)
        for field in ("from", "reply_to")
        for value in (EMAIL, f"Ada <{EMAIL}>", "Ada <ada@example.orgX>")
    ),
    *(
        ("PUT", "/api/v1/templates/address-fields", {"channel": "email", "text": "Hi", field: value}, field)
        for field in ("from", "reply_to")
        for value in (EMAIL, f'"Ada" <{EMAIL}>')
    ),
    *(
        ("PUT", "/api/v1/users/address-fields", {field: value}, field)
        for field, value in (("email", EMAIL), ("phone", PHONE), ("webhook_url", URL), ("chat_url", CHAT))
    ),
    ("PUT", "/api/v1/users/address-fields", {"push_tokens": [TOKEN]}, "push_tokens"),
    *(
        ("POST", "/api/v1/suppressions", {"channel": channel, "address": address}, "address")
        for channel, address in RECIPIENTS
    ),
    ("POST", "/api/v1/subscriptions", {"url": URL, "event_types": ["*"]}, "url"),
]


def with_unfit(value: Any, unfit: str) -> Any:
    if isinstance(value, dict):
        return {name: with_unfit(each, unfit) for name, each in value.items()}
    if isinstance(value, list):
        return [with_unfit(each, unfit) for each in value]
    return value.replace("X", unfit) if isinstance(value, str) else value


@pytest.mark.parametrize("unfit", UNFIT, ids=ascii)
def test_no_place_lets_it_in(system: Running, unfit: str) -> None:
    for method, path, body, field in PLACES:
        answer = system.http.request(method, system.url + path, json=with_unfit(body, unfit), timeout=20)
        assert answer.status_code == 422, (path, body, answer.text)
        named = {name.partition(".")[0] for name in answer.json()["errors"]}
        assert named == {field}, (path, body, answer.text)


@pytest.mark.parametrize("unfit", UNFIT, ids=ascii)
def test_a_batch_refuses_the_item_alone(system: Running, unfit: str) -> None:
    events = [with_unfit({"event_type": "a.b", "channel": each, "recipient": to}, unfit) for each, to in RECIPIENTS]
    answer = system.post("/api/v1/events/batch", {"events": [*events, {"event_type": "a.b"}]}).json()
    assert (answer["accepted"], answer["rejected"]) == (1, len(events))
    assert all("recipient" in item["errors"] for item in answer["items"][:-1])


def test_a_route_finds_nobody_in_it(system: Running) -> None:
    event_type = f"address.{uuid4().hex}"
    route = {"event_type": event_type, "to": {"recipient": "payload.to", "channel": "email"}}
    assert system.http.put(f"{system.url}/api/v1/routes/{event_type}", json=route, timeout=20).ok
    [made] = made_of(system, event_type, {"to": with_unfit(EMAIL, WORD)})
    assert (made["status"], made["reason"]) == ("skipped", "invalid_address")
    assert system.http.delete(f"{system.url}/api/v1/routes/{event_type}", timeout=20).ok


def test_a_word_that_is_only_begun_may_stand_in_an_address(system: Running) -> None:
    for channel, address in (("email", "a=?b@example.org"), ("webhook", "https://example.com/?a=?b?c")):
        answer = system.post("/api/v1/events", {"event_type": "a.b", "channel": channel, "recipient": address})
        assert answer.status_code == 202, answer.text
