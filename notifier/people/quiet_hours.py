"""Quiet hours: whether they apply at a moment, and when they end: `is_quiet`, `end_of`.

A rule is about wall clocks, and a wall clock jumps. Everything is computed in UTC, and local times are only read:
adding to a datetime of a zone, or comparing two of them, would ignore a jump in between.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

#: Rules repeat daily, and clock changes are days apart: rules without a gap for so long have none worth waiting for.
_HORIZON: Final = timedelta(days=8)
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """One rule: from `start` (inclusive) to `end` (exclusive) on the wall clock of `zone`, over midnight where
    `end` < `start`.

    Both are naive and of whole minutes, and they differ; otherwise it raises ValueError.
    """

    start: time
    end: time
    zone: ZoneInfo
    #: A sentence for the reader, where another zone was asked for that is not known.
    note: str | None = None

    def __post_init__(self) -> None:
        for edge in (self.start, self.end):
            if edge.tzinfo is not None or edge.second or edge.microsecond:
                raise ValueError(f"quiet hours start and end on a whole minute without a zone, not at {edge}")
        if self.start == self.end:
            raise ValueError(f"quiet hours end at another time than they start, not at {self.end:%H:%M}")

    def __str__(self) -> str:
        return f"{self.start:%H:%M}–{self.end:%H:%M} {self.zone}"


def is_quiet(rule: QuietHours, moment: datetime) -> bool:
    """Return whether `moment` (aware) is within the rule, by the wall clock of the rule's zone.

    When clocks are set back, both passes of the repeated hour count alike.
    """
    # By way of UTC: a moment that is in the zone already would keep a local time that a clock change skips.
    clock = moment.astimezone(UTC).astimezone(rule.zone).time()
    if rule.start < rule.end:
        return rule.start <= clock < rule.end
    return rule.start <= clock or clock < rule.end


def end_of(rules: Sequence[QuietHours], moment: datetime) -> datetime | None:
    """Return the first moment, from `moment` (aware) on, that none of the rules covers, in UTC.

    Returns `moment` itself if no rule applies, and None if there is no such moment within 8 days. If a clock change
    skips the end, returns the first moment after the gap.
    """
    now = moment.astimezone(UTC)
    last = now + _HORIZON
    while now <= last:
        rule = next((rule for rule in rules if is_quiet(rule, now)), None)
        if rule is None:
            return now
        now = _quiet_until(rule, now)
    return None


def _quiet_until(rule: QuietHours, now: datetime) -> datetime:
    """Return a later moment, in UTC, until which a rule that applies `now` still applies: its end, or a clock change.

    After a clock change, the caller must ask again.
    """
    local = now.astimezone(rule.zone)
    end = datetime.combine(local, rule.end)
    candidate = now + (end - local.replace(tzinfo=None)) % _DAY
    offset = local.utcoffset()
    if candidate.astimezone(rule.zone).utcoffset() == offset:
        return candidate  # no change: in all of tzdata, the fastest that another undid lasted four days
    # The first second of the new offset (tzdata counts whole seconds), by halving: there is one change in the range.
    first = now.replace(microsecond=0)
    seconds = range((candidate - first) // _SECOND)
    return first + _SECOND * bisect_left(seconds, True, key=lambda n: _offset(rule, first + _SECOND * n) != offset)


def _offset(rule: QuietHours, moment: datetime) -> timedelta | None:
    return moment.astimezone(rule.zone).utcoffset()
