"""Connections of webhooks over real sockets: kept, given up and never the cause of a second request."""

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from notifier.providers.http import transfers
from notifier.providers.protocol import Message, Outcome, Result
from notifier.providers.unused_connections import close_unused
from tests.providers import receivers
from tests.providers.receivers import response
from tests.providers.webhook_calls import Make, making, message_to, post, send, url_of
from tests.support.running import wait_for


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as made:
        yield made


def test_connections_are_kept_alive_between_calls(make: Make) -> None:
    provider = make(concurrency=1)
    with receivers.http() as (server, received):
        for _ in range(3):
            send(provider, message_to(url_of(server)), message_to(url_of(server)))

        assert len(received) == 6
        assert server.connections == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_connection_closed_while_idle_is_replaced(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, is_reset: bool
) -> None:
    certificate = receivers.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))

    def talk(connection: socket.socket) -> None:
        if receivers.read_request(connection):
            connection.sendall(response(200))
        answered.acquire(timeout=10)
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    answered = threading.Semaphore(0)
    provider = make(concurrency=1)
    with receivers.listening(talk, certificate.server_context() if scheme == "https" else None) as server:
        for _ in range(3):
            assert post(provider, url_of(server, scheme=scheme)).outcome is Outcome.ACCEPTED
            answered.release()
            server.wait()

        assert server.connections == 3


def test_an_answer_to_nothing_is_not_taken_for_that_to_the_next_request(make: Make) -> None:
    spoken = threading.Semaphore(0)

    def talk(connection: socket.socket) -> None:
        assert receivers.read_request(connection)
        connection.sendall(response(200))
        answered.acquire(timeout=10)
        connection.sendall(response(408))
        spoken.release()
        receivers.until_closed(connection)

    answered = threading.Semaphore(0)
    provider = make(concurrency=1)
    with receivers.listening(talk) as server:
        for _ in range(3):
            assert post(provider, url_of(server)).outcome is Outcome.ACCEPTED
            answered.release()
            assert spoken.acquire(timeout=10)

        assert server.connections == 3


def test_a_server_that_closes_after_every_answer_loses_one_request_at_most(make: Make) -> None:
    provider = make(concurrency=1)
    with receivers.http(requests=1) as (server, received):
        results = send(provider, *(message_to(url_of(server)) for _ in range(20)))

        outcomes = [result.outcome for result in results]
        lost = outcomes.count(Outcome.AMBIGUOUS)
        assert lost <= 1
        assert outcomes.count(Outcome.ACCEPTED) == 20 - lost
        assert len(received) == 20 - lost


class Dying:
    """A receiver that answers the first request on a connection and, having read the second one, closes."""

    def __init__(self, *, read_second: bool = True) -> None:
        self.bodies: list[int] = []
        self._read_second = read_second

    def __call__(self, connection: socket.socket) -> None:
        first = receivers.read_request(connection)
        assert first is not None
        self.bodies.append(len(first.body))
        connection.sendall(response(200))
        if not self._read_second:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif (second := receivers.read_request(connection)) is not None:
            self.bodies.append(len(second.body))


@pytest.mark.parametrize("size", [0, 2, 60_000, 3_000_000])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_lost_on_a_kept_connection_is_not_repeated(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, scheme: str
) -> None:
    certificate = receivers.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    provider = make(concurrency=1)
    talk = Dying()
    with receivers.listening(talk, certificate.server_context() if scheme == "https" else None) as server:
        good, lost, again = (post(provider, url_of(server, scheme=scheme), "x" * size) for _ in range(3))
        connections = server.connections

    assert (good.outcome, lost.outcome, again.outcome) == (Outcome.ACCEPTED, Outcome.AMBIGUOUS, Outcome.ACCEPTED)
    assert lost.error == "reset: the connection closed before an answer"
    assert lost.timing is not None
    assert [name for name, value in lost.timing.items() if value is not None] == ["total_ms"]
    assert talk.bodies == [size] * 3
    assert connections == 2, "none is made for a repeat"


def test_a_request_that_is_reset_on_a_kept_connection_is_not_repeated(make: Make) -> None:
    provider = make(concurrency=1)
    talk = Dying(read_second=False)
    with receivers.listening(talk) as server:
        good, lost = (post(provider, url_of(server), "x" * 3_000_000) for _ in range(2))

    assert (good.outcome, lost.outcome) == (Outcome.ACCEPTED, Outcome.AMBIGUOUS)
    assert len(talk.bodies) == 1


def test_after_a_loss_requests_get_connections_of_their_own(make: Make) -> None:
    provider = make(concurrency=1)
    with receivers.listening(Dying()) as server:
        outcomes = [post(provider, url_of(server)).outcome for _ in range(5)]

        assert outcomes == [Outcome.ACCEPTED, Outcome.AMBIGUOUS, *[Outcome.ACCEPTED] * 3]
        assert server.connections == 4
    with receivers.http() as (other, _):  # others keep theirs
        for _ in range(2):
            post(provider, url_of(other))
        assert other.connections == 1


