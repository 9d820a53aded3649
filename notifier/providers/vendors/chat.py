"""Chat services, through Apprise. A recipient is an Apprise URL, such as slack://TOKEN/CHANNEL.

| what Apprise says                              | outcome                                                       |
|------------------------------------------------|---------------------------------------------------------------|
| sent                                           | accepted                                                      |
| 401, 403, 404, 410                             | rejected, the recipient's fault: its URL holds the credentials |
| 429                                            | unsent, throttled                                             |
| 408, 5xx                                       | unsent, the provider's fault                                  |
| other 3xx (not followed) or 4xx, and a 2xx that says no | rejected                                             |
| no connection                                  | unsent, the provider's fault                                  |
| no answer                                      | ambiguous, the provider's fault                               |
| nothing that we understand                     | ambiguous, nobody's fault: it may be the URL's                |
| not done in time                               | ambiguous, the provider's fault                               |
| a service that asks a plugin to wait           | unsent, throttled                                             |
| earlier messages hang in all threads           | unsent, the provider's fault                                  |
| `address`: not a URL of an allowed service     | rejected                                                      |

The provider's faults above are nobody's fault where a service has no host of its own: the recipient names the host
then, and a few hanging hosts would open the breaker for all recipients.

Apprise reports failures in its log alone, so this module reads the log. Recipients may use the services that the DSN
names, by default hosted ones with hosts of their own: others would let strangers call any host, or read files. A URL
may name one target, so that a repeat duplicates nothing. No service supports idempotency. Apprise cuts texts that are
too long.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any, Final

import apprise
from apprise.plugins import url_to_dict

from notifier.providers.dsn import Context, Dsn
from notifier.providers.http.api import CannotSend, Verdict
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.vocabulary.uris import with_ascii_host

_HOSTED: Final = frozenset({"slack", "discord", "tgram", "gchat", "webex", "wxteams", "guilded", "flock", "lark"})
#: Options of an Apprise URL that would read files, lower our guard or undo our limits.
_FORBIDDEN: Final = frozenset(
    {
        "template",
        "verify",
        "cto",
        "rto",
        "redirect",
        "redirects",
        "overflow",
        "store",
        "tz",
        "retry",
        "wait",
        "optional",
    }
)
_SLICE: Final = 0.1
#: The longest wait that a service may ask for, in seconds.
_LONGEST_WAIT: Final = 24 * 3600.0
_CONCURRENCY: Final = 16

#: The status, in the words of the several plugins.
_STATUS: Final = re.compile(r"(?:error=|notification failed: |notification, code=)([1-5][0-9]{2})\b")
#: A response with status 200 that reports a failure.
_SAYS_NO: Final = re.compile(r"^\w+ rejected our notification: code=", re.MULTILINE)
#: The connection broke, or what came back was no answer.
_LOST: Final = re.compile(r"^(?:Socket|Lark|QQ Push|Spike\.sh|SpugPush) Exception", re.MULTILINE)
#: Errors of requests before any of a request was sent. TLS may break later, too.
_NO_CONNECTION: Final = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|connect timeout|Connection refused|ProxyError"
    r"|CERTIFICATE_VERIFY_FAILED|HANDSHAKE_FAILURE|ALERT_PROTOCOL_VERSION"
)


class _Ear(logging.Handler):
    """Hears what Apprise says on each thread, and keeps of it no payload."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._local = threading.local()

    def listen(self) -> list[str]:
        """Record the messages that are logged on this thread from now on."""
        self._local.heard = heard = list[str]()
        return heard

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        heard = getattr(self._local, "heard", None)
        says_why = isinstance(record.msg, str) and record.msg.startswith("Socket Exception")
        if heard is not None and (record.levelno >= logging.INFO or says_why):
            heard.append(record.getMessage())


_EAR: Final = _Ear()


def _overhear() -> None:
    """Have Apprise's log, which shows addresses, heard by us and nobody else."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    if _EAR not in logger.handlers:
        logger.addHandler(_EAR)
    # It warns of answers with malformed headers, and shows the URL that gave them.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


class _TooLong(Exception):
    """A plugin would wait and repeat its request, or has reached the deadline. `seconds`: how long it would wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def _until(deadline: float, throttle: Callable[..., None], heard: Sequence[str]) -> Callable[..., None]:
    """Return a plugin's `throttle`, which it calls before each request, so that no request begins after the deadline.

    Plugins wait as long as a service tells them to, and would send a message that has been given up and is sent again.
    A request that a service throttled is an attempt of its own, so the plugin's repeat ends here too. `heard`: its log.
    """

    def within(last_io: datetime | None = None, wait: float | None = None) -> None:
        was_throttled = any("rate limiting in effect" in line for line in heard)
        if wait or was_throttled or time.monotonic() >= deadline:
            raise _TooLong(wait or 0.0)
        throttle(last_io=last_io, wait=wait)
        if time.monotonic() >= deadline:
            raise _TooLong(0.0)

    return within


