"""Email: SMTP (RFC 5321). The table of replies and outcomes is in `smtp_connection`."""

import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final, cast

from sqlalchemy.exc import SQLAlchemyError

from notifier.providers import unused_connections
from notifier.providers.dsn import Context, Dsn
from notifier.providers.formats.mailboxes import NotAMailbox, mailbox
from notifier.providers.formats.mime import Letter, write
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.providers.vendors.smtp_connection import Connection, Server, Tls, Verdict
from notifier.providers.vendors.smtp_return_paths import ReturnPaths, bounces_of

_SUBMISSION_PORT: Final = 587  # RFC 6409
_SUBMISSIONS_PORT: Final = 465  # RFC 8314
#: A connection idle for longer is not used again, in seconds: what lies between may have forgotten it silently.
_IDLE: Final = 30.0
_NO_DSN: Final = "is not an SMTP server: smtp://user:password@host:587?tls=starttls, or smtps:// for TLS from the start"
#: How long `send` goes without yielding, in seconds.
_SLICE: Final = 0.1


class Smtp:
    """Hands mail to one server, over connections that are kept and shared by all threads."""

    name = "smtp"
    confirms_delivery = False

    def __init__(
        self,
        *,
        host: str,
        port: int,
        username: str | None = None,
        password: str | None = None,
        tls: Tls,
        sender: str,
        timeout: float,
        connections: int = 8,
        tls_context: ssl.SSLContext | None = None,
        return_paths: ReturnPaths | None = None,
    ) -> None:
        """`sender`: `name@domain` or `Name <name@domain>`. `timeout`: seconds that one email may take in all.
        `connections`: emails in flight in each `send`.

        `tls`: "starttls" where the server offers it (unencrypted where it does not, and then without a login, which
        fails), "required" or not at all, "implicit" from the first byte, "none". Raises ValueError.
        """
        if not f"{username or ''}{password or ''}".isascii():
            raise ValueError("has a user or password with other than ASCII characters")  # smtplib sends no others
        try:
            self._sender = mailbox(sender)
        except ValueError:
            raise ValueError("has no sender: NOTIFIER_EMAIL_FROM is not a mailbox") from None
        self.timeout = timeout
        self._return_paths = return_paths
        #: Where mail is handed in.
        self.server = Server(
            host=host,
            port=port,
            username=username,
            password=password,
            tls=tls,
            context=tls_context or ssl.create_default_context(),
            timeout=timeout,
        )
        self._connections = connections
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        unused_connections.register(self)

    def takes(self, recipient: str) -> bool:
        """See Provider."""
        del recipient
        return True

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """See Provider."""
        finished: SimpleQueue[Result] = SimpleQueue()
        begun: SimpleQueue[_Attempt | None] = SimpleQueue()
        under_way: dict[object, _Attempt] = {}
        over = threading.Event()
        threads = ThreadPoolExecutor(self._connections + 1, thread_name_prefix="smtp")
        threads.submit(_watch, begun, over)
        try:
            while True:
                while len(under_way) < self._connections and (message := next(messages, None)) is not None:
                    attempt = under_way[message.id] = _Attempt(message, self.timeout, finished)
                    begun.put(attempt)
                    threads.submit(self._run, attempt)
                if not under_way:
                    return
                results = _take(finished)
                for result in results:
                    del under_way[result.id]
                yield results
        finally:
            over.set()
            begun.put(None)
            for attempt in under_way.values():
                attempt.expire()
            # Not waited for: one may be inside getaddrinfo(), which nothing can interrupt. It will send nothing.
            threads.shutdown(wait=False, cancel_futures=True)

    def check(self) -> str | None:
        """Log in to the server and leave, sending nothing. Returns why that cannot be done, or None."""
        return Connection(self.server).check()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.leave()

    def close_unused(self, now: float) -> None:
        """See Keeper."""
        oldest = now - _IDLE
        with self._lock:
            stale = [connection for connection in self._idle if connection.used_at < oldest]
            self._idle = [connection for connection in self._idle if connection.used_at >= oldest]
        for connection in stale:
            connection.leave()

    def _run(self, attempt: "_Attempt") -> None:
        try:
            letter = write(attempt.message, self._sender)
            if self._return_paths is not None:
                letter = replace(letter, sender=self._return_paths.of(attempt.message.id))
        except NotAMailbox:
            verdict = Verdict(Outcome.REJECTED, error="address: not a mailbox")
        except SQLAlchemyError as error:  # the return paths' key cannot be read now
            verdict = Verdict(Outcome.UNSENT, error=f"database: {type(error).__name__}")
        except BaseException as error:  # the email package has many ways to say no, and would in every attempt
            verdict = Verdict(Outcome.REJECTED, error=f"message: {type(error).__name__}")
        else:
            verdict = self._deliver(attempt, letter)
        attempt.settle(verdict)

    def _deliver(self, attempt: "_Attempt", letter: Letter) -> Verdict:
        kept = self._take_kept()
        connection = kept or Connection(self.server)
        try:
            verdict = attempt.over(connection, letter)
            if kept and verdict.untouched:
                connection = Connection(self.server)
                verdict = attempt.over(connection, letter)
        except BaseException as error:  # an error of ours; what is never settled would be waited for for ever
            connection.close()
            return Verdict(Outcome.AMBIGUOUS, error=f"internal: {type(error).__name__}", fault=Fault.PROVIDER)
        finally:
            attempt.hand_back()
        self._keep(connection)
        return verdict

    def _take_kept(self) -> Connection | None:
        """Return a connection that was used recently; close the others."""
        self.close_unused(time.monotonic())
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: Connection) -> None:
        if not connection.is_usable:
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)


