"""HTTP APIs of vendors: the base class of their providers.

| answer                     | outcome                                    |
|----------------------------|--------------------------------------------|
| 2xx                        | accepted                                   |
| 401, 403                   | unsent, the provider's fault               |
| 429                        | unsent, throttled; its Retry-After counts  |
| 3xx (not followed), 408, 5xx | unsent, the provider's fault             |
| other 4xx                  | rejected                                   |
| `url`, `address`           | rejected                                   |
| no answer                  | ambiguous where some of the request had gone out, else unsent: the provider's fault |

A vendor's class builds the requests and interprets the vendor's own codes; for everything else this table applies.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import ip_network
from typing import Any, Final

import orjson

from notifier.providers.http import headers
from notifier.providers.http.address_guard import Network
from notifier.providers.http.exchanges import Exchanges
from notifier.providers.http.transfers import READ_AT_MOST, Exchange, Failure, Request
from notifier.providers.protocol import Fault, Message, Outcome, Result

#: An operator's own setting says where these go, so that no address is kept from them.
EVERYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
#: Requests in flight in one `send`.
_CONCURRENCY: Final = 32

_UNREACHABLE: Final = frozenset({Failure.URL, Failure.ADDRESS})


class CannotSend(Exception):
    """A message that the vendor could never take; its text is a class and a safe detail. It is rejected unsent."""


class NotNow(Exception):
    """A message that cannot go out at present, by the provider's fault; its text is a class and a safe detail."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of an answer; see Result for the fields."""

    outcome: Outcome
    error: str | None = None
    fault: Fault | None = None
    message_id: str | None = None
    retry_after: float | None = None
    suppress: str | None = None


class Answer:
    """A vendor's answer, its head complete."""

    def __init__(self, exchange: Exchange, status: int) -> None:
        self.exchange = exchange
        self.status = status

    @cached_property
    def document(self) -> dict[str, Any]:
        """Its body, where that is a JSON object; else an empty one."""
        try:
            document = orjson.loads(self.exchange.body)
        except orjson.JSONDecodeError:
            return {}
        return document if isinstance(document, dict) else {}

    def text(self, *path: str | int) -> str | None:
        """Return a text or a number from the document, at most 64 characters of it."""
        found: Any = self.document
        for step in path:
            try:
                found = found[step]
            except (LookupError, TypeError):
                return None
        is_plain = isinstance(found, str | int) and not isinstance(found, bool)
        return str(found).replace("\0", "")[:64] or None if is_plain else None

    def header(self, name: str) -> str | None:
        """Return the first value of a header, at most 256 characters."""
        value = self.exchange.header(name)
        return value[:256] if value else None


def by_status(answer: Answer, detail: str | None = None) -> Verdict:
    """Return the verdict of the table above. `detail` (the vendor's code, in safe words) is added to the error."""
    error = f"http {answer.status}" + (f": {detail}" if detail else "")
    match answer.status:
        case status if 200 <= status < 300:
            return Verdict(Outcome.ACCEPTED)
        case 401 | 403:
            return Verdict(Outcome.UNSENT, error, Fault.PROVIDER)
        case 429:
            return Verdict(Outcome.UNSENT, error, Fault.THROTTLED, retry_after=answer.exchange.retry_after)
        case status if 400 <= status < 500 and status != 408:
            return Verdict(Outcome.REJECTED, error)
        case status if 300 <= status < 400 or 500 <= status < 600 or status == 408:
            return Verdict(Outcome.UNSENT, error, Fault.PROVIDER, retry_after=answer.exchange.retry_after)
        case _:
            return Verdict(Outcome.AMBIGUOUS, error, Fault.PROVIDER)


def shortened(text: str, most: int) -> str:
    """Return the text if it takes at most so many bytes in JSON, else its beginning and an ellipsis that do."""
    text = text[: most + 1].encode(errors="replace").decode()
    if len(orjson.dumps(text)) - 2 <= most:
        return text
    room = most - len("…".encode())
    for at, character in enumerate(text):
        room -= len(orjson.dumps(character)) - 2
        if room < 0:
            return text[:at] + "…"
    return text