def test_other_kept_connections_repeat_nothing_either(make: Make) -> None:
    """Where several are open, libcurl would repeat on another of them, without opening one."""
    provider = make(concurrency=4)
    everyone_is_here = threading.Barrier(4)
    seen: list[str] = []

    def talk(connection: socket.socket) -> None:
        assert receivers.read_request(connection)
        everyone_is_here.wait(timeout=10)
        connection.sendall(response(200))
        while request := receivers.read_request(connection):
            seen.append(request.headers["webhook-id"])
            return

    with receivers.listening(talk) as server:
        good = send(provider, *(message_to(url_of(server)) for _ in range(4)))
        lost = post(provider, url_of(server))

    assert {result.outcome for result in good} == {Outcome.ACCEPTED}
    assert lost.outcome is Outcome.AMBIGUOUS
    assert seen == [str(lost.id)]


def test_a_connection_that_was_idle_for_longer_than_servers_keep_one_is_not_used_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_KEEP_ALIVE", 1)
    provider = make()
    with receivers.http() as (server, _):
        post(provider, url_of(server))
        post(provider, url_of(server))
        assert server.connections == 1
        time.sleep(1.1)  # libcurl's own clock
        post(provider, url_of(server))
        assert server.connections == 2


def test_no_more_messages_are_taken_than_can_begin(make: Make) -> None:
    everyone_is_here = threading.Barrier(4)
    taken: list[UUID] = []

    def talk(connection: socket.socket) -> None:
        while receivers.read_request(connection):
            everyone_is_here.wait(timeout=10)
            connection.sendall(response(200))

    with receivers.listening(talk) as server:

        def messages() -> Iterator[Message]:
            for _ in range(6):
                message = message_to(url_of(server))
                taken.append(message.id)
                yield message

        sending = make(concurrency=3).send(messages())
        assert list(next(sending)) == []
        assert len(taken) == 3
        everyone_is_here.wait(timeout=10)  # lets the first three go; the last three need a fourth as well
        results: list[Result] = []
        while len(results) < 3:
            results += next(sending)
        while everyone_is_here.n_waiting < 3:
            assert list(next(sending)) == []
        everyone_is_here.wait(timeout=10)
        results += itertools.chain.from_iterable(sending)

    assert sorted(result.id for result in results) == sorted(taken)
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}


def test_many_threads_share_a_provider(make: Make) -> None:
    provider = make(concurrency=8)
    results: list[Result] = []
    with receivers.http() as (server, received):

        def work() -> None:
            results.extend(send(provider, *(message_to(url_of(server)) for _ in range(50))))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(received) == 200
        assert server.connections <= 4 * 8
    assert len({result.id for result in results}) == 200
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}


def test_connections_that_nobody_uses_any_more_are_closed(make: Make) -> None:
    provider, process = make(concurrency=8), psutil.Process()
    close_unused(time.monotonic() + 11)  # those of other tests
    with receivers.http() as (server, _):
        before = process.num_fds()
        # More threads than connections are kept for, all at once.
        together = threading.Barrier(12)

        def messages() -> Iterator[Message]:
            together.wait(10)
            yield message_to(url_of(server))

        threads = [threading.Thread(target=lambda: list(provider.send(messages()))) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        close_unused()
        # Of eight threads: an epoll, what libcurl wakes itself with, a connection, and the server's end of that.
        wait_for(lambda: before + 8 <= process.num_fds() <= before + 8 * 6, what="connections to be kept")
        close_unused(time.monotonic() + 11)
        wait_for(lambda: process.num_fds() <= before, what="connections to be closed")
        assert post(provider, url_of(server)).outcome is Outcome.ACCEPTED


def test_what_is_in_flight_when_the_caller_leaves_is_dropped(make: Make) -> None:
    provider = make(concurrency=4)
    left = threading.Semaphore(0)

    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        while connection.recv(65536):
            pass
        left.release()

    with receivers.listening(talk) as silent, receivers.http() as (server, _):
        sending = provider.send(iter([message_to(url_of(silent)) for _ in range(4)]))
        while silent.connections < 4:
            next(sending)
        sending.close()  # type: ignore[attr-defined]  # a generator, as the protocol asks
        for _ in range(4):
            assert left.acquire(timeout=10)

        assert {result.outcome for result in send(provider, *[message_to(url_of(server)) for _ in range(8)])} == {
            Outcome.ACCEPTED
        }


def test_an_error_of_the_callers_messages_reaches_the_caller(make: Make) -> None:
    provider = make()

    def messages(url: str) -> Iterator[Message]:
        yield message_to(url)
        raise LookupError("the caller's own")

    with receivers.http() as (server, _):
        with pytest.raises(LookupError, match="the caller's own"):
            list(provider.send(messages(url_of(server))))
        assert post(provider, url_of(server)).outcome is Outcome.ACCEPTED


def test_a_closed_provider_can_send_again(make: Make) -> None:
    provider = make()
    with receivers.http() as (server, _):
        post(provider, url_of(server))
        provider.close()
        assert post(provider, url_of(server)).outcome is Outcome.ACCEPTED


def test_an_international_origin_that_loses_requests_is_known_by_its_one_form(make: Make) -> None:
    provider = make(concurrency=1)
    hosts = ("bücher.localhost", "BÜCHER.localhost", "xn--bcher-kva.localhost")
    with receivers.listening(Dying()) as server:
        outcomes = [post(provider, f"http://{host}:{server.port}/").outcome for host in (hosts[0], *hosts)]

        assert outcomes == [Outcome.ACCEPTED, Outcome.AMBIGUOUS, Outcome.ACCEPTED, Outcome.ACCEPTED]
        assert server.connections == 3