class _Attempt:
    """One message under way, on one thread, with the watchdog looking on."""

    def __init__(self, message: Message, timeout: float, finished: SimpleQueue[Result]) -> None:
        self.message = message
        self._timeout = timeout
        self._finished = finished
        self._started_at = datetime.now(UTC)
        self._began = time.monotonic()
        self.deadline = self._began + timeout
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._is_late = False
        self._is_over = False
        self._is_settled = False

    def over(self, connection: Connection, letter: Letter) -> Verdict:
        """Deliver the letter over a connection, unless it is too late to begin."""
        with self._lock:
            if self._is_late:
                return Verdict(Outcome.UNSENT, fault=Fault.PROVIDER)
            self._connection = connection
        return connection.deliver(letter)

    def hand_back(self) -> None:
        """Leave the connection to the next message, so that this one does not cut it any more."""
        with self._lock:
            self._is_over = True

    def expire(self) -> None:
        """End it, whatever it is doing. Its thread says what became of it, where it can."""
        with self._lock:
            if self._is_over:
                return
            self._is_late = True
            its_thread_can = self._connection is not None and self._connection.cut()
        if not its_thread_can:
            self.settle(Verdict(Outcome.UNSENT, fault=Fault.PROVIDER))

    def settle(self, verdict: Verdict) -> None:
        """Say what became of it; the first word counts."""
        with self._lock:
            if self._is_settled:
                return
            self._is_settled = True
        lost = verdict.code is None and verdict.outcome in {Outcome.UNSENT, Outcome.AMBIGUOUS}
        self._finished.put(
            Result(
                id=self.message.id,
                outcome=verdict.outcome,
                provider=Smtp.name,
                started_at=self._started_at,
                duration_ms=(time.monotonic() - self._began) * 1000,
                status_code=verdict.code,
                fault=verdict.fault,
                error=f"timeout: no answer within {self._timeout:g} s" if lost and self._is_late else verdict.error,
                response_excerpt=verdict.reply,
            )
        )


def _watch(begun: SimpleQueue[_Attempt | None], over: threading.Event) -> None:
    """End each attempt at its deadline. All have the same time, so that their deadlines come in their order."""
    while (attempt := begun.get()) is not None:
        if over.wait(attempt.deadline - time.monotonic()):
            return
        attempt.expire()


def _take(finished: SimpleQueue[Result]) -> list[Result]:
    """Return the finished messages; waits a slice for the first."""
    results = []
    with suppress(Empty):
        results.append(finished.get(timeout=_SLICE))
        while True:
            results.append(finished.get_nowait())
    return results


def provider(dsn: Dsn, context: Context) -> Smtp:
    """Create the provider of an SMTP DSN. Raises ValueError.

    `smtp://user:password@host:587?tls=starttls|none|required` or `smtps://user:password@host:465`; user, password and
    port are optional.
    """
    options = dict(dsn.query)
    tls = options.pop("tls", "starttls") if dsn.scheme == "smtp" else "implicit"
    options.pop("bounces", None)
    bounces = bounces_of(dsn)
    if not dsn.host or dsn.path not in {"", "/"} or options:
        raise ValueError(_NO_DSN)
    if dsn.scheme == "smtp" and tls not in {"none", "starttls", "required"}:
        raise ValueError("has a tls that is not one of none, starttls, required")
    if (dsn.username is None) != (dsn.password is None):
        raise ValueError("has a user without a password, or the other way round")
    return Smtp(
        host=dsn.host,
        port=dsn.port or (_SUBMISSIONS_PORT if tls == "implicit" else _SUBMISSION_PORT),
        username=dsn.username,
        password=dsn.password,
        tls=cast(Tls, tls),
        sender=context.sender,
        timeout=context.timeout,
        return_paths=None if bounces is None else ReturnPaths(bounces, context.engine, context.vault),
    )
