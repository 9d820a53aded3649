"""Servers on 127.0.0.1 to send to: some behave, most do not. All of them speak over real sockets."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.ports import free_port

Talk = Callable[[socket.socket], None]

LOOPBACK_NETWORKS = (ipaddress.IPv4Network("127.0.0.0/8"),)


@dataclass(frozen=True)
class Received:
    """One HTTP request as it arrived."""

    line: str
    #: Names in lower case.
    headers: dict[str, str]
    body: bytes


class Listener:
    """Runs `talk` with each connection, in a thread of its own; closing it ends them all."""

    def __init__(self, talk: Talk, tls: ssl.SSLContext | None = None) -> None:
        self._talk = talk
        self._tls = tls
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        #: How many connections were accepted.
        self.connections = 0
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # The other side may go away at any point of the story.
        with connection, suppress(OSError):
            if self._tls is None:
                self._talk(connection)
                return
            with self._tls.wrap_socket(connection.dup(), server_side=True) as secured:
                self._talk(secured)

    def wait(self) -> None:
        """Wait until all connections so far have ended."""
        for thread in list(self._threads):
            thread.join()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._acceptor.join()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@contextmanager
def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """A Listener for a while."""
    listener = Listener(talk, tls)
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def http(
    answer: bytes | Callable[[Received], bytes] = b"", *, tls: ssl.SSLContext | None = None, requests: int | None = None
) -> Iterator[tuple[Listener, list[Received]]]:
    """An HTTP server that gives `answer` to every request, and what it received.

    Connections stay open, or are closed after `requests` requests or an answer with `connection: close`.
    """
    received: list[Received] = []

    def talk(connection: socket.socket) -> None:
        served = 0
        while served != requests and (request := read_request(connection)):
            received.append(request)
            reply = answer(request) if callable(answer) else answer or response(200)
            connection.sendall(reply)
            served += 1
            if b"connection: close" in reply:
                break
        # The other side hears of it at once, also while a process that is just being started has a copy of the socket.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    with listening(talk, tls) as listener:
        yield listener, received


def response(status: int, body: bytes = b"", *lines: str) -> bytes:
    """An HTTP/1.1 response with `lines` as further headers."""
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}", *lines])
    return head.encode() + b"\r\n\r\n" + body


def read_request(connection: socket.socket) -> Received | None:
    """The next request of a connection; None where it ends."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in rest)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Received(line, headers, body)


def until_closed(connection: socket.socket) -> None:
    """Read and answer nothing until the other side closes."""
    while connection.recv(65536):
        pass


def drip(connection: socket.socket, data: bytes, pause: float = 0.05) -> None:
    """Send `data` over and over, a byte at a time, until the other side closes."""
    while True:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(pause)  # the slowness is the point


@dataclass
class MailServer:
    """An SMTP server that says what it is told to say, and what it heard."""

    #: The answer at a stage instead of "all is well": `banner`, `message` (the whole of it is there), or a command's
    #: verb. Bytes are sent, None says nothing ever, b"" closes; a function does as it likes with the connection.
    replies: Mapping[str, bytes | Talk | None] = field(default_factory=dict)
    #: The command lines heard, over all connections.
    heard: list[str] = field(default_factory=list)
    #: Whether it offers PIPELINING (RFC 2920).
    pipelines: bool = False

    def talk(self, connection: socket.socket) -> None:
        is_refused = False
        with connection.makefile("rb") as lines:
            self._say(connection, "banner", b"220 ready")
            for line in lines:
                verb, _, rest = line.decode("latin-1").strip().partition(" ")
                verb = verb.upper()
                self.heard.append(f"{verb} {rest}".strip())
                if verb == "MAIL":
                    is_refused = False
                said = self._say(connection, verb, self._usual(verb, is_refused=is_refused))
                is_refused |= said[:1] in {b"4", b"5"}
                if verb == "DATA" and said.startswith(b"354"):
                    while lines.readline() not in {b".\r\n", b""}:
                        pass
                    self._say(connection, "message", b"250 taken")

    def _usual(self, verb: str, *, is_refused: bool) -> bytes:
        if is_refused and verb in {"RCPT", "DATA"}:
            return b"503 5.5.1 first the other"
        if verb == "EHLO" and self.pipelines:
            return b"250-here\r\n250-PIPELINING\r\n250 SMTPUTF8"
        return _USUAL_REPLIES.get(verb, b"250 ok")

    def _say(self, connection: socket.socket, stage: str, otherwise: bytes) -> bytes:
        reply = self.replies.get(stage, otherwise)
        if callable(reply):
            reply(connection)
            return b""
        if reply is None:
            until_closed(connection)
            return b""
        if reply:
            connection.sendall(reply + b"\r\n")
        else:
            connection.shutdown(socket.SHUT_RDWR)
        return reply


_USUAL_REPLIES = {"EHLO": b"250-here\r\n250 SMTPUTF8", "DATA": b"354 go on"}


def in_turn(*replies: bytes) -> Talk:
    """Says these, one each time that it is asked."""
    waiting = list(replies)
    return lambda connection: connection.sendall(waiting.pop(0) + b"\r\n")


class Mailbox:
    """A handler for aiosmtpd that keeps the envelopes it gets."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        #: Whether each came over TLS.
        self.secured: list[bool] = []
        #: The connections they came over.
        self.peers: set[object] = set()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        self.secured.append(session.ssl is not None)
        self.peers.add(session.peer)
        return "250 taken"


@contextmanager
def mail(mailbox: Mailbox | None = None, **options: Any) -> Iterator[tuple[int, Mailbox]]:
    """A well-behaved SMTP server, aiosmtpd with `options`: its port and what it received."""
    mailbox = mailbox or Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=unused_port(), **options)
    controller.start()
    try:
        yield controller.port, mailbox
    finally:
        controller.stop()


def unused_port() -> int:
    """A port of 127.0.0.1 on which nothing listens, and none that the kernel hands out by itself a moment later."""
    return free_port()


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1, and for no name."""

    #: PEM, the certificate and its key.
    file: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.file))


def certificate(folder: Path) -> Certificate:
    """Make a certificate that is valid for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    address = ipaddress.ip_address("127.0.0.1")
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(file)
