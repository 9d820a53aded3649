"""Subscribers by event type, cached by each process, with a version that tells when to read again.

Reading ten thousand subscriptions for every batch would cost more than delivering it. Every change of a subscription
raises the version in its own transaction, and intake compares it in the statement that writes (events.intake). So the
cache may be stale, but never decides wrongly that there is no subscriber.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, Row, text

from notifier.runtime.isolation import attempt, kind_of
from notifier.vocabulary.addresses import without_password
from notifier.vocabulary.expressions import is_false, search
from notifier.vocabulary.masking import masked

log = structlog.get_logger()

#: Seconds for which an API process uses its cache without asking for the version.
_FRESH: Final = 1.0
#: Listeners of event types that are remembered, eight bytes each; and for how many a type itself counts.
_REMEMBERED: Final = 1_000_000
_A_TYPE: Final = 30

_VERSION: Final = text("SELECT version FROM listeners")
_ALL: Final = text("SELECT id, url, event_types, filter, enabled FROM subscriptions ORDER BY id")


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A subscription, as fan-out needs it."""

    id: UUID
    #: As it may be shown to others.
    url: str
    event_types: tuple[str, ...]
    filter: str | None
    enabled: bool

    def wants(self, view: Mapping[str, Any]) -> bool:
        """Return whether its filter lets an event (see notifier.planning.routes.view_of) through."""
        return self.filter is None or not is_false(search(self.filter, view))


def _subscriber(row: Row[Any]) -> Subscriber:
    """Read a stored subscription. Raises if it is invalid."""
    types = tuple(row.event_types)
    if not all(isinstance(pattern, str) for pattern in types):
        raise TypeError("a pattern of a subscription is no text")
    return Subscriber(row.id, masked(without_password(row.url)), types, row.filter, row.enabled)


class SubscriberIndex:
    """The listeners at one version, by event type."""

    def __init__(self, version: int, subscribers: Sequence[Subscriber]) -> None:
        """`subscribers`: in the order of their ids."""
        self.version = version
        self._subscribers = subscribers
        #: The places of those with an exact type, and with the beginning of one.
        self._exact: dict[str, list[int]] = {}
        self._beginning: dict[str, list[int]] = {}
        for place, each in enumerate(subscribers):
            for pattern in each.event_types:
                places, name = (self._beginning, pattern[:-1]) if pattern.endswith("*") else (self._exact, pattern)
                places.setdefault(name, []).append(place)
        self._by_type: dict[str, tuple[Subscriber, ...]] = {}
        self._room = _REMEMBERED

    def of(self, event_type: str) -> tuple[Subscriber, ...]:
        """Return the subscribers of a type, disabled ones too, ordered by id; filters are not applied."""
        found = self._by_type.get(event_type)
        if found is None:
            found = self._look_up(event_type)
            # Callers choose the types, and how many there are. Two threads may count one twice: it is a bound only.
            self._room -= len(found) + _A_TYPE
            if self._room < 0:
                self._by_type, self._room = {}, _REMEMBERED
            self._by_type[event_type] = found
        return found

    def is_heard(self, event_type: str) -> bool:
        """Return whether a type has subscribers, however many."""
        found = self._by_type.get(event_type)
        if found is not None:
            return bool(found)
        if event_type in self._exact or not self._beginning:
            return event_type in self._exact
        return any(event_type[:length] in self._beginning for length in range(len(event_type) + 1))

    def _look_up(self, event_type: str) -> tuple[Subscriber, ...]:
        """Look a type up in at most 130 steps, however many patterns exist (see vocabulary.event_types.matches)."""
        places = set(self._exact.get(event_type, ()))
        for length in range(len(event_type) + 1):
            places.update(self._beginning.get(event_type[:length], ()))
        return tuple(self._subscribers[place] for place in sorted(places))


class SubscriberCache:
    """This process's memory of the directory. Used by several threads at once."""

    def __init__(self) -> None:
        self._index: SubscriberIndex | None = None
        self._asked_at = -_FRESH
        self._lock = threading.Lock()

    def read(self, connection: Connection) -> SubscriberIndex:
        """Read the index as the connection's transaction sees it."""
        version = int(connection.scalar(_VERSION) or 0)
        index = self._index
        if index is None or index.version != version:
            # An unreadable subscription gets no events; the others do.
            read = (attempt("subscription", row.id, partial(_subscriber, row)) for row in connection.execute(_ALL))
            subscribers = tuple(each for each in read if isinstance(each, Subscriber))
            index = self._index = SubscriberIndex(version, subscribers)
        self._asked_at = time.monotonic()
        return index

    def at(self, engine: Engine, version: int) -> SubscriberIndex:
        """Return the index at a version, or a later one."""
        index = self._index
        if index is not None and index.version == version:
            return index
        with engine.connect() as connection:
            return self.read(connection)

    def recent(self, engine: Engine) -> SubscriberIndex:
        """Return the cached index at once; a thread of its own refreshes it if it is over a second old.

        Never waits for Postgres: the caller compares the index's version. Before the first reading the index is empty.
        """
        if time.monotonic() - self._asked_at >= _FRESH and self._lock.acquire(blocking=False):
            threading.Thread(target=self._refresh, args=(engine,), name="listeners", daemon=True).start()
        return self._index or _UNKNOWN

    def _refresh(self, engine: Engine) -> None:
        try:
            with engine.connect() as connection:
                self.read(connection)
        except BaseException as error:  # of a thread that is made anew in a second
            self._asked_at = time.monotonic()
            log.warning("listeners_not_read", error=kind_of(error))
        finally:
            self._lock.release()


#: Before anything was read. No version is 0, so whatever is decided by it is decided again.
_UNKNOWN: Final = SubscriberIndex(0, ())
