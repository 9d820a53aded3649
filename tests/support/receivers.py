"""Receivers at the other end of real wires."""

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.ports import free_port


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """Its webhook-id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """Its body, parsed."""
        return json.loads(self.body)


#: The answer: a status code, and headers; or a function of the request that gives them.
Answer = tuple[int, dict[str, str]]


class HttpReceiver:
    """A webhook receiver. Paths answer 204, or what a test says they should: each test uses paths of its own."""

    def __init__(self) -> None:
        self._answers: dict[str, list[Answer]] = {}
        self._requests: dict[str, list[Received]] = defaultdict(list)
        self._lock = threading.Lock()
        self._echoing: set[str] = set()
        self._texts: dict[str, bytes] = {}
        #: Paths whose requests are left without an answer until `release`.
        self._held: dict[str, threading.Event] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                with receiver._lock:
                    receiver._requests[self.path].append(received)
                    left = receiver._answers.get(self.path, [])
                    code, headers = (left.pop(0) if len(left) > 1 else left[0]) if left else (204, {})
                    held = receiver._held.get(self.path)
                if held:
                    held.wait(60)
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                said = receiver._texts.get(self.path, b"")
                if self.path in receiver._echoing:
                    said = f"{self.requestline}\n{self.headers}".encode()
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                """Callers that were killed hang up on us: nothing to report."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held.values():
            held.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def answer(self, path: str, *answers: int | Answer) -> None:
        """Answer the requests to a path with these, one after the other; the last one stays."""
        with self._lock:
            self._answers[path] = [each if isinstance(each, tuple) else (each, {}) for each in answers]

    def echo(self, path: str, status: int) -> None:
        """Answer the requests to a path with what they were: their first line and their headers."""
        self._echoing.add(path)
        self.answer(path, status)

    def say(self, path: str, text: str) -> None:
        """Have the answers to a path say something."""
        self._texts[path] = text.encode()

    def hold(self, path: str) -> Callable[[], None]:
        """Leave requests to a path without an answer; returns what lets them go."""
        held = self._held[path] = threading.Event()

        def release() -> None:
            self._held.pop(path, None)
            held.set()

        return release

    def received(self, path: str) -> list[Received]:
        """The requests that came to a path, in order."""
        with self._lock:
            return list(self._requests[path])

    def times(self, path: str) -> Counter[str]:
        """How often each webhook-id came to a path."""
        return Counter(received.id for received in self.received(path))


class _Mailbox:
    """aiosmtpd's handler: refuses as told, keeps what comes."""

    def __init__(self) -> None:
        self.mails: list[tuple[Envelope, EmailMessage]] = []
        self.refusals: dict[str, list[str]] = {}
        self.connections = 0
        #: Recipients of mails that were left without an answer, and what lets those go.
        self.kept_waiting: list[str] = []
        self.held: threading.Event | None = None

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusals = self.refusals.get(address)
        if refusals:
            return refusals.pop(0) if len(refusals) > 1 else refusals[0]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        if held := self.held:
            self.kept_waiting += envelope.rcpt_tos
            while not held.is_set():
                await asyncio.sleep(0.01)
        self.mails.append((envelope, mail))
        return "250 OK"


class SmtpReceiver:
    """A mail server. Recipients are refused as a test says they should."""

    def __init__(self, port: int | None = None) -> None:
        self._mailbox = _Mailbox()
        self._controller = Controller(
            self._mailbox, hostname="127.0.0.1", port=port or free_port(), server_hostname="mail.test"
        )

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def dsn(self) -> str:
        """Its provider DSN."""
        return f"smtp://127.0.0.1:{self._controller.port}"

    def refuse(self, recipient: str, *replies: str) -> None:
        """Answer RCPT for a recipient with these replies, one after the other; the last one stays."""
        self._mailbox.refusals[recipient] = list(replies)

    def hold(self) -> Callable[[], None]:
        """Leave mails without an answer; returns what lets them go."""
        held = self._mailbox.held = threading.Event()

        def release() -> None:
            self._mailbox.held = None
            held.set()

        return release

    @property
    def kept_waiting(self) -> list[str]:
        """The recipients of all mails that had to wait for their answer, or wait for it still."""
        return list(self._mailbox.kept_waiting)

    def mails_to(self, recipient: str) -> list[EmailMessage]:
        """The mails that came for a recipient, in order."""
        return [mail for envelope, mail in self._mailbox.mails if recipient in envelope.rcpt_tos]

    def letters_to(self, recipient: str) -> list[bytes]:
        """The same, as they came over the wire."""
        found = (envelope for envelope, _ in self._mailbox.mails if recipient in envelope.rcpt_tos)
        return [each.content if isinstance(each.content, bytes) else b"" for each in found]

    @property
    def mails(self) -> list[EmailMessage]:
        """All mails, in order."""
        return [mail for _, mail in self._mailbox.mails]

    @property
    def connections(self) -> int:
        """How often somebody said EHLO."""
        return self._mailbox.connections
