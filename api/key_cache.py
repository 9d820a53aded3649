"""Cache of API keys in one process: found keys, unknown keys, and a limit on look-ups of unknown keys.

A look-up costs transactions. A flood of made-up keys must not reach Postgres, and must not lock out callers whose key
is known: a key counts towards the limit if it has never been found, and is not found this time either.
"""

import ipaddress
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine

from notifier.security import api_keys
from notifier.security.api_keys import Caller, Ended

#: A key that was found is not looked up again for this long, in seconds: so long a revoked one may still work.
_REMEMBERED: Final = 5.0
#: Nor is one that was not found: so long one that is made after it was tried may be refused.
_REFUSED: Final = 2.0
_MOST_REMEMBERED: Final = 10_000

#: Look-ups of unknown keys: at once, and then one more in so many seconds; for an address, and for all together.
_AN_ADDRESS: Final = (10, 1.0)
_ALL: Final = (50, 0.1)

#: The form of every key that was ever made: nothing else needs to be looked up.
_FORM: Final = re.compile(rf"{re.escape(api_keys.PREFIX)}[A-Za-z0-9_-]{{43}}", re.ASCII)


class TooManyUnknown(Exception):
    """Too many unknown keys came from an address. `retry_after`: in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many unknown keys; look again in {retry_after} s")
        self.retry_after = retry_after


class Allowance:
    """A limit for each name: `burst` at once, and one more in each `interval` seconds."""

    def __init__(self, burst: int, interval: float, clock: Callable[[], float]) -> None:
        self._room, self._interval, self._clock = (burst - 1) * interval, interval, clock
        #: When what each name has taken is paid back; the least lately used first.
        self._paid: dict[str, float] = {}

    def take(self, name: str) -> float:
        """Take one; returns 0, or the seconds in which there is one again."""
        now = self._clock()
        paid = max(self._paid.pop(name, now), now)
        wait = paid - now - self._room
        if len(self._paid) >= _MOST_REMEMBERED:
            self._paid.pop(next(iter(self._paid)))
        self._paid[name] = paid if wait > 0 else paid + self._interval
        return max(wait, 0.0)

    def give_back(self, name: str) -> None:
        """Give back one that was taken."""
        if name in self._paid:
            self._paid[name] -= self._interval


class KeyCache:
    """Looks keys up, and remembers the answers."""

    def __init__(self, engine: Callable[[], Engine], clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        #: Kept past their time as well: of what was a key once, another look-up is no attack.
        self._found: dict[bytes, tuple[Caller, float]] = {}
        self._unknown: dict[bytes, float] = {}
        #: Of those, the ones that were keys once.
        self._ended: dict[bytes, Ended] = {}
        self._lock = threading.Lock()
        self._by_address = Allowance(*_AN_ADDRESS, clock)
        self._by_all = Allowance(*_ALL, clock)

    def remembered(self, hashed: bytes) -> Caller | None:
        """Return the caller whose key has this hash, if it was looked up recently."""
        caller, until = self._found.get(hashed, (None, 0.0))
        return caller if self._clock() < until else None

    def find(self, key: str, address: str) -> Caller | None:
        """Return the owner of a key; None for an unknown one. `address`: the client's. Raises TooManyUnknown."""
        if not _FORM.fullmatch(key):
            return None
        hashed = api_keys.hash_of(key)
        caller = self.remembered(hashed)
        if caller is not None:
            return caller
        if self._clock() < self._unknown.get(hashed, 0.0):
            return None
        if hashed in self._found:
            return self._look(hashed)
        address = neighbourhood(address)
        self._take(address)
        caller, counts = None, False
        try:
            caller = self._look(hashed)
            counts = caller is None
        finally:
            if not counts:  # it is known, or Postgres did not answer
                self._give_back(address)
        return caller

    def find_hash(self, hashed: bytes) -> Caller | None:
        """Return the owner of the key with a hash, which is known to be one; None once it has ended."""
        caller = self.remembered(hashed)
        if caller is None and self._clock() >= self._unknown.get(hashed, 0.0):
            caller = self._look(hashed)
        return caller

    def _take(self, address: str) -> None:
        with self._lock:
            wait = self._by_address.take(address)
            if not wait:
                wait = self._by_all.take("")
                if wait:
                    self._by_address.give_back(address)
        if wait:
            raise TooManyUnknown(math.ceil(wait))

    def _give_back(self, address: str) -> None:
        with self._lock:
            self._by_address.give_back(address)
            self._by_all.give_back("")

    def ended(self, key: str) -> Ended | None:
        """Return the expired or revoked key that was just refused; None if it never was a key."""
        return self._ended.get(api_keys.hash_of(key))

    def _look(self, hashed: bytes) -> Caller | None:
        now = self._clock()  # before: a key is good for so long from Postgres' answer on, which takes its time to come
        found = api_keys.look_up_hash(self._engine(), hashed)
        caller = found if isinstance(found, Caller) else None
        with self._lock:
            if caller is None:
                self._found.pop(hashed, None)
                _make_room(self._unknown)
                self._unknown[hashed] = now + _REFUSED
                if isinstance(found, Ended):
                    _make_room(self._ended)
                    self._ended[hashed] = found
            else:
                self._unknown.pop(hashed, None)
                self._ended.pop(hashed, None)
                _make_room(self._found)
                self._found[hashed] = (caller, now + min(_REMEMBERED, caller.good_for))
        return caller


def neighbourhood(address: str) -> str:
    """Return an address as it is counted: for IPv6 its /64 network, since one customer has all its addresses."""
    if ":" not in address:
        return address
    try:
        given = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if given.ipv4_mapped is not None:
        return str(given.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(given) >> 64 << 64, 64)))


def _make_room(remembered: dict[bytes, Any]) -> None:
    if len(remembered) >= _MOST_REMEMBERED:
        remembered.pop(next(iter(remembered)))
