"""Particulars of the push services."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from notifier.providers.protocol import Fault, Message, Outcome, Provider
from notifier.vocabulary.ids import new_id
from tests.providers import receivers
from tests.providers.conformance import made, message_for, sent
from tests.providers.vendors import Vendor, fcm, web_push

_TOKEN = receivers.response(200, b'{"access_token": "ya29.test", "expires_in": 3599, "token_type": "Bearer"}')


@pytest.fixture(autouse=True)
def _proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")


def fcm_with(tokens: int, api: int, timeout: float = 5.0) -> closing[Provider]:
    """An FCM provider whose access tokens come from a server on this machine."""
    file = fcm.key_file(f"http://127.0.0.1:{tokens}/token")
    vendor = replace(fcm.VENDOR, dsn=lambda port: f"fcm://127.0.0.1:{port}{file}?tls=none")
    return closing(made(vendor, api, timeout))


def test_one_access_token_serves_many_messages() -> None:
    with receivers.http(_TOKEN) as (tokens, asked), receivers.http(fcm.VENDOR.success) as (api, received):  # noqa: SIM117  # its ports come first
        with fcm_with(tokens.port, api.port) as provider:
            for _ in range(2):
                results = sent(provider, *[message_for(fcm.VENDOR, api.port) for _ in range(50)])
                assert {result.outcome for result in results.values()} == {Outcome.ACCEPTED}
    assert len(received) == 100
    assert len(asked) == 1


def test_a_refused_access_token_is_not_used_again() -> None:
    answers = [fcm.error(401, "UNAUTHENTICATED"), fcm.VENDOR.success]
    with receivers.http(_TOKEN) as (tokens, asked), receivers.http(lambda _: answers.pop(0)) as (api, _):  # noqa: SIM117  # its ports come first
        with fcm_with(tokens.port, api.port) as provider:
            outcomes = []
            for _ in range(2):
                message = message_for(fcm.VENDOR, api.port)
                outcomes.append(sent(provider, message)[message.id].outcome)
    assert outcomes == [Outcome.UNSENT, Outcome.ACCEPTED]
    assert len(asked) == 2


def test_what_apns_refuses_costs_no_access_token() -> None:
    answer = fcm.error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")
    with receivers.http(_TOKEN) as (tokens, asked), receivers.http(answer) as (api, received):  # noqa: SIM117  # its ports come first
        with fcm_with(tokens.port, api.port) as provider:
            for _ in range(3):
                sent(provider, message_for(fcm.VENDOR, api.port))
    assert (len(asked), len(received)) == (1, 3)


def test_no_nul_comes_with_a_message_id() -> None:
    with receivers.http(receivers.response(200, b'{"name": "a\\u0000b"}')) as (api, _):
        message = message_for(fcm.VENDOR, api.port)
        with closing(made(fcm.VENDOR, api.port)) as provider:
            assert sent(provider, message)[message.id].message_id == "ab"


@pytest.mark.parametrize(
    "answer", [receivers.response(400, b'{"error": "invalid_grant"}'), receivers.response(200, b"<html>")]
)
def test_without_an_access_token_nothing_is_sent(answer: bytes) -> None:
    with receivers.http(answer) as (tokens, _), receivers.http(fcm.VENDOR.success) as (api, received):
        message = message_for(fcm.VENDOR, api.port)
        with fcm_with(tokens.port, api.port) as provider:
            result = sent(provider, message)[message.id]
    assert (result.outcome, result.fault) == (Outcome.UNSENT, Fault.PROVIDER)
    assert (result.error or "").startswith("token: ")
    assert not received


def test_a_token_server_that_hangs_holds_nobody_for_ever() -> None:
    with receivers.listening(receivers.until_closed) as tokens, receivers.http(fcm.VENDOR.success) as (api, received):
        message = message_for(fcm.VENDOR, api.port)
        with fcm_with(tokens.port, api.port, timeout=0.3) as provider:
            result = sent(provider, message)[message.id]
    assert (result.outcome, result.fault) == (Outcome.UNSENT, Fault.PROVIDER)
    assert not received


@pytest.mark.parametrize("text", ["ü" * 5000, '"' * 5000, "x" * 5000, "💌" * 5000, "\x01" * 5000])
def test_long_texts_are_cut(text: str) -> None:
    with receivers.http(fcm.VENDOR.success) as (api, received), closing(made(fcm.VENDOR, api.port)) as provider:
        message = Message(new_id(), fcm.VENDOR.recipient, subject=text, text=text)
        assert sent(provider, message)[message.id].outcome is Outcome.ACCEPTED
    document = orjson.loads(received[0].body)["message"]
    notification = document["notification"]
    assert len(orjson.dumps([notification, document["data"]])) < 4096
    assert notification["body"].endswith("…")
    assert text.startswith(notification["body"][:-1])
    with receivers.http(web_push.VENDOR.success) as (api, received):
        recipient = message_for(web_push.VENDOR, api.port).recipient
        with closing(made(web_push.VENDOR, api.port)) as provider:
            message = Message(new_id(), recipient, subject=text, text=text)
            assert sent(provider, message)[message.id].outcome is Outcome.ACCEPTED
    assert web_push.decrypted(received[0])["body"].endswith("…")


def test_each_takes_its_own_addresses() -> None:
    subscription = web_push.subscribed("https://push.example.com/abc")
    addresses = [subscription, web_push.encoded(subscription.encode()), fcm.VENDOR.recipient, "https://example.com"]
    with closing(made(fcm.VENDOR, 1)) as app, closing(made(web_push.VENDOR, 1)) as browser:
        assert [app.takes(address) for address in addresses] == [False, False, True, False]
        assert [browser.takes(address) for address in addresses] == [True, True, False, False]


def test_a_browser_gets_what_was_encrypted_for_it() -> None:
    with receivers.http(web_push.VENDOR.success) as (server, received):
        message = message_for(web_push.VENDOR, server.port)
        encoded = web_push.encoded(message.recipient.encode())
        again = Message(message.id, encoded, subject=message.subject, text=message.text)
        with closing(made(web_push.VENDOR, server.port)) as provider:
            for each in (message, again):
                assert sent(provider, each)[each.id].outcome is Outcome.ACCEPTED
    for request in received:
        web_push.check(request, message)
    assert received[0].body != received[1].body, "every message has a key of its own"
    assert received[0].headers["topic"] == received[1].headers["topic"], "a repeat replaces"
    assert b"shipped" not in received[0].body


@pytest.mark.parametrize("endpoint", ["http://198.51.100.1/push", "https://10.0.0.1/push", "http://push.example.com/"])
def test_endpoints_that_nobody_may_make_us_call(endpoint: str) -> None:
    message = Message(new_id(), web_push.subscribed(endpoint), subject=None, text="x")
    with closing(made(web_push.VENDOR, 1)) as provider:
        result = sent(provider, message)[message.id]
    assert result.outcome is Outcome.REJECTED
    assert (result.error or "").startswith("address: ")


@pytest.mark.parametrize(
    ("vendor", "dsn", "message"),
    [
        (fcm.VENDOR, "fcm:", "names no key file"),
        (fcm.VENDOR, "fcm:///nowhere.json", "cannot be read"),
        (fcm.VENDOR, "fcm://u:hush@default/x.json", "user or password"),
        (fcm.VENDOR, "fcm:///x.json?a=b", "has an option 'a'"),
        (web_push.VENDOR, "webpush:", "names no key file"),
        (web_push.VENDOR, "webpush:///nowhere.pem?subject=mailto:a@example.com", "not a private key"),
        (web_push.VENDOR, "webpush://{key}", "has no subject"),
        (web_push.VENDOR, "webpush://{key}?subject=you", "has no subject"),
    ],
)
def test_dsns_that_are_wrong(vendor: Vendor, dsn: str, message: str) -> None:
    dsn = dsn.replace("{key}", str(web_push.key_file()))
    with pytest.raises(ValueError, match=message) as caught:
        made(replace(vendor, dsn=lambda _: dsn), 1)
    assert "hush" not in str(caught.value)


def test_a_key_file_that_is_something_else(tmp_path: Path) -> None:
    for content in (b"[]", b"{}", b'{"project_id": "x"}'):
        (tmp_path / "key.json").write_bytes(content)
        with pytest.raises(ValueError, match="service account"):
            made(replace(fcm.VENDOR, dsn=lambda _: f"fcm://{tmp_path}/key.json"), 1)
