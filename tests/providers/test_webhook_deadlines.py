"""Webhooks: deadlines, and receivers that cannot be reached."""

import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from notifier.providers.protocol import Outcome
from tests.providers import receivers
from tests.providers.receivers import response
from tests.providers.webhook_calls import Make, making, message_to, post, send, url_of


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as made:
        yield made


# Deadlines


def test_a_receiver_that_never_answers_is_ambiguous_at_the_deadline(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        receivers.until_closed(connection)

    with receivers.listening(talk) as server:
        yields = list(make(timeout=0.5).send(iter([message_to(url_of(server))])))

    [result] = itertools.chain.from_iterable(yields)
    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error == "timeout: no answer within 0.5 s"
    assert 490 <= result.duration_ms < 5_000
    assert len(yields) >= 4  # the caller had its turn while nothing happened


def test_an_answer_that_came_while_the_caller_did_something_else_counts(make: Make) -> None:
    """The caller records what has come, which may take as long as Postgres is locked or frozen."""
    answered = threading.Event()

    def talk(connection: socket.socket) -> None:
        for _ in range(2):  # on a kept connection, too
            receivers.read_request(connection)
            waited.wait(10)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            answered.set()

    provider = make(timeout=0.5)
    with receivers.listening(talk) as server:
        for _ in range(2):
            waited = threading.Event()
            answered.clear()
            calls = provider.send(iter([message_to(url_of(server))]))
            assert list(next(calls)) == []  # it is under way
            waited.set()
            assert answered.wait(10)
            time.sleep(1)
            [result] = itertools.chain.from_iterable(calls)
            assert (result.outcome, result.status_code, result.error) == (Outcome.ACCEPTED, 200, None)


def test_a_dripping_head_cannot_extend_the_deadline(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        receivers.drip(connection, b"x-a: b\r\n")

    with receivers.listening(talk) as server:
        result = post(make(timeout=0.5), url_of(server))

    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error == "timeout: no answer within 0.5 s"
    assert result.duration_ms < 5_000


def test_a_dripping_body_is_cut_off_at_the_deadline_and_counts_by_its_status(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        receivers.drip(connection, b"x")

    with receivers.listening(talk) as server:
        result = post(make(timeout=0.5), url_of(server))

    assert (result.outcome, result.status_code) == (Outcome.ACCEPTED, 200)
    assert 490 <= result.duration_ms < 5_000


def test_a_receiver_that_does_not_read_is_ambiguous(make: Make) -> None:
    stop = threading.Event()

    def talk(_connection: socket.socket) -> None:
        stop.wait(timeout=10)

    with receivers.listening(talk) as server:
        result = post(make(timeout=0.5), url_of(server), json.dumps("x" * 20_000_000))
        stop.set()

    assert result.outcome is Outcome.AMBIGUOUS
    assert re.fullmatch(r"timeout: [0-9]+ of 20000002 bytes were taken within 0.5 s", result.error or "")


def test_a_connection_that_is_never_made_is_unsent(make: Make) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # nobody accepts; once the queue is full, further connections hang
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        result = post(make(timeout=0.5), f"http://127.0.0.1:{full.getsockname()[1]}/")

    assert result.outcome is Outcome.UNSENT
    assert result.error == "timeout: no connection within 0.5 s"


def test_a_tls_handshake_that_hangs_is_unsent(make: Make) -> None:
    with receivers.listening(receivers.until_closed) as server:
        result = post(make(timeout=0.5), url_of(server, scheme="https"))

    assert result.outcome is Outcome.UNSENT
    assert result.error == "timeout: no connection within 0.5 s"


def test_a_slow_receiver_does_not_hold_up_the_others(make: Make) -> None:
    def hang(connection: socket.socket) -> None:
        receivers.read_request(connection)
        receivers.until_closed(connection)

    with receivers.listening(hang) as silent, receivers.http() as (server, _):
        slow = message_to(url_of(silent))
        results = send(make(timeout=1.0, concurrency=2), slow, *[message_to(url_of(server)) for _ in range(20)])

    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 20 + [Outcome.AMBIGUOUS]
    assert results[-1].id == slow.id


# Network errors


def test_a_refused_connection_is_unsent(make: Make) -> None:
    result = post(make(), f"http://127.0.0.1:{receivers.unused_port()}/")

    assert (result.outcome, result.error) == (Outcome.UNSENT, "refused: connection refused")
    assert result.status_code is None


def test_a_name_that_does_not_resolve_is_unsent(make: Make) -> None:
    result = post(make(), "http://no-such-host.invalid/")

    assert (result.outcome, result.error) == (Outcome.UNSENT, "dns: the host's name does not resolve")


def test_tls_to_a_plain_port_is_unsent(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(response(400))

    with receivers.listening(talk) as server:
        result = post(make(), url_of(server, scheme="https"))

    assert result.outcome is Outcome.UNSENT
    assert result.error is not None
    assert result.error.startswith("tls: ")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "example.com/hook",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "HTTP//127.0.0.1",
        "http://",
        "http://exa mple.com/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://[::1/",
        "http://127.0.0.1/\r\nhost: elsewhere",
        "http://127.0.0.1/\0",
        "http://127.0.0.1/\ud800",
    ],
)
def test_what_is_no_http_url_is_rejected(make: Make, url: str) -> None:
    result = post(make(), url)

    assert result.outcome is Outcome.REJECTED
    assert result.error == "url: not a URL that begins with http:// or https://"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://127.0.0.1:port/", "http://127.0.0.1/\0"])
def test_what_is_rejected_owes_nothing_to_the_request_before(make: Make, url: str) -> None:
    provider = make(concurrency=1)
    with receivers.http(response(503, b"busy", "retry-after: 5")) as (server, _):
        _, rejected, after = send(provider, message_to(url_of(server)), message_to(url), message_to(url_of(server)))

    assert (rejected.outcome, rejected.status_code) == (Outcome.REJECTED, None)
    assert (rejected.response_excerpt, rejected.retry_after) == (None, None)
    assert after.outcome is Outcome.UNSENT
