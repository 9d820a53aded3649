"""Circuit breaker: when to stop calling an endpoint or a provider, and which one call tests whether it has recovered.

    closed      calls go out; `failures_to_open` failures in a row open it
    open        no calls for `first_open` seconds, doubled after each probe that fails, up to `longest_open`
    half-open   one caller sends one message, the probe: a success closes the breaker, a failure opens it for longer

The rules are pure. Their users keep a breaker's state in a table and lock its row while they decide: providers.breakers
for providers, webhooks.endpoint_health and webhooks.endpoint_slots for endpoints. All times are seconds from now.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """The state of a breaker, by the names that metrics use."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The numbers of one kind of breaker."""

    failures_to_open: int
    first_open: float
    longest_open: float


@dataclass(frozen=True, slots=True)
class Circuit:
    """One breaker at one moment. Without arguments: closed, and no failures."""

    #: Failures in a row.
    failures: int = 0
    #: Length of the last open period, in seconds; 0 while it is closed.
    open_for: float = 0.0
    #: Seconds until it is half-open, 0 once it is; None while it is closed.
    open_left: float | None = None
    #: Seconds for which a probe under way keeps others from sending one, 0 once it is overdue; None without a probe.
    probe_left: float | None = None

    @property
    def state(self) -> State:
        """Closed, open or half-open."""
        if self.open_left is None:
            return State.CLOSED
        return State.OPEN if self.open_left > 0 else State.HALF_OPEN

    @property
    def is_closed(self) -> bool:
        """Whether calls go out as usual."""
        return self.state is State.CLOSED

    @property
    def probe_in(self) -> float | None:
        """Seconds until somebody may send a probe, 0 if that is now; None while it is closed."""
        return None if self.open_left is None else max(self.open_left, self.probe_left or 0.0)

    def take_probe(self, seconds: float) -> "Circuit | None":
        """Reserve the probe, so that nobody else sends one for so many seconds; None if there is none to take now."""
        return replace(self, probe_left=seconds) if self.probe_in == 0 else None

    def succeed(self) -> "Circuit":
        """Close the breaker and forget its failures."""
        return Circuit()

    def fail(self, thresholds: Thresholds, failures: int, *, probe_failed: bool) -> "Circuit":
        """Count more failures in a row. They open a closed breaker; an open or half-open one only if its probe failed.

        Calls that were under way when it opened say nothing new: if they opened it for longer, one outage would count
        as several.
        """
        counted = self.failures + failures
        if self.open_left is None:
            open_for = thresholds.first_open if counted >= thresholds.failures_to_open else None
        elif probe_failed and self.probe_left is not None:
            open_for = min(thresholds.longest_open, max(thresholds.first_open, 2 * self.open_for))
        else:
            open_for = None
        if open_for is None:
            return replace(self, failures=counted)
        return Circuit(counted, open_for, open_for)


def state_at(now: datetime, open_until: datetime | None) -> State:
    """Return the state of a breaker whose row says until when it is open; None while it is closed."""
    return Circuit(open_left=None if open_until is None else (open_until - now).total_seconds()).state
