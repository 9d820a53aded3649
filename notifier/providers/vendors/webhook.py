"""Webhooks: a signed POST to a receiver's URL.

| answer                                      | outcome                                                          |
|---------------------------------------------|------------------------------------------------------------------|
| 2xx                                         | accepted                                                         |
| 3xx (not followed), 4xx, 5xx                | unsent: a receiver may be in the middle of a deploy              |
| 410                                         | rejected, and that of the endpoint as a whole                    |
| a 4xx in the message's `permanent_statuses` | rejected                                                         |
| any other status                            | ambiguous: they received something                               |
| `url`, `address` (not a public one)         | rejected                                                         |
| `dns`, `refused`, `connect`, `tls`          | unsent: it happened before any of the request went out           |
| `timeout`, `reset`, `answer` (not HTTP)     | ambiguous where some of the request had gone out, else unsent    |

Once its head is complete, an answer counts by its status, however its body ends: at 64 KiB, at the deadline or by a
lost connection. Each attempt is one request (see `transfers`).
"""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Final
from uuid import UUID

from notifier.providers.http import headers
from notifier.providers.http.address_guard import Network
from notifier.providers.http.exchanges import Exchanges
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Exchange, Failure, Request
from notifier.providers.protocol import Message, Outcome, Result
from notifier.security import webhook_signatures

_GONE: Final = 410
_OUTCOME_OF_HUNDRED: Final = {2: Outcome.ACCEPTED, 3: Outcome.UNSENT, 4: Outcome.UNSENT, 5: Outcome.UNSENT}
_NONE: Final = frozenset[int]()
_PERMANENT_FAILURES: Final = frozenset({Failure.URL, Failure.ADDRESS})

_HEADERS: Final = (
    "content-type: application/json",
    USER_AGENT,
    "expect:",  # libcurl would ask first whether a large body is welcome, and wait a second for the answer
)


class Webhooks:
    """POSTs a message's text, which is JSON, to its recipient, a URL; signed by Standard Webhooks with every key.

    A connection that an earlier call left open is used again. A URL may carry a user and a password; they are sent
    as Basic authorization and shown nowhere.
    """

    name = "webhook"
    confirms_delivery = True

    def __init__(
        self,
        *,
        keys: Sequence[bytes],
        allowed_networks: Sequence[Network],
        timeout: float,
        concurrency: int = 64,
        allowed_ports: Collection[int] = (),
        root: bytes | None = None,
    ) -> None:
        """`root`: the key from which each host's key is derived, which signs first; then all of `keys` sign.

        `timeout`: the longest that one webhook may take in all, in seconds. `concurrency`: requests in flight in each
        `send`.

        Connects to public addresses and `allowed_networks` alone, and to `allowed_ports` alone if there are any.
        """
        self.timeout = timeout
        self._root = root
        self._keys = tuple(keys)
        self._exchanges = Exchanges(
            timeout=timeout, allowed_networks=allowed_networks, concurrency=concurrency, allowed_ports=allowed_ports
        )

    def takes(self, recipient: str) -> bool:
        """See Provider."""
        del recipient
        return True

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """See Provider."""
        permanent: dict[UUID, frozenset[int]] = {}
        with closing(self._exchanges.send(self._requests(messages, permanent))) as exchanges:
            for finished in exchanges:
                yield [self._result(each, permanent.pop(each.request.id, _NONE)) for each in finished]

    def close(self) -> None:
        """Close idle connections."""
        self._exchanges.close()

    def _requests(self, messages: Iterator[Message], permanent: dict[UUID, frozenset[int]]) -> Iterator[Request]:
        """Yield the requests of some messages; the statuses that are final for them are added to `permanent`."""
        for message in messages:
            if message.permanent_statuses:
                permanent[message.id] = message.permanent_statuses
            yield self._request(message)

    def _request(self, message: Message) -> Request:
        body = message.text.encode(errors="replace")
        signed = webhook_signatures.headers(
            message.keys or self._keys_for(message.recipient), message.id, int(time.time()), body
        )
        lines = [*_HEADERS, *(f"{name}: {value}" for name, value in signed.items())]
        if message.traceparent is not None:
            lines.append(f"traceparent: {message.traceparent}")
        # Without a value libcurl would leave the header out: a semicolon says that it is meant to be empty.
        lines += [f"{name}: {value}" if value.strip() else f"{name};" for name, value in message.headers]
        return Request(id=message.id, url=message.recipient, headers=lines, body=body)

    def _keys_for(self, url: str) -> tuple[bytes, ...]:
        """Return the keys that sign webhooks that are addressed to a URL directly."""
        if self._root is None:
            return self._keys
        try:
            return (webhook_signatures.key_for(self._root, url), *self._keys)
        except ValueError:  # nothing can be sent there, as the transfer will say
            return self._keys

    def _result(self, exchange: Exchange, permanent: Collection[int]) -> Result:
        outcome = _outcome(exchange, permanent)
        return Result(
            id=exchange.request.id,
            outcome=outcome,
            provider=self.name,
            started_at=exchange.started_at,
            duration_ms=exchange.duration_ms,
            status_code=exchange.status_code,
            error=None if outcome is Outcome.ACCEPTED else _error(exchange),
            response_excerpt=exchange.excerpt,
            retry_after=exchange.retry_after,
            request_headers=headers.of_request(exchange.request.headers),
            response_headers=None if exchange.status_code is None else headers.of_response(exchange.head),
            timing=exchange.timing,
        )


def _outcome(exchange: Exchange, permanent: Collection[int]) -> Outcome:
    status = exchange.status_code
    if status is not None:
        if status == _GONE or status in permanent:
            return Outcome.REJECTED
        return _OUTCOME_OF_HUNDRED.get(status // 100, Outcome.AMBIGUOUS)
    if exchange.failure in _PERMANENT_FAILURES:
        return Outcome.REJECTED
    return Outcome.AMBIGUOUS if exchange.sent else Outcome.UNSENT


def _error(exchange: Exchange) -> str:
    if exchange.failure is None:
        return f"http {exchange.status_code}"
    hint = ""
    if exchange.failure is Failure.ADDRESS:
        what = "PORTS" if exchange.detail.startswith("port ") else "NETWORKS"
        hint = f"; NOTIFIER_WEBHOOK_ALLOWED_{what} can allow it"
    return f"{exchange.failure}: {exchange.detail}{hint}"
