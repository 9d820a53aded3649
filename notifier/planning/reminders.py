"""Send times: at once, at a given time, so long before a target, or not any more. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from notifier.vocabulary.durations import Duration, parse_iso
from notifier.vocabulary.states import Status

#: The lead time of a reminder that comes at its target itself.
AT_THE_TARGET: Final = "PT0S"


def instant_of(wall_clock: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment, in UTC, at which clocks of a zone show `wall_clock` (naive).

    If that time occurs twice, returns the first; if a clock change skips it, the first moment after the gap.
    """
    before = wall_clock.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if before.astimezone(zone).replace(tzinfo=None) == wall_clock:
        return before
    # Skipped. Read with the offset after the change it lies before the change, and the other way round.
    low, high = wall_clock.replace(tzinfo=zone, fold=1).astimezone(UTC), before
    offset = high.astimezone(zone).utcoffset()
    while high - low > timedelta(microseconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high


def moment_before(target: datetime, lead: Duration, zone: ZoneInfo) -> datetime:
    """Return the moment `lead` before `target`, in UTC: days are counted on the wall clock of `zone`, the rest exactly.

    Raises OverflowError if that is before the calendar begins.
    """
    moment = target.astimezone(UTC)
    if lead.days:
        moment = instant_of(target.astimezone(zone).replace(tzinfo=None) - timedelta(days=lead.days), zone)
    return moment - lead.exact


def deadline_of(expires_at: datetime | None, target_date: datetime | None, lead_time: str | None) -> datetime | None:
    """Return the moment from which a notification is not sent any more: a reminder is useless after its target.

    A reminder for the target's own moment has no deadline but its `expires_at`.
    """
    ends = [expires_at]
    if target_date is not None and lead_time is not None and parse_iso(lead_time).total:
        ends.append(target_date)
    return min((end for end in ends if end is not None), default=None)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The first state of a notification, new or rescheduled: with `due_at` if it is scheduled."""

    status: Status
    due_at: datetime | None


def schedule(now: datetime, due_at: datetime | None, deadline: datetime | None) -> Schedule:
    """Decide whether a notification is queued (due), scheduled (later), or expired (past its deadline by then)."""
    if deadline is not None and deadline <= max(now, due_at or now):
        return Schedule(Status.EXPIRED, None)
    if due_at is not None and due_at > now:
        return Schedule(Status.SCHEDULED, due_at)
    return Schedule(Status.QUEUED, None)