class Chat:
    """Sends to chat services, each message in a thread of its own. Used by several threads at once."""

    name = "apprise"
    confirms_delivery = False

    def __init__(self, *, services: frozenset[str], timeout: float) -> None:
        """`services`: the schemes of Apprise that recipients may use. `timeout`: seconds for one message in all."""
        self.timeout = timeout
        self._services = services
        self._asset = apprise.AppriseAsset(secure_logging=True, async_mode=False, http_redirects=False)
        #: A thread that is late keeps its place until it ends.
        self._places = threading.BoundedSemaphore(_CONCURRENCY * 2)
        _overhear()

    def takes(self, recipient: str) -> bool:
        """See Provider."""
        return "://" in recipient

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """See Provider."""
        finished: SimpleQueue[tuple[object, Verdict, int | None]] = SimpleQueue()
        under_way: dict[object, tuple[Message, datetime, float]] = {}
        has_ended = False
        had_place = time.monotonic()
        while True:
            while not has_ended and len(under_way) < _CONCURRENCY and self._places.acquire(blocking=False):
                had_place = time.monotonic()
                message = next(messages, None)
                if message is None:
                    self._places.release()
                    has_ended = True
                    break
                under_way[message.id] = (message, datetime.now(UTC), time.monotonic())
                threading.Thread(target=self._run, args=(message, finished), name="chat", daemon=True).start()
            if has_ended and not under_way:
                return
            results = self._settled(under_way, finished)
            # Places that nobody gave back for so long are held by threads that hang: they may do so for ever.
            if not has_ended and not under_way and time.monotonic() - had_place >= self.timeout:
                message = next(messages, None)
                has_ended = message is None
                results += [self._busy(message)] if message else []
            yield results

    def close(self) -> None:
        """See Provider; no connection is kept."""

    def _settled(
        self,
        under_way: dict[object, tuple[Message, datetime, float]],
        finished: SimpleQueue[tuple[object, Verdict, int | None]],
    ) -> list[Result]:
        """Return the finished and the late messages; waits a slice for the first."""
        said: list[tuple[object, Verdict, int | None]] = []
        with suppress(Empty):
            said.append(finished.get(timeout=_SLICE / 2))
            while True:
                said.append(finished.get_nowait())
        now = time.monotonic()
        spoken = {key for key, _, _ in said}
        late = Verdict(Outcome.AMBIGUOUS, f"timeout: no answer within {self.timeout:g} s", Fault.PROVIDER)
        said += [
            (key, late, None)
            for key, (_, _, began) in under_way.items()
            if now - began >= self.timeout and key not in spoken
        ]
        results = []
        for key, verdict, status in said:
            if key not in under_way:  # its time was over before it spoke
                continue
            message, started_at, began = under_way.pop(key)
            results.append(
                Result(
                    id=message.id,
                    outcome=verdict.outcome,
                    provider=self.name,
                    started_at=started_at,
                    duration_ms=(now - began) * 1000,
                    status_code=status,
                    fault=_fault(message, verdict),
                    error=verdict.error,
                    retry_after=verdict.retry_after,
                )
            )
        return results

    def _busy(self, message: Message) -> Result:
        """Return the result of a message for which there is no thread."""
        error = "busy: earlier messages hang in all threads"
        return Result(message.id, Outcome.UNSENT, self.name, datetime.now(UTC), 0.0, fault=Fault.PROVIDER, error=error)

    def _run(self, message: Message, finished: SimpleQueue[tuple[object, Verdict, int | None]]) -> None:
        status: int | None = None
        try:
            verdict, status = self._deliver(message, time.monotonic() + self.timeout)
        except CannotSend as error:
            verdict = Verdict(Outcome.REJECTED, str(error))
        except BaseException as error:  # an error of ours, or of a plugin's, sys.exit() too; it may have been sent
            verdict = Verdict(Outcome.AMBIGUOUS, f"internal: {type(error).__name__}")
        finally:
            self._places.release()
        finished.put((message.id, verdict, status))

    def _deliver(self, message: Message, deadline: float) -> tuple[Verdict, int | None]:
        plugin = self._plugin(message.recipient)
        heard = _EAR.listen()
        plugin.throttle = _until(deadline, plugin.throttle, heard)
        try:
            is_sent = plugin.notify(body=message.text, title=message.subject or "", body_format="text")
        except _TooLong as late:
            if any(line.startswith("Sent ") for line in heard):
                return _why_not(heard)
            error = "throttled: the chat service asks to wait"
            retry_after = min(late.seconds, _LONGEST_WAIT) or None
            return Verdict(Outcome.UNSENT, error, Fault.THROTTLED, retry_after=retry_after), None
        return (Verdict(Outcome.ACCEPTED), None) if is_sent else _why_not(heard)

    def _plugin(self, url: str) -> Any:  # noqa: ANN401  # one of a hundred classes of Apprise's
        """Return the plugin that sends to an address. Raises CannotSend."""
        scheme = url.partition("://")[0].lower()
        if scheme not in self._services:
            raise CannotSend("address: not of a chat service that is allowed here")
        try:
            parts = url_to_dict(with_ascii_host(url))  # type: ignore[no-untyped-call]  # Apprise has no types
        except Exception:  # plugins' parsers have many ways to say no
            parts = None
        # Apprise's own reading of the URL counts, not the text before the colon.
        if not parts or str(parts.get("schema")).lower() not in self._services:
            raise CannotSend(f"address: not one of {scheme}'s")
        forbidden = sorted(_FORBIDDEN & {str(name).lower() for name in parts.get("qsd") or ()})
        if forbidden or "template" in parts:
            raise CannotSend(f"address: has an option {(forbidden or ['template'])[0]!r}, which is not allowed")
        limit = max(self.timeout * 0.9, 0.05)
        parts |= {"cto": min(limit, 4.0), "rto": limit, "overflow": "truncate", "verify": True}
        plugin = apprise.Apprise.instantiate(parts, asset=self._asset)
        if plugin is None:
            raise CannotSend(f"address: not one of {scheme}'s")
        if len(plugin) > 1:
            raise CannotSend("address: names more than one target")
        return plugin


