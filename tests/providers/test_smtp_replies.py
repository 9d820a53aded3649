"""Email over SMTP: the outcome of each reply, and of connections that close."""

import socket
from collections.abc import Iterator

import pytest

from notifier.providers.protocol import EXCERPT, Fault, Outcome
from tests.providers import receivers
from tests.providers.receivers import MailServer
from tests.providers.smtp_calls import STAGES, Make, making, message_to, post


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as make:
        yield make


@pytest.mark.parametrize(
    ("stage", "reply", "outcome", "fault"),
    [
        ("banner", b"554 go away", Outcome.UNSENT, Fault.PROVIDER),
        ("banner", b"421 busy", Outcome.UNSENT, Fault.PROVIDER),
        ("banner", b"200 what", Outcome.UNSENT, Fault.PROVIDER),
        ("MAIL", b"550 no", Outcome.REJECTED, None),
        ("MAIL", b"451 later", Outcome.UNSENT, None),
        ("MAIL", b"421 closing", Outcome.UNSENT, Fault.PROVIDER),
        ("MAIL", b"530 log in", Outcome.UNSENT, Fault.PROVIDER),
        ("MAIL", b"535 log in better", Outcome.UNSENT, Fault.PROVIDER),
        ("RCPT", b"550 unknown", Outcome.REJECTED, Fault.RECIPIENT),
        ("RCPT", b"550 5.1.1 unknown", Outcome.REJECTED, Fault.RECIPIENT),
        ("RCPT", b"550 5.7.1 no relaying", Outcome.REJECTED, None),
        ("RCPT", b"553 no", Outcome.REJECTED, Fault.RECIPIENT),
        ("RCPT", b"554 no", Outcome.REJECTED, None),
        ("RCPT", b"450 greylisted", Outcome.UNSENT, None),
        ("RCPT", b"421 closing", Outcome.UNSENT, Fault.PROVIDER),
        ("RCPT", b"538 encrypt", Outcome.UNSENT, Fault.PROVIDER),
        ("DATA", b"554 no", Outcome.REJECTED, None),
        ("DATA", b"451 later", Outcome.UNSENT, None),
        ("message", b"552 too large", Outcome.REJECTED, None),
        ("message", b"554 spam", Outcome.REJECTED, None),
        ("message", b"452 disk full", Outcome.UNSENT, None),
        ("message", b"421 closing", Outcome.UNSENT, Fault.PROVIDER),
    ],
)
@pytest.mark.parametrize("pipelines", [False, True])
def test_the_outcome_of_a_refusal(
    make: Make, stage: str, reply: bytes, outcome: Outcome, fault: Fault | None, pipelines: bool
) -> None:
    with receivers.listening(MailServer({stage: reply}, pipelines=pipelines).talk) as server:
        result = post(make(server.port))

    code, text = reply.decode().split(" ", 1)
    assert (result.outcome, result.status_code, result.fault) == (outcome, int(code), fault)
    assert result.error is not None
    assert result.error.startswith(f"smtp {code}")
    assert result.response_excerpt == text


@pytest.mark.parametrize("reply", [b"hello", b"\xff\xfe", b"", b"999 what", b"354 go on"])
def test_a_reply_to_the_message_that_is_none_is_ambiguous(make: Make, reply: bytes) -> None:
    with receivers.listening(MailServer({"message": lambda c: c.sendall(reply + b"\r\n")}).talk) as server:
        result = post(make(server.port))

    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error == "answer: not SMTP, to the message"


@pytest.mark.parametrize("pipelines", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_a_connection_that_closes_is_ambiguous_only_after_the_dot(make: Make, stage: str, pipelines: bool) -> None:
    with receivers.listening(MailServer({stage: b""}, pipelines=pipelines).talk) as server:
        result = post(make(server.port))

    assert result.outcome is (Outcome.AMBIGUOUS if stage == "message" else Outcome.UNSENT)
    assert result.fault is Fault.PROVIDER
    assert result.error == "reset: the server closed the connection"
    assert result.status_code is None


def test_a_connection_that_closes_in_the_middle_of_the_message_is_unsent(make: Make) -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.sendall(b"354 go on\r\n")
        connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing is a reset
        raise OSError

    with receivers.listening(MailServer({"DATA": hang_up}).talk) as server:
        result = post(make(server.port), message_to(text="x" * 20_000_000))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "reset: the server closed the connection")


def test_a_long_reply_is_cut(make: Make) -> None:
    lines = b"\r\n".join(b"550-" + b"x" * 500 for _ in range(10)) + b"\r\n550 \0end"
    with receivers.listening(MailServer({"RCPT": lines}).talk) as server:
        result = post(make(server.port))

    assert result.response_excerpt is not None
    assert len(result.response_excerpt) <= EXCERPT
