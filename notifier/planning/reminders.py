"""When a notification goes: at once, at its hour, at so long before a target, or not any more. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from notifier.vocabulary.durations import Duration, parse_iso
from notifier.vocabulary.states import Status

#: The lead time of a reminder that comes at its target itself.
AT_THE_TARGET: Final = "PT0S"


def instant_of(wall_clock: datetime, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, at which clocks of a zone show `wall_clock` (naive).

    Of a time that comes twice, the first; for one that a clock change skips, the first moment after the gap.
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
    """The moment `lead` before `target`: its days are counted on the wall clock of `zone`, the rest exactly. In UTC.

    Raises OverflowError where that is before the calendar begins.
    """
    moment = target.astimezone(UTC)
    if lead.days:
        moment = instant_of(target.astimezone(zone).replace(tzinfo=None) - timedelta(days=lead.days), zone)
    return moment - lead.exact


def deadline_of(expires_at: datetime | None, target_date: datetime | None, lead_time: str | None) -> datetime | None:
    """The moment from which a notification is not sent any more: a reminder is of no use once its target is there.

    A reminder that comes at the target itself has only its `expires_at`.
    """
    ends = [expires_at]
    if target_date is not None and lead_time is not None and parse_iso(lead_time).total:
        ends.append(target_date)
    return min((end for end in ends if end is not None), default=None)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a notification begins, or goes on after it was moved: with `due_at` where it is scheduled."""

    status: Status
    due_at: datetime | None


def schedule(now: datetime, due_at: datetime | None, deadline: datetime | None) -> Schedule:
    """Queue what is due now or was due before, schedule the rest; expired is what could only go past its deadline."""
    if deadline is not None and deadline <= max(now, due_at or now):
        return Schedule(Status.EXPIRED, None)
    if due_at is not None and due_at > now:
        return Schedule(Status.SCHEDULED, due_at)
    return Schedule(Status.QUEUED, None)
