"""The promises of the conformance suite, kept by those who speak by no HTTP API of ours: mail, and chat by Apprise."""

import itertools
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.protocol import Fault, Message, Outcome, Provider, Result
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import MailServer, Talk

# A plugin of Apprise imports it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ACCEPTED, REJECTED, UNSENT, AMBIGUOUS = Outcome.ACCEPTED, Outcome.REJECTED, Outcome.UNSENT, Outcome.AMBIGUOUS


@dataclass(frozen=True)
class Wire:
    """A provider, and what servers that it talks to may do."""

    channel: Channel
    dsn: Callable[[int], str]
    recipient: Callable[[int], str]
    #: Acts of a server, and the outcome of each. Every wire has all of them.
    cases: dict[str, tuple[Talk, Outcome, Fault | None]] = field(default_factory=dict)
    #: Where nobody listens.
    nobody: tuple[Outcome, Fault | None] = (UNSENT, Fault.PROVIDER)


def says(stage: str, reply: bytes | Talk | None) -> Talk:
    """A mail server that says something of its own at one stage."""
    return MailServer({"EHLO": b"250-here\r\n250 AUTH PLAIN", "AUTH": b"235 welcome", stage: reply}).talk


def answers(status: int) -> Talk:
    """A web server that gives every request the same answer."""

    def talk(connection: socket.socket) -> None:
        while receivers.read_request(connection):
            connection.sendall(receivers.response(status, b"{}"))

    return talk


def after_request(data: bytes, then: Talk) -> Talk:
    """A web server that begins to answer so, and goes on otherwise."""

    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(data)
        then(connection)

    return talk


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drip(connection: socket.socket) -> None:
    receivers.drip(connection, b"250-going on\r\n")


def begins_and_hangs(connection: socket.socket) -> None:
    connection.sendall(b"250-tak")
    receivers.until_closed(connection)


def closes(_: socket.socket) -> None:
    """Hang up at once."""


WIRES = {
    "smtp": Wire(
        Channel.EMAIL,
        lambda port: f"smtp://user:hunter2@127.0.0.1:{port}?tls=none",
        lambda _: "ada@example.com",
        {
            "takes it": (says("QUIT", b"221 bye"), ACCEPTED, None),
            "knows nobody there": (says("RCPT", b"550 5.1.1 who?"), REJECTED, Fault.RECIPIENT),
            "refuses the message": (says("message", b"554 spam"), REJECTED, None),
            "refuses credentials": (says("AUTH", b"535 no"), UNSENT, Fault.PROVIDER),
            "has enough for now": (says("RCPT", b"452 4.5.3 too many"), UNSENT, None),
            "is down": (says("banner", b"421 busy"), UNSENT, Fault.PROVIDER),
            "answers nonsense": (says("message", lambda c: c.sendall(b"hello\r\n")), AMBIGUOUS, Fault.PROVIDER),
            "hangs": (says("message", None), AMBIGUOUS, Fault.PROVIDER),
            "hangs within its answer": (
                says("message", begins_and_hangs),
                AMBIGUOUS,
                Fault.PROVIDER,
            ),
            "drips": (says("message", drip), AMBIGUOUS, Fault.PROVIDER),
            "resets": (says("message", reset), AMBIGUOUS, Fault.PROVIDER),
            "hangs up at once": (closes, UNSENT, Fault.PROVIDER),
        },
    ),
    "apprise": Wire(
        Channel.CHAT,
        lambda _: "apprise:?services=json",
        lambda port: f"json://user:hunter2@127.0.0.1:{port}/x",
        {
            "takes it": (answers(200), ACCEPTED, None),
            "knows nobody there": (answers(404), REJECTED, Fault.RECIPIENT),
            "refuses the message": (answers(400), REJECTED, None),
            # They stand in the recipient's own URL.
            "refuses credentials": (answers(401), REJECTED, Fault.RECIPIENT),
            "has enough for now": (answers(429), UNSENT, Fault.THROTTLED),
            "is down": (answers(503), UNSENT, None),
            "answers nonsense": (after_request(b"220 mail ESMTP\r\n", closes), AMBIGUOUS, None),
            "hangs": (after_request(b"", receivers.until_closed), AMBIGUOUS, None),
            "hangs within its answer": (
                after_request(b"HTTP/1.1 200 OK\r\ncontent-", receivers.until_closed),
                AMBIGUOUS,
                None,
            ),
            "drips": (after_request(b"HTTP/1.1 200 OK\r\n", drip), AMBIGUOUS, None),
            "resets": (after_request(b"", reset), AMBIGUOUS, None),
            # Before or after its request: the client cannot tell.
            "hangs up at once": (closes, AMBIGUOUS, None),
        },
        (UNSENT, None),
    ),
}
CASES = [(name, case) for name, wire in WIRES.items() for case in wire.cases]


@pytest.fixture(params=sorted(WIRES))
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


def made(wire: Wire, port: int, timeout: float = 5.0) -> Provider:
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    context = Context(wire.channel, timeout, "notifier@example.com", "https://notifier.example.com", (), engine)
    return registry.make(wire.dsn(port), context)


def message_for(wire: Wire, port: int, text: str = "Your order has shipped.") -> Message:
    return Message(new_id(), wire.recipient(port), "Shipped", text)


def sent(provider: Provider, *messages: Message) -> dict[UUID, Result]:
    results = list(itertools.chain.from_iterable(provider.send(iter(messages))))
    assert sorted(result.id for result in results) == sorted(message.id for message in messages)
    return {result.id: result for result in results}


def one(wire: Wire, port: int, text: str = "Your order has shipped.", timeout: float = 5.0) -> Result:
    message = message_for(wire, port, text)
    with closing(made(wire, port, timeout)) as provider:
        return sent(provider, message)[message.id]


def test_every_wire_has_every_case() -> None:
    assert len({tuple(wire.cases) for wire in WIRES.values()}) == 1


@pytest.mark.parametrize(("name", "case"), CASES)
def test_what_a_server_does(name: str, case: str) -> None:
    wire = WIRES[name]
    talk, outcome, fault = wire.cases[case]
    with receivers.listening(talk) as server:
        result = one(wire, server.port, timeout=0.5)
    assert (result.outcome, result.fault) == (outcome, fault), result.error
    assert (result.error is None) == (outcome is ACCEPTED)
    assert "hunter2" not in f"{result!r}"


def test_nobody_listens(wire: Wire) -> None:
    result = one(wire, receivers.unused_port())
    assert (result.outcome, result.fault) == wire.nobody


@pytest.mark.parametrize("text", ["Grüße, 世界 💌", "\u202e=?utf-8?q?x?=\r\n.\r\nRSET", "long " * 40_000])
def test_texts_of_any_kind_are_taken(wire: Wire, text: str) -> None:
    with receivers.listening(wire.cases["takes it"][0]) as server:
        assert one(wire, server.port, text).outcome is ACCEPTED


def test_many_at_once_and_closed_early(wire: Wire) -> None:
    with receivers.listening(wire.cases["takes it"][0]) as server, closing(made(wire, server.port)) as provider:
        begun = provider.send(iter([message_for(wire, server.port) for _ in range(5)]))
        next(iter(begun))
        begun.close()  # type: ignore[attr-defined]  # a generator, as the protocol asks
        results = sent(provider, *[message_for(wire, server.port) for _ in range(50)])
    assert {result.outcome for result in results.values()} == {ACCEPTED}
