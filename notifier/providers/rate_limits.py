"""Rate limits: messages a second for a provider and for one recipient, requests a second of an API key.

A provider's slots (providers.slots) and the end of its line are on its row in Postgres, which all workers share. The
limits of recipients and keys are counted in Redis, or in each process alone while Redis is away.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage, Storage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from sqlalchemy import Connection, Engine, text

from notifier.providers.slots import PATIENCE, Grant, Line, grant
from notifier.vocabulary import deferrals
from notifier.vocabulary.addresses import hash_of
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel

log = structlog.get_logger()

Counter = TypeVar("Counter")
Answer = TypeVar("Answer")

#: Seconds for which Redis is left alone after it has failed.
_REDIS_PAUSE: Final = 5.0
#: Vendors refuse what is over their limit, so a message that has not waited goes only once its slot has begun.
_FRESH_EARLY: Final = 0.0

_LOCK: Final = text("""
    INSERT INTO providers AS known (channel, name) VALUES (:channel, :name)
    ON CONFLICT (channel, name) DO UPDATE SET name = excluded.name
    RETURNING coalesce(greatest(extract(epoch FROM known.next_slot - now()), 0), 0) AS next_slot,
        coalesce(greatest(extract(epoch FROM known.line_until - now()), 0), 0) AS last_place
""")
_TAKE: Final = text("""
    UPDATE providers SET next_slot = now() + :next_slot * interval '1 second'
    WHERE channel = :channel AND name = :name
""")
_LINE_UP: Final = text("""
    UPDATE providers SET line_until = now() + :seconds * interval '1 second' WHERE channel = :channel AND name = :name
""")


def _lock(connection: Connection, channel: Channel, name: str) -> Line:
    row = connection.execute(_LOCK, {"channel": channel.value, "name": name}).one()
    return Line(float(row.next_slot), float(row.last_place))


def _take(connection: Connection, channel: Channel, name: str, line: Line, granted: Grant) -> None:
    if granted.next_slot != line.next_slot:
        connection.execute(_TAKE, {"channel": channel.value, "name": name, "next_slot": granted.next_slot})


def take_slots(
    connection: Connection, channel: Channel, name: str, rate: float, *, waited: int, fresh: int
) -> tuple[int, float]:
    """Take slots of a provider; returns how many messages may go now, and in how many seconds the first of the others.

    `waited` messages have been deferred before, `fresh` ones have not. The others have a place every 1/rate seconds,
    from that first one on; see line_up.
    """
    line = _lock(connection, channel, name)
    granted = grant(line, rate, waited=waited, fresh=fresh, fresh_early=_FRESH_EARLY)
    _take(connection, channel, name, line, granted)
    return granted.free, granted.next_place


def line_up(connection: Connection, channel: Channel, name: str, seconds: float) -> None:
    """Record for how many seconds the last message in line waits; in the transaction of take_slots."""
    connection.execute(_LINE_UP, {"channel": channel.value, "name": name, "seconds": seconds})


def take_one(engine: Engine, channel: Channel, name: str, rate: float) -> bool:
    """Take one slot of a provider; return False if none has begun or others wait for it."""
    with engine.begin() as connection:
        line = _lock(connection, channel, name)
        granted = grant(line, rate, waited=0, fresh=1, fresh_early=_FRESH_EARLY)
        _take(connection, channel, name, line, granted)
    return granted.free == 1


# Rows may leave the line: they are cancelled, or another provider takes them. Then slots are free.
_IDLE: Final = text(f"""
    UPDATE providers idle SET line_until = NULL FROM (
        SELECT channel, name FROM providers WHERE line_until > now() + {PATIENCE} * interval '1 second'
            AND next_slot < now() - {PATIENCE} * interval '1 second'
        FOR UPDATE SKIP LOCKED
    ) AS free WHERE idle.channel = free.channel AND idle.name = free.name
    RETURNING idle.channel, idle.name
