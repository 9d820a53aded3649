"""Email over SMTP: connections that are kept, shared and replaced."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from notifier.providers.protocol import Message, Outcome, Result
from notifier.providers.unused_connections import close_unused
from notifier.providers.vendors import smtp
from tests.providers import receivers
from tests.providers.receivers import MailServer, in_turn
from tests.providers.smtp_calls import Make, making, message_to, parsed, post, send
from tests.support.running import wait_for


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as make:
        yield make


# Connections


@pytest.mark.parametrize("pipelines", [False, True])
def test_a_connection_is_used_again(make: Make, pipelines: bool) -> None:
    mail = MailServer(pipelines=pipelines)
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        send(provider, message_to(), message_to())
        post(provider)
        provider.close()

        assert server.connections == 1
    verbs = [command.split(" ")[0] for command in mail.heard]
    assert verbs == ["EHLO", *["MAIL", "RCPT", "DATA"] * 3, "QUIT"]


@pytest.mark.parametrize("pipelines", [False, True])
def test_a_kept_connection_that_has_closed_is_replaced(make: Make, pipelines: bool) -> None:
    mail = MailServer(
        {"message": lambda c: (c.sendall(b"250 taken\r\n"), c.shutdown(socket.SHUT_RDWR))[0]}, pipelines=pipelines
    )
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        results = [post(provider) for _ in range(3)]

        assert server.connections == 3
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3


@pytest.mark.parametrize("pipelines", [False, True])
def test_a_kept_connection_that_the_server_wants_to_close_is_replaced(make: Make, pipelines: bool) -> None:
    mail = MailServer({"MAIL": in_turn(b"250 ok", b"421 that was enough", b"250 ok")}, pipelines=pipelines)
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        assert [result.outcome for result in send(provider, message_to(), message_to())] == [Outcome.ACCEPTED] * 2
        assert server.connections == 2


@pytest.mark.parametrize("pipelines", [False, True])
def test_a_kept_connection_is_replaced_once_only(make: Make, pipelines: bool) -> None:
    mail = MailServer({"MAIL": in_turn(b"250 ok", b"421 enough", b"421 enough", b"250 too late")}, pipelines=pipelines)
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        assert post(provider).outcome is Outcome.ACCEPTED
        again = post(provider)

        assert server.connections == 2
    assert (again.outcome, again.status_code) == (Outcome.UNSENT, 421)


@pytest.mark.parametrize(("reply", "outcome"), [(b"hello?", Outcome.AMBIGUOUS), (b"421 closing", Outcome.UNSENT)])
def test_a_message_that_went_out_over_a_kept_connection_is_not_sent_again(
    make: Make, reply: bytes, outcome: Outcome
) -> None:
    mail = MailServer({"message": in_turn(b"250 taken", reply)})
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        assert post(provider).outcome is Outcome.ACCEPTED
        assert post(provider).outcome is outcome
        assert server.connections == 1


def test_a_connection_left_idle_is_not_trusted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "_IDLE", 0.0)
    with receivers.listening(MailServer().talk) as server:
        provider = make(server.port, connections=1)
        assert {post(provider).outcome for _ in range(2)} == {Outcome.ACCEPTED}
        assert server.connections == 2


def test_a_connection_that_nobody_uses_any_more_is_closed(make: Make) -> None:
    mail = MailServer()
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        before = psutil.Process().num_fds()
        assert post(provider).outcome is Outcome.ACCEPTED
        close_unused()
        assert post(provider).outcome is Outcome.ACCEPTED
        assert server.connections == 1
        close_unused(time.monotonic() + 31)
        wait_for(lambda: psutil.Process().num_fds() <= before, what="the connection to be closed")
        wait_for(lambda: mail.heard[-1] == "QUIT", what="a goodbye")
        assert post(provider).outcome is Outcome.ACCEPTED
        assert server.connections == 2


def test_a_refused_recipient_does_not_spoil_the_connection(make: Make) -> None:
    mail = MailServer({"RCPT": in_turn(b"550 unknown", b"250 ok")})
    with receivers.listening(mail.talk) as server:
        results = send(make(server.port, connections=1), message_to(), message_to())

        assert server.connections == 1
    assert [result.outcome for result in results] == [Outcome.REJECTED, Outcome.ACCEPTED]
    verbs = [command.split(" ")[0] for command in mail.heard]
    assert verbs[:7] == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]


def test_a_connection_that_cannot_be_reset_is_replaced(make: Make) -> None:
    mail = MailServer({"RCPT": in_turn(b"550 unknown", b"250 ok"), "RSET": b"500 what"})
    with receivers.listening(mail.talk) as server:
        results = send(make(server.port, connections=1), message_to(), message_to())

        assert server.connections == 2
    assert [result.outcome for result in results] == [Outcome.REJECTED, Outcome.ACCEPTED]


def test_no_more_messages_are_taken_than_can_begin_and_those_go_at_once(make: Make) -> None:
    everyone_is_here = threading.Barrier(4)
    taken: list[object] = []

    def wait(connection: socket.socket) -> None:
        everyone_is_here.wait(timeout=10)
        connection.sendall(b"250 taken\r\n")

    def messages() -> Iterator[Message]:
        for _ in range(6):
            taken.append(message := message_to())
            yield message

    with receivers.listening(MailServer({"message": wait}).talk) as server:
        sending = make(server.port, connections=3).send(messages())
        results: list[Result] = []
        for round_ in (1, 2):
            while everyone_is_here.n_waiting < 3:
                results += next(sending)
            assert len(taken) == 3 * round_
            everyone_is_here.wait(timeout=10)
        results += itertools.chain.from_iterable(sending)

        assert server.connections == 3
    assert {result.id for result in results} == {message.id for message in taken}
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}


def test_many_threads_share_a_provider(make: Make) -> None:
    results: list[Result] = []
    with receivers.mail() as (port, mailbox):
        provider = make(port, connections=4)
        threads = [
            threading.Thread(target=lambda: results.extend(send(provider, *(message_to() for _ in range(20)))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        provider.close()

    assert len({result.id for result in results}) == 60
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert len({parsed(envelope)["message-id"] for envelope in mailbox.envelopes}) == 60
    assert len(mailbox.peers) <= 12


def test_what_is_in_flight_when_the_caller_leaves_is_dropped(make: Make) -> None:
    left = threading.Semaphore(0)

    def hang(connection: socket.socket) -> None:
        receivers.until_closed(connection)
        left.release()

    before = set(threading.enumerate())
    with receivers.listening(MailServer({"MAIL": hang}).talk) as server:
        sending = make(server.port, connections=3).send(message_to() for _ in range(5))
        while server.connections < 3:
            next(sending)
        sending.close()  # type: ignore[attr-defined]  # a generator, as the protocol asks
        for _ in range(3):
            assert left.acquire(timeout=10)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_an_error_of_the_callers_messages_reaches_the_caller(make: Make) -> None:
    def messages() -> Iterator[Message]:
        yield message_to()
        raise LookupError("the caller's own")

    with receivers.listening(MailServer().talk) as server:
        provider = make(server.port)
        with pytest.raises(LookupError, match="the caller's own"):
            list(provider.send(messages()))
        assert post(provider).outcome is Outcome.ACCEPTED
