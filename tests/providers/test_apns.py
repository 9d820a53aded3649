"""Particulars of Apple's push service: HTTP/2 over TLS, and a provider token that is kept for a while."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from notifier.providers.protocol import Fault, Outcome
from tests.providers import receivers
from tests.providers.conformance import made, message_for, one, sent
from tests.providers.http2 import Answer, http2
from tests.providers.vendors import Vendor, apns, expo, fcm

VENDOR = apns.VENDOR
OVER_TLS = replace(VENDOR, dsn=lambda port: apns.dsn(f"127.0.0.1:{port}"))


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> receivers.Certificate:
    """The server's, which this process trusts."""
    made = receivers.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


def yes(request: receivers.Received) -> tuple[int, dict[str, str], bytes]:
    return 200, {"apns-id": request.headers["apns-id"].upper()}, b""


def test_messages_share_connections_of_http2(certificate: receivers.Certificate) -> None:
    with http2(yes, certificate) as server, closing(made(OVER_TLS, server.port)) as provider:
        messages = [message_for(VENDOR, server.port) for _ in range(100)]
        results = sent(provider, *messages)
    assert {result.outcome for result in results.values()} == {Outcome.ACCEPTED}
    assert all(results[each.id].message_id == str(each.id).upper() for each in messages)
    assert len(server.received) == 100
    assert server.listener
    assert server.listener.connections <= 4
    by_id = {str(message.id): message for message in messages}
    for request in server.received:
        assert request.line == f"POST /3/device/{VENDOR.recipient} HTTP/2"
        apns.check_content(request, by_id[request.headers["apns-id"]])
    assert len({apns.token_of(request) for request in server.received}) == 1


def test_a_refusal_over_http2(certificate: receivers.Certificate) -> None:
    def gone(_: receivers.Received) -> tuple[int, dict[str, str], bytes]:
        return 410, {}, b'{"reason": "Unregistered", "timestamp": 1795853026000}'

    with http2(gone, certificate) as server:
        result = one(OVER_TLS, server.port)
    assert (result.outcome, result.fault) == (Outcome.REJECTED, Fault.RECIPIENT)
    assert result.error == "http 410: apns Unregistered"


@pytest.mark.parametrize("before", [0, 1])
def test_an_answer_that_is_lost_is_asked_for_once(certificate: receivers.Certificate, before: int) -> None:
    answers = [yes] * before

    def answer(request: receivers.Received) -> tuple[int, dict[str, str], bytes] | None:
        return answers.pop()(request) if answers else None

    silent: Answer = answer
    with http2(silent, certificate) as server, closing(made(OVER_TLS, server.port)) as provider:
        for _ in range(before):
            sent(provider, message_for(VENDOR, server.port))
        lost = message_for(VENDOR, server.port)
        result = sent(provider, lost)[lost.id]
    assert (result.outcome, result.fault) == (Outcome.AMBIGUOUS, Fault.PROVIDER)
    assert [request.headers["apns-id"] for request in server.received].count(str(lost.id)) == 1


def test_a_refused_provider_token_is_made_anew() -> None:
    answers = [apns.refused(403, "ExpiredProviderToken"), VENDOR.success, VENDOR.success]
    with (
        receivers.http(lambda _: answers.pop(0)) as (server, received),
        closing(made(VENDOR, server.port)) as provider,
    ):
        outcomes = []
        for _ in range(3):
            message = message_for(VENDOR, server.port)
            outcomes.append(sent(provider, message)[message.id].outcome)
    assert outcomes == [Outcome.UNSENT, Outcome.ACCEPTED, Outcome.ACCEPTED]
    first, second, third = (apns.token_of(request) for request in received)
    assert first != second == third


def test_each_takes_its_own_tokens() -> None:
    addresses = [apns.VENDOR.recipient, expo.VENDOR.recipient, fcm.VENDOR.recipient]
    for at, vendor in enumerate((apns.VENDOR, expo.VENDOR, fcm.VENDOR)):
        with closing(made(vendor, 1)) as provider:
            assert [provider.takes(address) for address in addresses] == [at == each for each in range(3)]


@pytest.mark.parametrize(
    ("vendor", "dsn", "said"),
    [
        (VENDOR, "apns:", "names no key file"),
        (VENDOR, "apns://u:hush@default/x.p8", "user or password"),
        (VENDOR, "apns:///nowhere.p8?key=ABC123DEFG&team=DEF123GHIJ&topic=a.b", "not a private key"),
        (VENDOR, "apns:///x.p8?key=abc&team=DEF123GHIJ&topic=a.b", "has no key and team"),
        (VENDOR, "apns:///x.p8?key=ABC123DEFG&team=DEF123GHIJ", "has no topic"),
        (VENDOR, "apns:///x.p8?key=ABC123DEFG&team=DEF123GHIJ&topic=a.b&environment=test", "has an environment"),
        (VENDOR, "apns:///x.p8?a=b", "has an option 'a'"),
        (expo.VENDOR, "expo://u:hush@default", "has more than an access token"),
        (expo.VENDOR, "expo://default/hush", "has a path"),
    ],
)
def test_dsns_that_are_wrong(vendor: Vendor, dsn: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        made(replace(vendor, dsn=lambda _: dsn), 1)
    assert "hush" not in str(caught.value)
