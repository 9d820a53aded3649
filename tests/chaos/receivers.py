"""Receivers that note every message with its time and with what they said to it."""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import Final, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.ports import free_port
from tests.chaos.proxy import HOST, Loop

_NUMBER: Final = re.compile(rb'"n": ?(\d+)')
#: Answers of a receiver that are no status: nothing and hang up, or no HTTP at all.
HANG_UP: Final = 0
GARBAGE: Final = -1


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message as it came to a receiver."""

    #: Which of the receivers' paths it came by: direct, subscribed or mail.
    kind: str
    #: The number of the event that it tells of.
    number: int
    #: The notification's id.
    notification: str
    #: Unix time at which it was there whole.
    at: float
    #: The receiver's answer, a status of HTTP or SMTP.
    said: int

    @property
    def taken(self) -> bool:
        """Whether the receiver said that it has taken it."""
        return 200 <= self.said < 300


class Arrivals:
    """The arrivals, in order."""

    def __init__(self) -> None:
        self.all: list[Arrival] = []
        #: Called at each arrival, after it was answered.
        self.then: Callable[[Arrival], None] | None = None

    def note(self, arrival: Arrival) -> Arrival:
        """Note an arrival."""
        self.all.append(arrival)
        return arrival

    def answered(self, arrival: Arrival) -> None:
        """Say that its answer is on its way."""
        if self.then:
            self.then(arrival)


class WebhookSink:
    """A receiver of webhooks over HTTP/1.1 with connections that are kept alive."""

    def __init__(self, loop: Loop, arrivals: Arrivals, rng: random.Random) -> None:
        self._arrivals = arrivals
        self._rng = rng
        #: Seconds before it answers.
        self.slowness = 0.0
        #: Its answer, drawn for each message.
        self.answers: tuple[int, ...] = (204,)
        self._server: asyncio.Server = loop.run(self._serve())
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, HOST, 0, backlog=512)

    def behave(self) -> None:
        """Take everything, at once."""
        self.slowness, self.answers = 0.0, (204,)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        at = time.time()
        said = self._rng.choice(self.answers)
        if self.slowness:
            await asyncio.sleep(self.slowness)
        found = _NUMBER.search(body)
        number = int(found[1]) if found else -1
        kind = first.split(" ")[1].strip("/")
        # Before the answer: whoever hangs up meanwhile does not undo it.
        arrival = self._arrivals.note(Arrival(kind, number, headers.get("webhook-id", ""), at, said))
        if said > 0:
            writer.write(f"HTTP/1.1 {said} x\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
        elif said == GARBAGE:
            writer.write(b"HTTP/9.9 banana\r\n\r\n\x00\xff")
        self._arrivals.answered(arrival)
        return said > 0


class MailSink:
    """A mail server, whose recipients are `n{number}@example.org`."""

    def __init__(self, arrivals: Arrivals, rng: random.Random) -> None:
        self._arrivals = arrivals
        self._rng = rng
        self.slowness = 0.0
        self.answers: tuple[int, ...] = (250,)
        self.port = free_port()
        self._controller = Controller(self, hostname=HOST, port=self.port, server_hostname="mail.test")

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    def behave(self) -> None:
        """Take everything, at once."""
        self.slowness, self.answers = 0.0, (250,)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        at, said = time.time(), self._rng.choice(self.answers)
        if self.slowness:
            await asyncio.sleep(self.slowness)
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        message_id = str(message_from_bytes(content, policy=policy.default)["Message-ID"] or "")
        for recipient in envelope.rcpt_tos:
            number = int(recipient.partition("@")[0].removeprefix("n"))
            notification = message_id.strip("<>").partition("@")[0]
            self._arrivals.answered(self._arrivals.note(Arrival("mail", number, notification, at, said)))
        return f"{said} as it was told"


def body_of(number: int) -> dict[str, object]:
    """Return the payload by which receivers know an event."""
    return {"n": number, "note": json.dumps({"of": "chaos"})}
