"""Buffer: events that wait to be sent, first in, first out, and no more of them than it may hold."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from notifier_client.batches import MAX_BYTES, MAX_EVENTS, Prepared


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a batch is sent, and how much may wait."""

    #: A batch is sent once it has so many events,
    max_events: int = MAX_EVENTS
    #: or so many bytes,
    max_bytes: int = MAX_BYTES
    #: or its first event has waited so many seconds.
    max_seconds: float = 1.0
    #: Events that may wait, those in flight among them.
    capacity: int = 10_000
    #: Bytes that may wait.
    capacity_bytes: int = 64_000_000

    def __post_init__(self) -> None:
        """Raise ValueError for limits that nothing could pass."""
        if min(self.max_events, self.max_bytes, self.capacity, self.capacity_bytes) < 1 or self.max_seconds < 0:
            raise ValueError("limits must be positive")


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in a buffer."""

    #: Its number, from 1, in the order in which events were added.
    number: int
    #: When it was added, on the monotonic clock.
    at: float
    event: Prepared

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.event.body)


class Buffer:
    """Events between those who add them and the one thread that sends them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: deque[Entry] = deque()
        self._in_flight: list[Entry] = []
        self._waiting_bytes = 0
        self._in_flight_bytes = 0
        self._added = 0
        #: Events up to this number are sent at once.
        self._pressed = 0
        self._closed = False
        self._stopped = False

    def put(self, event: Prepared, timeout: float | None) -> bool:
        """Add an event once there is room; return False if there is none within `timeout` seconds, or it is closed."""
        with self._changed:
            size = len(event.body)
            if not self._changed.wait_for(lambda: self._closed or self._has_room(size), timeout) or self._closed:
                return False
            self._added += 1
            self._waiting.append(Entry(self._added, time.monotonic(), event))
            self._waiting_bytes += size
            self._changed.notify_all()
            return True

    def _has_room(self, size: int) -> bool:
        events = len(self._waiting) + len(self._in_flight)
        total = self._waiting_bytes + self._in_flight_bytes + size
        # An event that is larger than all that may wait goes alone.
        return events < self._limits.capacity and (total <= self._limits.capacity_bytes or not events)

    def take(self) -> list[Entry]:
        """Wait for a batch and return it: it is in flight until `settle`. Nothing comes once it is closed and empty."""
        with self._changed:
            while self._stopped or not self._is_ripe():
                if self._closed:
                    return []
                self._changed.wait(self._seconds_left())
            self._in_flight = self._next_batch()
            self._in_flight_bytes = sum(each.size for each in self._in_flight)
            self._waiting_bytes -= self._in_flight_bytes
            return list(self._in_flight)

    def _is_ripe(self) -> bool:
        """Return whether a batch is to be sent."""
        if not self._waiting:
            return False
        full = len(self._waiting) >= self._limits.max_events or self._waiting_bytes >= self._limits.max_bytes
        pressed = self._waiting[0].number <= self._pressed
        return full or pressed or self._closed or (self._seconds_left() or 0.0) <= 0

    def _seconds_left(self) -> float | None:
        """Return how long the first event may still wait; None if there is none."""
        if not self._waiting:
            return None
        return self._waiting[0].at + self._limits.max_seconds - time.monotonic()

    def _next_batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._waiting and len(batch) < self._limits.max_events:
            size += self._waiting[0].size
            if batch and size > self._limits.max_bytes:
                break
            batch.append(self._waiting.popleft())
        return batch

    def settle(self, back: Sequence[Entry] = ()) -> None:
        """End the flight of a batch. Those of it in `back` wait again, before all others."""
        with self._changed:
            if not self._in_flight:
                return  # it was drained meanwhile
            self._waiting.extendleft(reversed(back))
            self._waiting_bytes += sum(each.size for each in back)
            self._in_flight, self._in_flight_bytes = [], 0
            self._changed.notify_all()

    def flush(self, timeout: float | None) -> bool:
        """Have all sent that was added before now; return whether none of it is left within `timeout` seconds."""
        with self._changed:
            goal = self._pressed = self._added
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._stopped or self._oldest() > goal, timeout) and not self._stopped

    def _oldest(self) -> int:
        """Return the number of the oldest event that is left, or of the next one to be added."""
        left = [each[0].number for each in (self._in_flight, self._waiting) if each]
        return min(left, default=self._added + 1)

    def close(self) -> None:
        """Take no more events; what waits is sent at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Take no more events; what waits is not sent."""
        with self._changed:
            self._closed = self._stopped = True
            self._changed.notify_all()

    def wait_until_empty(self, timeout: float | None) -> None:
        """Wait until nothing waits or is in flight, or it is stopped, for `timeout` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not (self._waiting or self._in_flight), timeout)

    def pause(self, seconds: float) -> None:
        """Wait so long, or until it is closed or drained."""
        with self._changed:
            was_closed = self._closed
            self._changed.wait_for(lambda: self._closed != was_closed or not self._waiting, seconds)

    def drain(self) -> list[Prepared]:
        """Take out all that is left, in flight or waiting."""
        with self._changed:
            left = [each.event for each in (*self._in_flight, *self._waiting)]
            self._waiting.clear()
            self._in_flight = []
            self._waiting_bytes = self._in_flight_bytes = 0
            self._changed.notify_all()
            return left

    def __len__(self) -> int:
        """Return how many events wait or are in flight."""
        with self._changed:
            return len(self._waiting) + len(self._in_flight)
