"""Timestamps as text: RFC 3339, always with an offset."""

import re
from datetime import UTC, datetime
from typing import Final

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
#: One short of the calendar's end, so that no time zone leads beyond it.
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9998


def rfc3339(moment: datetime) -> str:
    """Format a moment as RFC 3339 in UTC, ending in `Z`, with microseconds if it has any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_rfc3339(text: object) -> datetime:
    """Parse a timestamp to UTC. Raises ValueError with a sentence for the caller as its message."""
    if not isinstance(text, str) or not _RFC3339.fullmatch(text):
        raise ValueError("Not an RFC 3339 time with its offset, such as 2026-11-21T09:00:00Z.")
    # Postgres keeps microseconds, and so does Python.
    shortened = re.sub(r"(\.\d{6})\d+", r"\1", text.upper())
    try:
        moment = datetime.fromisoformat(shortened).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("Not a time that exists.") from None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"Not in the years {_FIRST_YEAR} to {_LAST_YEAR}.")
    return moment
