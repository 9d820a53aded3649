"""Email over SMTP: deadlines, and servers that cannot be reached."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from notifier.providers.protocol import Fault, Outcome
from tests.providers import receivers
from tests.providers.receivers import MailServer
from tests.providers.smtp_calls import STAGES, Make, making, message_to, post


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as make:
        yield make


#: The deadline of half a second has held where less than this many milliseconds have passed. What else would end a
#: connection, a timeout of its own for each step, comes later.
LATE = 3_000


@pytest.mark.parametrize("pipelines", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_silence_ends_at_the_deadline(make: Make, stage: str, pipelines: bool) -> None:
    with receivers.listening(MailServer({stage: None}, pipelines=pipelines).talk) as server:
        yields = list(make(server.port, timeout=0.5).send(iter([message_to()])))

    [result] = itertools.chain.from_iterable(yields)
    assert result.outcome is (Outcome.AMBIGUOUS if stage == "message" else Outcome.UNSENT)
    assert (result.error, result.status_code) == ("timeout: no answer within 0.5 s", None)
    assert result.fault is Fault.PROVIDER
    assert 490 <= result.duration_ms < LATE
    assert len(yields) >= 4  # the caller had its turn while nothing happened


@pytest.mark.parametrize("stage", STAGES)
def test_a_dripping_reply_cannot_extend_the_deadline(make: Make, stage: str) -> None:
    dripping = MailServer({stage: lambda connection: receivers.drip(connection, b"250-going on\r\n")})
    with receivers.listening(dripping.talk) as server:
        result = post(make(server.port, timeout=0.5))

    assert result.outcome is (Outcome.AMBIGUOUS if stage == "message" else Outcome.UNSENT)
    assert result.error == "timeout: no answer within 0.5 s"
    assert result.duration_ms < LATE


def test_a_server_that_does_not_read_the_message_is_unsent(make: Make) -> None:
    stop = threading.Event()

    def go_on_and_leave(connection: socket.socket) -> None:
        connection.sendall(b"354 go on\r\n")
        stop.wait(timeout=10)

    with receivers.listening(MailServer({"DATA": go_on_and_leave}).talk) as server:
        result = post(make(server.port, timeout=0.5), message_to(text="x" * 20_000_000))
        stop.set()

    assert (result.outcome, result.error) == (Outcome.UNSENT, "timeout: no answer within 0.5 s")


@pytest.mark.parametrize("tls", ["implicit", "required"])
def test_a_handshake_cannot_extend_the_deadline(make: Make, tls: str) -> None:
    """A TLS record of 16 KiB that is announced and never ends."""

    def drip(connection: socket.socket) -> None:
        receivers.drip(connection, b"\x16\x03\x03\x40\x00" + bytes(100))

    def starttls(connection: socket.socket) -> None:
        connection.sendall(b"220 go on\r\n")
        drip(connection)

    plain = MailServer({"EHLO": b"250-here\r\n250 STARTTLS", "STARTTLS": starttls})
    with receivers.listening(drip if tls == "implicit" else plain.talk) as server:
        result = post(make(server.port, tls=tls, timeout=0.5))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "timeout: no answer within 0.5 s")
    assert result.duration_ms < LATE


def test_a_connection_that_is_never_made_is_unsent(make: Make) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # nobody accepts; once the queue is full, further connections hang
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        result = post(make(full.getsockname()[1], timeout=0.5))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "timeout: no answer within 0.5 s")
    assert result.duration_ms < LATE


def test_a_refused_connection_is_unsent(make: Make) -> None:
    result = post(make(receivers.unused_port()))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "refused: connection refused")
    assert result.fault is Fault.PROVIDER


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".invalid"])
def test_a_server_whose_name_does_not_resolve_is_unsent(make: Make, host: str) -> None:
    result = post(make(25, host=host))

    assert result.outcome is Outcome.UNSENT
    assert result.error in {"dns: the server's name does not resolve", "connect: UnicodeError"}
