"""Every vendor over HTTP, against its own wire: the same promises, whoever it is."""

import itertools
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from notifier.providers.protocol import Fault, Outcome, Provider, Result
from tests.providers import receivers
from tests.providers.conformance import VENDORS, made, message_for, one, sent
from tests.providers.vendors import Case, Vendor

CASES = [(name, case.label, case) for name, vendor in VENDORS.items() for case in vendor.errors]
Make = Callable[..., Provider]


@pytest.fixture(params=sorted(VENDORS))
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return VENDORS[request.param]


def lost(talk: receivers.Talk, vendor: Vendor, timeout: float = 0.4) -> Result:
    """Return what becomes of a message to a server that misbehaves."""
    with receivers.listening(talk) as listener:
        return one(vendor, listener.port, timeout=timeout)


def test_success(vendor: Vendor) -> None:
    with receivers.http(vendor.success) as (server, received):
        message = message_for(vendor, server.port)
        with closing(made(vendor, server.port)) as provider:
            assert provider.takes(message.recipient)
            result = sent(provider, message)[message.id]
    assert (result.outcome, result.fault, result.error) == (Outcome.ACCEPTED, None, None)
    assert result.message_id == vendor.message_id
    [request] = received
    vendor.check(request, message)


@pytest.mark.parametrize(("name", "label", "case"), CASES, ids=[f"{name}-{label}" for name, label, _ in CASES])
def test_every_error_that_is_documented(name: str, label: str, case: Case) -> None:
    vendor = VENDORS[name]
    with receivers.http(case.answer) as (server, received):
        result = one(vendor, server.port)
    assert len(received) == 1, "an answer is never asked for twice"
    assert (result.outcome, result.fault) == (case.outcome, case.fault), result.error
    assert result.retry_after == case.retry_after
    assert result.error, label
    assert result.error.isprintable()
    assert vendor.recipient not in result.error


def test_throttling_with_and_without_a_wait(vendor: Vendor) -> None:
    for line, wait in (("retry-after: 7", 7.0), ("x-other: 1", None)):
        with receivers.http(receivers.response(429, b"{}", line)) as (server, _):
            result = one(vendor, server.port)
        assert (result.outcome, result.fault, result.retry_after) == (Outcome.UNSENT, Fault.THROTTLED, wait)


@pytest.mark.parametrize("status", [401, 403, 500, 502, 503, 302])
def test_statuses_that_are_the_providers_own_fault(vendor: Vendor, status: int) -> None:
    with receivers.http(receivers.response(status, b"")) as (server, _):
        result = one(vendor, server.port)
    assert (result.outcome, result.fault, result.status_code) == (Outcome.UNSENT, vendor.own_fault, status)


@pytest.mark.parametrize("body", [b"", b"<html>Sign in to the guest network</html>", b"[]", b'{"sid": ', b"\xff\x00"])
def test_a_yes_that_is_not_as_documented_proves_nothing(vendor: Vendor, body: bytes) -> None:
    with receivers.http(receivers.response(200, body, "content-type: text/html")) as (server, _):
        result = one(vendor, server.port)
    assert result.outcome is (Outcome.AMBIGUOUS if vendor.needs_body else Outcome.ACCEPTED)


def test_nobody_listens(vendor: Vendor) -> None:
    result = one(vendor, receivers.unused_port())
    assert (result.outcome, result.fault) == (Outcome.UNSENT, vendor.own_fault)


def test_a_connection_that_closes_before_the_request(vendor: Vendor) -> None:
    result = lost(lambda connection: None, vendor)
    assert result.fault is vendor.own_fault
    assert result.outcome in {Outcome.UNSENT, Outcome.AMBIGUOUS}


def reset(connection: socket.socket) -> None:
    """Take the request, and hang up on it."""
    receivers.read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_in_the_head(connection: socket.socket) -> None:
    receivers.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-")
    receivers.until_closed(connection)


def hang(connection: socket.socket) -> None:
    receivers.until_closed(connection)


