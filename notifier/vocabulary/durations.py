"""ISO 8601 durations: days follow the calendar; hours and smaller units are exact."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

_ISO: Final = re.compile(
    r"P(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,6})?)S)?)?",
    re.ASCII,
)
#: The longest there is: a hundred years.
_MOST_DAYS: Final = 36_525


@dataclass(frozen=True, slots=True)
class Duration:
    """`P1DT2H`: so many days on a wall clock (a day with a clock change has 23 or 25 hours), then exactly so long."""

    days: int
    exact: timedelta

    @property
    def total(self) -> timedelta:
        """Its length where every day has 24 hours."""
        return timedelta(days=self.days) + self.exact


def parse_iso(text: str) -> Duration:
    """Parse an ISO 8601 duration in weeks, days, hours, minutes and seconds; months and years have no fixed length.

    Raises ValueError with a sentence for the caller as its message.
    """
    found = _ISO.fullmatch(text)
    if found is None or not any(found.groups()) or text.endswith("T"):
        raise ValueError("Not an ISO 8601 duration such as P7D or PT30M.")
    weeks, days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    duration = Duration(int(weeks * 7 + days), timedelta(hours=hours, minutes=minutes, seconds=seconds))
    if duration.total > timedelta(days=_MOST_DAYS):
        raise ValueError("Longer than a hundred years.")
    return duration
