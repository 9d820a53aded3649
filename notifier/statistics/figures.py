"""Figures of a span of time, added up from the roll-ups: hours where they are whole, and minutes around them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from notifier.statistics.histogram import percentiles
from notifier.statistics.minute_counts import COUNTS, MINUTE
from notifier.statistics.rollups import FRESH, SETTLED, SUMS
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.statistics import HOURS_KEPT, MINUTES_KEPT, Dimension

HOUR: Final = timedelta(hours=1)
#: The most items of one answer.
MOST_ITEMS: Final = 10_000
#: The span of a question that names none, and the span of the rates of queues.
SPAN: Final = HOUR
RATE_SPAN: Final = timedelta(minutes=5)
#: How far ahead the end of a span may lie: the end of the day, or the clock of a caller.
AHEAD: Final = timedelta(days=1)

_SHARES: Final = (0.5, 0.95, 0.99)
_NAMES: Final = ("p50_ms", "p95_ms", "p99_ms")


class Step(StrEnum):
    """The length of time that one item is of."""

    MINUTE = "minute"
    HOUR = "hour"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Question:
    """Figures by a dimension, of a span of time: the first moment of it, and the first moment after it."""

    by: Dimension
    step: Step
    #: None for SPAN before the end.
    since: datetime | None
    until: datetime
    #: Only of this name; None for all.
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Items in the order of their time and name, and the span that they are of: the question's, in whole steps."""

    since: datetime
    until: datetime
    #: Figures before this moment are settled; None where nothing was counted yet.
    complete_until: datetime | None
    items: list[dict[str, Any]]


_PROGRESS: Final = text("SELECT name, until FROM stats_progress WHERE name = ANY(:names)")
_WANTED: Final = "dimension = :by AND (CAST(:name AS text) IS NULL OR name = :name)"
_FIGURES: Final = f"channel, name, {', '.join(COUNTS)}, call_buckets, wait_buckets"
_MINUTES: Final = text(f"""
    SELECT moment AS start, {_FIGURES} FROM stats_minutes
    WHERE {_WANTED} AND moment >= :since AND moment < :until ORDER BY moment, channel, name LIMIT {MOST_ITEMS + 1}
""")
# Minutes before the first whole hour, hours, and minutes after the last one.
_SUMMED: Final = """
    SELECT {start} AS start, channel, name, {sums} FROM (
        SELECT moment, {figures} FROM stats_minutes WHERE {wanted} AND moment >= :since AND moment < :first_hour
        UNION ALL
        SELECT moment, {figures} FROM stats_hours WHERE {wanted} AND moment >= :first_hour AND moment < :after_hours
        UNION ALL
        SELECT moment, {figures} FROM stats_minutes WHERE {wanted} AND moment >= :after_hours AND moment < :until
    ) AS parts GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT {most}
"""
_PARTS: Final = {"sums": SUMS, "figures": _FIGURES, "wanted": _WANTED, "most": MOST_ITEMS + 1}
_HOURS: Final = text(_SUMMED.format(start="date_trunc('hour', moment, 'UTC')", **_PARTS))
_TOTALS: Final = text(_SUMMED.format(start="CAST(:since AS timestamptz)", **_PARTS))


def ask(engine: Engine, question: Question) -> Answer:
    """Return the figures of a span. Raises Invalid where they are not kept, or would be too many items."""
    since, until = _in_steps(question, datetime.now(UTC))
    with engine.connect() as connection:
        progress = _progress(connection)
        hours = _whole_hours(since, until, progress.get(FRESH.name))
        values = {"by": question.by.value, "name": question.name, "since": since, "until": until, **hours}
        query = {Step.MINUTE: _MINUTES, Step.HOUR: _HOURS, Step.TOTAL: _TOTALS}[question.step]
        rows = connection.execute(query, values).all()
    if len(rows) > MOST_ITEMS:
        raise Invalid({"step": [f"These are more than {MOST_ITEMS:,} items: shorten the span, or lengthen the step."]})
    return Answer(since, until, progress.get(SETTLED.name), list(_items(rows)))


def _progress(connection: Connection) -> dict[str, datetime]:
    rows = connection.execute(_PROGRESS, {"names": [FRESH.name, SETTLED.name]})
    return {row.name: row.until for row in rows}


def _in_steps(question: Question, now: datetime) -> tuple[datetime, datetime]:
    """Return the span of a question in whole minutes, or hours where only these are kept. Raises Invalid."""
    until = question.until.astimezone(UTC)
    if not now - HOURS_KEPT < until < now + AHEAD:
        raise Invalid({"to": [f"Figures are kept for {HOURS_KEPT.days} days, and there are none of the future."]})
    since = until - SPAN if question.since is None else question.since.astimezone(UTC)
    if since >= until:
        raise Invalid({"from": ["It is not before the end of the span."]})
    if since < now - HOURS_KEPT:
        raise Invalid({"from": [f"Figures are kept for {HOURS_KEPT.days} days."]})
    has_minutes = since >= now - MINUTES_KEPT
    if question.step is Step.MINUTE and not has_minutes:
        hours = MINUTES_KEPT // HOUR
        raise Invalid({"from": [f"Minutes are kept for {hours} hours; ask by hour, or for the total."]})
    step = MINUTE if has_minutes and question.step is not Step.HOUR else HOUR
    return _floor(since, step), _ceiling(until, step)


def _whole_hours(since: datetime, until: datetime, counted_until: datetime | None) -> dict[str, datetime]:
    """Return the span within another one for which there are rows of hours; it may be empty."""
    first = _ceiling(since, HOUR)
    after = max(first, min(_floor(until, HOUR), _floor(counted_until or since, HOUR)))
    return {"first_hour": min(first, until), "after_hours": min(after, until)}


_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def _floor(moment: datetime, step: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % step


def _ceiling(moment: datetime, step: timedelta) -> datetime:
    return moment + (_EPOCH - moment) % step


def _items(rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield each row's figures as the API shows them. A day by minute has thousands, so it is kept quick."""
    for start, channel, name, *counts, call_buckets, wait_buckets in rows:
        item = dict(zip(COUNTS, counts, strict=True))
        attempts = item["sent"] + item["rejected"] + item["unsent"] + item["ambiguous"]
        yield {
            "start": start,
            "channel": channel or None,
            "name": name or None,
            **item,
            "attempts": attempts,
            "success_rate": round(item["sent"] / attempts, 6) if attempts else None,
            "call": dict(zip(_NAMES, percentiles(call_buckets, _SHARES), strict=True)),
            "wait": dict(zip(_NAMES, percentiles(wait_buckets, _SHARES), strict=True)),
        }


_RATES: Final = text(f"""
    SELECT name, CAST(sum(sent + rejected + unsent + ambiguous) AS bigint) AS attempts FROM stats_minutes
    WHERE dimension = '{Dimension.QUEUE}' AND moment >= :since AND moment < :until GROUP BY name
""")


def attempts_per_minute(engine: Engine) -> dict[str, float] | None:
    """Return the attempts a minute of each queue that had any lately; None where nothing was counted lately."""
    with engine.connect() as connection:
        until = _progress(connection).get(FRESH.name)
        if until is None or until < datetime.now(UTC) - RATE_SPAN:
            return None
        rows = connection.execute(_RATES, {"since": until - RATE_SPAN, "until": until}).all()
    return {row.name: row.attempts / (RATE_SPAN / MINUTE) for row in rows}
