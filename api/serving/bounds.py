"""Bounds: what one API process grants to callers before it knows that they mean well."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from api.key_cache import neighbourhood

if TYPE_CHECKING:
    from config.parsers import Network
    from config.settings import Settings

#: The longest head of a request, in bytes, and the most headers in it.
MAX_HEAD: Final = 32 * 1024
MAX_HEADERS: Final = 100
#: A body up to here is always taken in, whatever else is being read: it is no longer than a head.
SMALL_BODY: Final = 16 * 1024
#: The least bytes a second are asked for after so many seconds, or so much of the time that there is.
_RATE_GRACE: Final = (5.0, 0.25)
#: A caller may take so long to read an answer, and a second more for each so many bytes.
ANSWER_SECONDS: Final = 30.0
ANSWER_RATE: Final = 64 * 1024
#: Bytes of answers that callers have not read yet, in all.
UNREAD_ANSWERS: Final = 64 * 1024 * 1024
#: After a refusal so many bytes are read for nothing, for so long: else the caller might not see why.
LINGER_BYTES: Final = 1024 * 1024
LINGER_SECONDS: Final = 2.0
#: Requests without a key may fill this part of the memory for bodies.
_PART_OF_STRANGERS: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one process; times in seconds."""

    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    body_seconds: float = 30.0
    body_rate: int = 1024
    body_bytes: int = 64 * 1024 * 1024
    connections: int = 2000
    connections_per_address: int = 100
    trusted_proxies: tuple[Network, ...] = ()

    @property
    def rate_grace(self) -> float:
        """After how long a body must come as fast as is asked."""
        return min(_RATE_GRACE[0], self.body_seconds * _RATE_GRACE[1])

    @classmethod
    def of(cls, settings: Settings, descriptors: int) -> Bounds:
        """Return the bounds by the settings, in a process that may open so many files and sockets."""
        return cls(
            head_seconds=settings.head_timeout.total_seconds(),
            idle_seconds=settings.idle_timeout.total_seconds(),
            body_seconds=settings.body_timeout.total_seconds(),
            body_rate=settings.body_rate,
            body_bytes=settings.body_memory,
            # The rest is for Postgres, Redis and files.
            connections=max(64, min(settings.connections, descriptors - 256)),
            connections_per_address=settings.connections_per_address,
            trusted_proxies=settings.trusted_proxies,
        )


class Addresses:
    """The address that a connection comes from, and how many have come from there."""

    def __init__(self, bounds: Bounds) -> None:
        self._most, self._trusted = bounds.connections_per_address, bounds.trusted_proxies
        self._open: Counter[str] = Counter()

    def is_trusted(self, address: str) -> bool:
        """Return whether an address is that of a trusted proxy."""
        if not self._trusted:
            return False
        try:
            given = ipaddress.ip_address(address)
        except ValueError:
            return False
        given = getattr(given, "ipv4_mapped", None) or given
        return any(given in network for network in self._trusted)

    def client(self, peer: str, forwarded_for: str) -> str:
        """Return the client's address: the last in X-Forwarded-For that is not a trusted proxy."""
        if not self.is_trusted(peer):
            return peer
        for named in reversed(forwarded_for.split(",")):
            address = named.strip()
            try:
                ipaddress.ip_address(address)
            except ValueError:
                break
            if not self.is_trusted(address):
                return address
            peer = address
        return peer

    def enter(self, peer: str) -> str | None:
        """Count a connection; returns the name to leave under, and None where there are too many from there."""
        if peer in {"127.0.0.1", "::1", ""} or self.is_trusted(peer):
            return ""
        name = neighbourhood(peer)
        if self._open[name] >= self._most:
            return None
        self._open[name] += 1
        return name

    def leave(self, name: str) -> None:
        """Count a connection no more."""
        if name and self._open[name] > 1:
            self._open[name] -= 1
        else:
            self._open.pop(name, None)


class BodyBudget:
    """The bytes of all bodies that are being read or worked on."""

    def __init__(self, most: int) -> None:
        self._most, self._strangers = most, most // _PART_OF_STRANGERS
        self._taken = {True: 0, False: 0}

    def take(self, held: int, more: int, *, is_stranger: bool) -> bool:
        """Take memory for more of a body that has `held` bytes. False where there is none: never for a small one."""
        taken = self._taken
        beyond = self._strangers if is_stranger else self._most - self._strangers
        if held + more > SMALL_BODY and taken[is_stranger] + more > beyond:
            return False
        taken[is_stranger] += more
        return True

    def give_back(self, held: int, *, is_stranger: bool) -> None:
        """Give back what a body had."""
        self._taken[is_stranger] -= held
