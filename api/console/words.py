"""Words of the pages: times, durations, numbers and JSON as people read them."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson

_STEPS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
#: How a state is coloured: well, on its way, ended otherwise, or wrong.
_TONES: Final = {
    **dict.fromkeys(("sent", "delivered", "accepted", "processed", "closed", "ok", "finished"), "good"),
    **dict.fromkeys(("scheduled", "queued", "sending", "running", "half-open", "half_open"), "moving"),
    **dict.fromkeys(("retrying", "unsent", "ambiguous", "degraded", "held", "stopped"), "warning"),
    **dict.fromkeys(("failed", "rejected", "open", "bounced", "error", "missing"), "bad"),
}


def tone(state: str | None) -> str:
    """Return the class of a state's colour."""
    return _TONES.get(state or "", "plain")


def moment(text: str | None) -> datetime | None:
    """Read a time as the API writes it."""
    return None if not text else datetime.fromisoformat(text)


def at(text: str | None) -> str:
    """Return a time as a table shows it, in UTC: 2026-11-29 13:44:13."""
    found = moment(text)
    return "" if found is None else found.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(text: str | None, now: datetime | None = None) -> str:
    """Return how long ago a time was, or in how long it comes, in one or two units."""
    found = moment(text)
    if found is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - found).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: float | None) -> str:
    """Return a duration in its largest unit and the next one: 2 h 5 min."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    left = round(seconds)
    for index, (size, unit) in enumerate(_STEPS):
        if left >= size:
            rest = left % size
            smaller = _STEPS[index + 1] if index + 1 < len(_STEPS) else None
            more = f" {rest // smaller[0]} {smaller[1]}" if smaller and rest >= smaller[0] else ""
            return f"{left // size} {unit}{more}"
    return "0 s"


def milliseconds(value: float | None) -> str:
    """Return a duration that is given in milliseconds."""
    return "" if value is None else f"{value:.0f} ms" if value < 10_000 else span(value / 1000)


def number(value: float | None) -> str:
    """Return a number with commas between thousands."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.1f}"


def percent(value: float | None) -> str:
    """Return a share from 0 to 1 as percents."""
    return "" if value is None else f"{value * 100:.1f} %" if value < 0.9995 or value == 1 else f"{value * 100:.2f} %"


def json(value: Any) -> str:  # noqa: ANN401 -- JSON
    """Return JSON over several lines."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def short(identifier: str | None) -> str:
    """Return the end of an id, which tells two of the same second apart."""
    return "" if not identifier else f"…{identifier[-8:]}"