def drip(connection: socket.socket) -> None:
    """One byte of the head at a time: each read is quick, the whole is not."""
    receivers.read_request(connection)
    for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\nx: y\r\n"):
        connection.sendall(bytes([byte]))
        threading.Event().wait(0.05)


@pytest.mark.parametrize("talk", [reset, hang, hang_in_the_head, drip])
def test_an_answer_that_is_lost_may_have_been_a_yes(vendor: Vendor, talk: receivers.Talk) -> None:
    result = lost(talk, vendor)
    assert (result.outcome, result.fault) == (Outcome.AMBIGUOUS, vendor.own_fault), result.error


def test_a_request_lost_on_a_kept_connection_is_not_repeated(vendor: Vendor) -> None:
    """One request an attempt: libcurl would send it once more where the connection closes without an answer."""
    seen: list[str] = []

    def talk(connection: socket.socket) -> None:
        while request := receivers.read_request(connection):
            seen.append(request.line)
            if len(seen) == 2:
                return
            connection.sendall(vendor.success)

    with receivers.listening(talk) as listener, closing(made(vendor, listener.port)) as provider:
        outcomes = []
        for _ in range(3):
            message = message_for(vendor, listener.port)
            result = sent(provider, message)[message.id]
            outcomes.append((result.outcome, result.fault))

    assert outcomes == [(Outcome.ACCEPTED, None), (Outcome.AMBIGUOUS, vendor.own_fault), (Outcome.ACCEPTED, None)]
    assert len(seen) == 3


def test_a_body_that_hangs(vendor: Vendor) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
        receivers.until_closed(connection)

    result = lost(talk, vendor)
    assert result.outcome is (Outcome.AMBIGUOUS if vendor.needs_body else Outcome.ACCEPTED)


def test_not_http(vendor: Vendor) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"220 mail.example.com ESMTP\r\n")

    result = lost(talk, vendor)
    assert (result.outcome, result.fault) == (Outcome.AMBIGUOUS, vendor.own_fault)


@pytest.mark.parametrize(
    "text", ["Grüße, 世界 💌", "\N{ZERO WIDTH JOINER}\u202e=?utf-8?q?x?=\r\n.\r\nRSET", "&a=b%00+c;\\\"'"]
)
def test_text_goes_out_to_the_letter(vendor: Vendor, text: str) -> None:
    with receivers.http(vendor.success) as (server, received):
        message = message_for(vendor, server.port, text)
        with closing(made(vendor, server.port)) as provider:
            assert sent(provider, message)[message.id].outcome is Outcome.ACCEPTED
    vendor.check(received[0], message)


def test_text_of_any_length_ends(vendor: Vendor) -> None:
    with receivers.http(vendor.success) as (server, received):
        result = one(vendor, server.port, "long " * 40_000)
    # Cut as documented, sent whole, or refused before anything went out.
    assert result.outcome in {Outcome.ACCEPTED, Outcome.REJECTED}
    assert (result.outcome is Outcome.ACCEPTED) == bool(received)
    assert result.outcome is Outcome.ACCEPTED or "too long" in (result.error or "")


def test_many_at_once_over_few_connections(vendor: Vendor) -> None:
    with receivers.http(vendor.success) as (server, received):
        messages = [message_for(vendor, server.port) for _ in range(100)]
        with closing(made(vendor, server.port)) as provider:
            results = sent(provider, *messages)
    assert {result.outcome for result in results.values()} == {Outcome.ACCEPTED}
    assert len(received) == 100
    assert server.connections <= 34


def test_closed_early_and_used_again(vendor: Vendor) -> None:
    with receivers.http(vendor.success) as (server, _), closing(made(vendor, server.port)) as provider:
        begun = provider.send(iter([message_for(vendor, server.port) for _ in range(5)]))
        next(iter(begun))
        begun.close()  # type: ignore[attr-defined]  # a generator, as the protocol asks
        message = message_for(vendor, server.port)
        assert sent(provider, message)[message.id].outcome is Outcome.ACCEPTED


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is none of ours."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
