"""`manage.py listen`: a webhook receiver for trying things out."""

import contextlib
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import click
import msgspec

from config.settings import load_webhook_secrets
from deploy.commands.group import on_a_stack
from deploy.ports import url_of
from deploy.terminal import printable, say
from notifier.security import webhook_signatures
from notifier.vocabulary.timestamps import rfc3339

#: The largest body that is taken, in bytes.
_LARGEST: Final = 1 << 20
#: How much of a refused body is read all the same: who is still sending does not look for an answer.
_DISCARDED: Final = 64 << 20
#: Seconds after which the main thread looks for a signal. The kernel may give one to another thread, which does not
#: wake the main thread from its wait.
_LOOK_FOR_SIGNALS: Final = 0.2
#: How long answers that are under way may take once it stops, in seconds.
_LAST_ANSWERS: Final = 2.0


def _keys(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[bytes]:
    del ctx, param
    try:
        return [webhook_signatures.key_of(value) for value in values]
    except ValueError as error:
        raise click.BadParameter(f"it {error}") from None


@click.command()
@on_a_stack
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--secret",
    "keys",
    metavar="whsec_…",
    multiple=True,
    callback=_keys,
    help="Secret that webhooks are signed with; may be repeated.  "
    "[default: of NOTIFIER_WEBHOOK_SECRET, also of the running stack, for the host that each is addressed to]",
)
@click.option("--fail-rate", type=click.FloatRange(0, 1), help="Share of webhooks that fail on purpose, such as 0.2.")
@click.option(
    "--status",
    type=click.IntRange(300, 599),
    help="The status that those are answered with; without --fail-rate all are.  [default: 500]",
)
@click.option("--delay", type=click.FloatRange(0, 3600), default=0.0, help="Seconds before each answer.")
@click.option("--once", is_flag=True, help="Stop after the first webhook.")
def listen(
    host: str, port: int, keys: list[bytes], fail_rate: float | None, status: int | None, delay: float, once: bool
) -> None:
    """Receive webhooks on any path, verify them and show them, until Ctrl-C.

    A verified webhook is answered 204, any other 401, one over 1 MiB 413. Without a secret nothing is verified,
    and everything answered 204. For trying things out: nothing is kept.
    """
    root = None
    if not keys:
        secret, shared = load_webhook_secrets()
        keys, root = (
            [webhook_signatures.key_of(each) for each in shared],
            webhook_signatures.key_of(secret) if secret else None,
        )
    if fail_rate is None:
        fail_rate = 0.0 if status is None else 1.0
    listener = _Listener(_Options(keys, root, fail_rate, status or 500, delay, once))
    try:
        server = _Server(host, port, listener)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
    # Both end it as Ctrl-C does: a shell that starts it in the background has it ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        say(f"Listening on {url_of(host, server.server_port)}, any path. Ctrl-C stops.")
        if not keys and root is None:
            say("There is no secret (--secret, NOTIFIER_WEBHOOK_SECRET, a running stack): nothing is verified.")
        while not listener.finished.wait(_LOOK_FOR_SIGNALS):
            pass
    server.shutdown()
    server.server_close()
    listener.stop()
    say(listener.summary())


@dataclass(frozen=True, slots=True)
class _Options:
    keys: Sequence[bytes]
    #: The key from which those of hosts are derived.
    root: bytes | None
    fail_rate: float
    #: The answer of a deliberate failure.
    status: int
    #: Seconds before each answer.
    delay: float
    once: bool

    @property
    def verifies(self) -> bool:
        """Whether there is a secret to verify with."""
        return bool(self.keys) or self.root is not None

    def keys_for(self, headers: Mapping[str, str]) -> list[bytes]:
        """The keys that a webhook may be signed with, from the host in its head."""
        host = next((value for name, value in headers.items() if name.lower() == "host"), "")
        with contextlib.suppress(ValueError):
            if self.root is not None:
                return [webhook_signatures.key_for(self.root, host), *self.keys]
        return list(self.keys)