def accepted_as(answer: Answer, message_id: str | None) -> Verdict:
    """Accept under the vendor's id; a success without an id comes from another server, and is ambiguous."""
    if message_id is None:
        return Verdict(Outcome.AMBIGUOUS, f"answer: http {answer.status}, but not as documented", Fault.PROVIDER)
    return Verdict(Outcome.ACCEPTED, message_id=message_id)


class HttpApi(ABC):
    """A provider whose messages are one POST each. Used by several threads at once."""

    name: str
    confirms_delivery = False

    def __init__(
        self, *, timeout: float, allowed_networks: Sequence[Network] = EVERYWHERE, http2: bool = False
    ) -> None:
        """`timeout`: seconds that one message may take in all. `http2`: ask for HTTP/2 over TLS."""
        self.timeout = timeout
        self._exchanges = Exchanges(
            timeout=timeout,
            allowed_networks=allowed_networks,
            concurrency=_CONCURRENCY,
            keep=READ_AT_MOST,
            http2=http2,
        )

    def takes(self, recipient: str) -> bool:
        """See Provider."""
        del recipient
        return True

    @abstractmethod
    def request(self, message: Message) -> Request:
        """Build the POST that sends a message; its `id` is the message's. Raises CannotSend and NotNow."""

    @abstractmethod
    def judge(self, answer: Answer) -> Verdict:
        """Interpret an answer, whatever it is."""

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """See Provider."""
        impossible: list[Result] = []
        with closing(self._exchanges.send(self._requests(messages, impossible))) as exchanges:
            for finished in exchanges:
                results = [self._result(exchange) for exchange in finished] + impossible
                impossible.clear()
                yield results
        if impossible:
            yield impossible

    def close(self) -> None:
        """Close idle connections."""
        self._exchanges.close()

    def _requests(self, messages: Iterator[Message], impossible: list[Result]) -> Iterator[Request]:
        """Yield the requests of some messages; those that can never be sent, or not now, are added to `impossible`."""
        for message in messages:
            outcome, fault = Outcome.REJECTED, None
            try:
                request = self.request(message)
            except NotNow as error:
                outcome, fault, reason = Outcome.UNSENT, Fault.PROVIDER, str(error)
            except CannotSend as error:
                reason = str(error)
            except Exception as error:  # an error of ours: the message fails, its neighbours do not
                reason = f"message: {type(error).__name__}"
            else:
                if message.traceparent is not None:
                    request = replace(request, headers=[*request.headers, f"traceparent: {message.traceparent}"])
                yield request
                continue
            now = datetime.now(UTC)
            impossible.append(Result(message.id, outcome, self.name, now, 0.0, fault=fault, error=reason))

    def _result(self, exchange: Exchange) -> Result:
        verdict = self._verdict(exchange)
        return Result(
            id=exchange.request.id,
            outcome=verdict.outcome,
            provider=self.name,
            started_at=exchange.started_at,
            duration_ms=exchange.duration_ms,
            status_code=exchange.status_code,
            fault=verdict.fault,
            suppress=verdict.suppress,
            message_id=verdict.message_id,
            error=verdict.error,
            response_excerpt=exchange.excerpt,
            retry_after=verdict.retry_after,
            request_headers=headers.of_request(exchange.request.headers),
            response_headers=None if exchange.status_code is None else headers.of_response(exchange.head),
            timing=exchange.timing,
        )

    def _verdict(self, exchange: Exchange) -> Verdict:
        if exchange.status_code is None:
            error = f"{exchange.failure}: {exchange.detail}"
            if exchange.failure in _UNREACHABLE:
                return Verdict(Outcome.REJECTED, error)
            return Verdict(Outcome.AMBIGUOUS if exchange.sent else Outcome.UNSENT, error, Fault.PROVIDER)
        try:
            return self.judge(Answer(exchange, exchange.status_code))
        except Exception as error:  # an error of ours; the message is out, whatever this answer says
            return Verdict(Outcome.AMBIGUOUS, f"internal: {type(error).__name__}", Fault.PROVIDER)