def _fault(message: Message, verdict: Verdict) -> Fault | None:
    """Return who is at fault: nobody, where the recipient names the host, which says nothing of other hosts."""
    is_hosted = message.recipient.partition("://")[0].lower() in _HOSTED
    return verdict.fault if is_hosted or verdict.fault is not Fault.PROVIDER else None


def _why_not(heard: Sequence[str]) -> tuple[Verdict, int | None]:
    """Return the reason and HTTP status from Apprise's log of a message that it could not send."""
    text = "\n".join(heard)
    found = _STATUS.findall(text)
    status = int(found[-1]) if found else None
    if any(line.startswith("Sent ") for line in heard):
        return Verdict(Outcome.AMBIGUOUS, "answer: sent in part", Fault.PROVIDER), status
    if status is not None:
        return _of_status(status), status
    if _NO_CONNECTION.search(text):
        return Verdict(Outcome.UNSENT, "connect: no connection to the chat service", Fault.PROVIDER), None
    if "Read timed out" in text:
        return Verdict(Outcome.AMBIGUOUS, "timeout: no answer from the chat service", Fault.PROVIDER), None
    if _SAYS_NO.search(text):
        return Verdict(Outcome.REJECTED, "http 200: the chat service says no"), 200
    if _LOST.search(text):
        return Verdict(Outcome.AMBIGUOUS, "reset: the connection was lost before an answer", Fault.PROVIDER), None
    # A plugin that found nobody to write to, for one, which a recipient's URL can bring about at will.
    return Verdict(Outcome.AMBIGUOUS, "answer: none that is understood"), None


def _of_status(status: int) -> Verdict:
    error = f"http {status}"
    if status in {401, 403, 404, 410}:
        return Verdict(Outcome.REJECTED, f"{error}: no such chat, or its address is revoked", Fault.RECIPIENT)
    if status == 429:
        return Verdict(Outcome.UNSENT, error, Fault.THROTTLED)
    if status == 408 or status >= 500:
        return Verdict(Outcome.UNSENT, error, Fault.PROVIDER)
    return Verdict(Outcome.REJECTED, f"{error}: the chat service says no")


def provider(dsn: Dsn, context: Context) -> Chat:
    """Create the provider of `apprise:` and `apprise:?services=slack,discord`. Raises ValueError."""
    options = dsn.options("services")
    if dsn.username or dsn.password or dsn.host or dsn.port or dsn.path or "tls" in options:
        raise ValueError("has more than services: apprise:?services=slack,discord")
    services = frozenset(name.strip().lower() for name in options["services"].split(",")) if options else _HOSTED
    known = {scheme for plugin in apprise.Apprise().details()["schemas"] for scheme in _schemes(plugin)}
    unknown = sorted(services - known)
    if unknown:
        raise ValueError(f"names a service {unknown[0]!r} that Apprise does not know: apprise:?services=slack,discord")
    return Chat(services=services, timeout=context.timeout)


def _schemes(plugin: dict[str, Any]) -> set[str]:
    return {*(plugin["protocols"] or ()), *(plugin["secure_protocols"] or ())}
