"""Kept connections: whether a further request may use the connection that an earlier request left open.

libcurl checks whether the server has closed a connection, but only once a second. `IdleSockets` checks before each
request, so that a request uses a new connection if the old one is known to be closed.

If a server closes a connection at the moment in which the next request goes out, that request is ambiguous: nobody can
tell whether it was read. Some servers do so after every answer without announcing it (`connection: close`). So after a
request was lost on a kept connection, its origin gets a new connection for each request for a while (`LossyOrigins`):
such a server may cost one request, not every second one.
"""

import select
import time
from typing import Final
from urllib.parse import urlsplit

#: The time for which an origin gets new connections after a loss, in seconds.
_PERIOD: Final = 60.0
#: The most origins that are remembered; the oldest is forgotten first.
_MOST_ORIGINS: Final = 1000

#: The addresses and ports of a connection's two ends.
Ends = tuple[object, ...]


class IdleSockets:
    """The sockets of one thread's idle connections, by their ends."""

    def __init__(self, most: int, *, multiplexed: bool) -> None:
        """`most`: how many are remembered; the oldest is forgotten first. `multiplexed`: servers speak at any time."""
        self._most = most
        # An answer to nothing (a 408 to an idle connection) would be taken for that to the next request.
        self._events = select.POLLRDHUP if multiplexed else select.POLLRDHUP | select.POLLIN
        self._descriptors: dict[Ends, int] = {}

    def add(self, ends: Ends, descriptor: int) -> None:
        """Remember the socket of a connection that has become idle."""
        self._descriptors[ends] = descriptor
        if len(self._descriptors) > self._most:
            del self._descriptors[next(iter(self._descriptors))]

    def take(self, ends: Ends) -> bool:
        """Forget a connection that is to be used; return False where the server has closed it or spoken."""
        descriptor = self._descriptors.pop(ends, None)
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, self._events)  # POLLHUP and POLLERR are implied
        return not poll.poll(0)


class LossyOrigins:
    """The origins that have lately lost a request on a kept connection. Used by several threads at once."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def has(self, url: str) -> bool:
        """Return whether a URL's origin is one of them."""
        return bool(self._until) and self._until.get(_origin(url), 0.0) > time.monotonic()

    def add(self, url: str) -> None:
        """Remember that a request to a URL was lost on a kept connection."""
        origin = _origin(url)
        self._until.pop(origin, None)  # to be the newest
        self._until[origin] = time.monotonic() + _PERIOD
        while len(self._until) > _MOST_ORIGINS:
            self._until.pop(next(iter(self._until.copy())), None)


def _origin(url: str) -> str:
    """Return scheme, host and port of a URL, as far as they can be read."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()