""")
# Rows that wait for their recipients' limits stay as they are.
# The release before this one says in `rule` alone what a row waits for. The next release drops that condition.
_MOVE_UP: Final = text(f"""
    UPDATE notifications SET due_at = now() WHERE id = ANY(ARRAY(
        SELECT id FROM notifications
        WHERE subscription_id IS NULL AND reason = '{Reason.THROTTLED}' AND due_at IS NOT NULL AND due_at > now()
            AND channel = :channel
            AND (:waits_for = ANY(waits_for) OR waits_for IS NULL AND starts_with(rule, :name || ' takes '))
        ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED
    ))
""")
_MOVED_AT_ONCE: Final = 500


def move_up(engine: Engine) -> int:
    """Make due the first rows in line for providers whose slots are unused; returns how many. Called by the clock."""
    moved = 0
    with engine.begin() as connection:
        for row in connection.execute(_IDLE).all():
            values = {"channel": row.channel, "name": row.name, "waits_for": deferrals.provider(row.name)}
            values["most"] = _MOVED_AT_ONCE
            moved += connection.execute(_MOVE_UP, values).rowcount
    return moved


@dataclass(frozen=True, slots=True)
class _Counting:
    limiter: MovingWindowRateLimiter

    def wait(self, limits: Sequence[RateLimitItem], key: str) -> float:
        """Count one more message if it fits in every limit, and return 0; else return the seconds until it fits."""
        full = [limit for limit in limits if not self.limiter.test(limit, key)]
        # If one limit is full, none is counted. Between the two looks another process may have taken the last place.
        full = full or [limit for limit in limits if not self.limiter.hit(limit, key)]
        ends = [self.limiter.get_window_stats(limit, key).reset_time for limit in full]
        return max(max(ends) - time.time(), 1.0) if ends else 0.0


class _Shared(Generic[Counter]):
    """A counter in Redis, replaced by one of this process while Redis is away."""

    def __init__(self, count_in: Callable[[Storage], Counter], shared: Storage | None) -> None:
        self._shared = None if shared is None else count_in(shared)
        self._own = count_in(MemoryStorage())
        self._silent_until = 0.0

    def ask(self, question: Callable[[Counter], Answer]) -> Answer:
        if self._shared is not None and time.monotonic() >= self._silent_until:
            try:
                return question(self._shared)
            except Exception as error:  # whatever the storage raises: too much is better than nothing
                self._silent_until = time.monotonic() + _REDIS_PAUSE
                log.warning("limits_not_shared", error=type(error).__name__)
        return question(self._own)


class RecipientLimits:
    """Limits of messages to one recipient over a channel. Used by several threads at once."""

    def __init__(self, channel: Channel, limits: Sequence[RateLimitItem], shared: Storage | None) -> None:
        """`shared`: where all processes count; None: each for itself."""
        self._channel = channel
        self._limits = tuple(limits)
        self._counters = _Shared(lambda storage: _Counting(MovingWindowRateLimiter(storage)), shared)

    @property
    def are_there(self) -> bool:
        """Whether the channel has any limits."""
        return bool(self._limits)

    def wait(self, recipient: str) -> float:
        """Return the seconds that a message to a recipient must wait; 0 if it may go now, and then it is counted."""
        key = f"{self._channel}:{hash_of(self._channel, recipient).hex()}"
        return self._counters.ask(lambda counting: counting.wait(self._limits, key))


class KeyLimits:
    """Limits of requests a second by API key. Used by several threads at once.

    A sliding window of two counters for each key, by the clock of Redis, in one call.
    """

    def __init__(self, shared: Storage | None) -> None:
        """`shared`: where all processes count; None: each for itself."""
        self._counters = _Shared(SlidingWindowCounterRateLimiter, shared)

    def allow(self, name: str, rate: int) -> bool:
        """Return whether a key may make one more request now; if so, it is counted."""
        limit = RateLimitItemPerSecond(rate)
        return self._counters.ask(lambda limiter: limiter.hit(limit, "api-key", name))
