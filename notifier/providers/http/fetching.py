"""Fetching: one GET to a vendor, guarded like every call (see `transfers`), for certificates and confirmations."""

from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from typing import Final
from uuid import UUID

from notifier.providers.http.address_guard import Network
from notifier.providers.http.exchanges import Exchanges
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import READ_AT_MOST, Request

#: Seconds for all of it: a request of a vendor waits for it.
_TIMEOUT: Final = 5.0
_HEADERS: Final = (USER_AGENT,)
_NO_ID: Final = UUID(int=0)


class Unreachable(Exception):
    """The server gave no 200 within the bounds; the text names the failure in a word."""


def fetch(url: str, allowed_networks: Sequence[Network] = ()) -> bytes:
    """Fetch the content at a URL. Raises Unreachable, also where the content has 64 KiB or more."""
    request = Request(_NO_ID, url, [*_HEADERS], b"", method="GET")
    exchanges = Exchanges(timeout=_TIMEOUT, allowed_networks=allowed_networks, concurrency=1, keep=READ_AT_MOST)
    with closing(exchanges):
        [exchange] = chain.from_iterable(exchanges.send(iter([request])))
    if exchange.status_code != 200:
        raise Unreachable(f"http {exchange.status_code}" if exchange.status_code else f"{exchange.failure}")
    if len(exchange.body) >= READ_AT_MOST:
        raise Unreachable("too large")
    return exchange.body
