"""When a request is repeated: exponential backoff with full jitter, and never before `Retry-After`."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: Answers that come before anything is done: the request took too long to arrive, or the key makes too many.
NOT_DONE: Final = frozenset({408, 429})
#: Answers after which the same request may succeed.
RETRIED: Final = NOT_DONE | {502, 503, 504}


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a request is repeated, and how long the waits before that are."""

    #: Repetitions of one request: N make N + 1 attempts.
    retries: int = 3
    #: The longest first wait, in seconds; each further one may be twice as long.
    backoff: float = 0.5
    #: The longest wait, in seconds. An answer that asks for a longer one with `Retry-After` is not repeated.
    longest_wait: float = 30.0
    #: No attempt begins more than these seconds after the first one.
    deadline: float = 90.0
    #: Waits. It may raise, to give up.
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Raise ValueError for a policy that cannot be followed."""
        if self.retries < 0 or min(self.backoff, self.longest_wait, self.deadline) < 0:
            raise ValueError("retries, backoff, longest_wait and deadline must not be negative")

    def wait_before(self, retry: int, retry_after: float | None, elapsed: float) -> float | None:
        """Return the seconds to wait before a retry, counted from 0; None if there is to be none.

        `retry_after`: what the answer asked for; `elapsed`: seconds since the first attempt began.
        """
        if retry >= self.retries or (retry_after or 0.0) > self.longest_wait:
            return None
        # Full jitter, so that callers that failed together do not come back together.
        most = doubled(self.backoff, retry, self.longest_wait)
        wait = (retry_after or 0.0) + random.uniform(0, most)  # noqa: S311 -- spreads load, and guards nothing
        return wait if elapsed + wait <= self.deadline else None


def doubled(first: float, times: int, longest: float) -> float:
    """Return `first` seconds, doubled so many times, and never more than `longest`."""
    return min(first * 2.0 ** min(times, 30), longest)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as seconds or as a date; None if it is neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # all of them come, for texts that are no date
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())