class _Listener:
    """Decides the answers, counts webhooks and prints them. Used by a thread for each connection."""

    def __init__(self, options: _Options) -> None:
        self._options = options
        self._changed = threading.Condition()
        self._answering = 0
        self._stopping = threading.Event()
        self._random = secrets.SystemRandom()
        self._times: Counter[str] = Counter()
        self._received = self._failed = self._not_verified = self._refused = 0
        #: Set when there is nothing more to wait for.
        self.finished = threading.Event()

    def stop(self) -> None:
        """Cut delays short, and let the answers that are under way go out."""
        self._stopping.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._answering, _LAST_ANSWERS)

    def summary(self) -> str:
        """Return a summary of the received webhooks in one line."""
        with self._changed:
            return (
                f"Received {self._received}, distinct ids {len(self._times)}, failed on purpose {self._failed}, "
                f"not verified {self._not_verified}, refused {self._refused}."
            )

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While a request is answered."""
        with self._changed:
            self._answering += 1
        try:
            yield
        finally:
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Show a webhook; returns the status to answer, once it is time to."""
        options = self._options
        reason = self._why_not_verified(headers, body)
        status = 401 if reason and options.verifies else 204
        on_purpose = status == 204 and self._random.random() < options.fail_rate
        if on_purpose:
            status = options.status
        name = next((value for each, value in headers.items() if each.lower() == "webhook-id"), "")
        with self._changed:
            self._received += 1
            self._failed += on_purpose
            self._not_verified += reason is not None
            before = self._times[name]
            # A forger must not make a genuine webhook look like a repetition.
            if name and status != 401:
                self._times[name] += 1
            elif not before:
                del self._times[name]
            self._show(
                f"{_now()} {_type_of(body)}, webhook-id {name or 'missing'}, POST {path}",
                (f"not verified: {reason}", "red") if reason else ("verified", "green"),
                ", ",
                (f"seen before, {before} times" if before > 1 else "seen before, once", "yellow") if before else "new",
                f"; answer {status}",
                " on purpose" if on_purpose else "",
                f" after {options.delay:g} s" if options.delay else "",
            )
            say(_readable(body), "\n", lines=True)
        if options.delay:
            self._stopping.wait(options.delay)
        return status

    def refuse(self, status: int, why: str) -> None:
        """Show that a request was not taken."""
        with self._changed:
            self._refused += 1
            self._show(f"{_now()} refused: {why}", f"answer {status}")
            say()

    def _why_not_verified(self, headers: Mapping[str, str], body: bytes) -> str | None:
        if not self._options.verifies:
            return "there is no secret"
        try:
            webhook_signatures.verify(self._options.keys_for(headers), headers, body)
        except webhook_signatures.NotVerified as error:
            return str(error)
        return None

    def answered(self) -> None:
        """A webhook's answer went out."""
        if self._options.once:
            self.finished.set()

    def _show(self, head: str, *parts: str | tuple[str, str]) -> None:
        say(head, bold=True)
        say(*parts)


class _Server(ThreadingHTTPServer):
    """Raises OSError where it cannot listen."""

    request_queue_size = 128

    def __init__(self, host: str, port: int, listener: _Listener) -> None:
        self.listener = listener
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A sender that hung up is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Of methods that are not here; the library's own page is HTML.
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"
    #: Seconds without a byte after which a connection is closed.
    timeout = 60

    def do_POST(self) -> None:
        """Take a webhook."""
        listener = self.server.listener
        with listener.answering():
            length = self.headers.get("content-length", "")
            if not (length.isascii() and length.isdigit()):
                self._refuse(411, "it does not say its length")
            elif len(length) > 18 or int(length) > _LARGEST:
                self._refuse(413, f"its body is over {_LARGEST} bytes")
                self._discard()
            else:
                body = self.rfile.read(int(length))
                if len(body) < int(length):
                    self.close_connection = True
                    return
                self._send(listener.answer(self.path, dict(self.headers), body))
                listener.answered()

    def log_message(self, *_: object) -> None:
        """Say nothing: webhooks are shown, and requests come from anybody."""

    def _refuse(self, status: int, why: str) -> None:
        self.server.listener.refuse(status, why)
        self.close_connection = True
        self._send(status)

    def _send(self, status: int) -> None:
        self.send_response(status)
        if status not in {204, 304}:
            self.send_header("content-length", "0")
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()

    def _discard(self) -> None:
        """Read on for a while, or closing the connection would take the answer away from who still sends."""
        until = time.monotonic() + 5
        self.connection.settimeout(1)
        left = _DISCARDED
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < until and (chunk := self.rfile.read1(min(left, 1 << 16))):
                left -= len(chunk)


def _now() -> str:
    return rfc3339(datetime.now(UTC).replace(microsecond=0))


class _Typed(msgspec.Struct):
    type: str


def _type_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Typed).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "no type"


def _readable(body: bytes) -> str:
    """A body in lines, its numbers and strings as they came; what is not JSON as the text that it is."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        body = msgspec.json.format(body, indent=2)
    return printable(body.decode(errors="replace"), lines=True)
