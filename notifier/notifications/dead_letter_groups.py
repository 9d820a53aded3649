"""Groups of dead letters: how many stand of each reason, provider, error, event type and channel, and since when.

Counting is bounded. Of very many letters the newest are counted, and the answer says so; fewer where each letter costs
more than a look at its row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import CTE, ColumnElement, Engine, Integer, Row, cast, func, select

from notifier.models import DeadLetter
from notifier.notifications.dead_letters import Filters
from notifier.notifications.filters import error_form, last_provider_of
from notifier.storage.time_limits import in_time

#: The letters that are counted: of half a million, all, in a second or two; or as many as take about a second, where
#: each error is reduced to its form, or each notification's last attempt is looked up.
_MOST: Final = 500_000
_MOST_OF_COSTLY: Final = 50_000
#: Hours and days of the trend.
HOURS: Final = 24
DAYS: Final = 14
_OLDER: Final = 24 * DAYS


class Trait(StrEnum):
    """A trait by which letters are grouped."""

    REASON = "reason"
    #: That of the notification's last attempt.
    PROVIDER = "provider"
    #: Its form (`error_forms`).
    ERROR = "error"
    EVENT_TYPE = "event_type"
    CHANNEL = "channel"


_COSTLY: Final = frozenset({Trait.PROVIDER, Trait.ERROR})
#: The filter that selects a group by its trait, where it has another name.
_FILTERS: Final = {Trait.PROVIDER: "last_provider"}


@dataclass(frozen=True, slots=True)
class Group:
    """The letters of one group that stand."""

    traits: Mapping[Trait, str | None]
    count: int
    first_at: datetime
    last_at: datetime
    #: Letters in each of the last 24 hours and 14 times 24 hours, the oldest first; the last one ends now.
    hourly: Sequence[int]
    daily: Sequence[int]

    @property
    def filters(self) -> dict[str, str] | None:
        """Return the filters that select it; None if it has no value of a trait, which no filter finds."""
        chosen = {_FILTERS.get(trait, trait.value): value for trait, value in self.traits.items()}
        return None if None in chosen.values() else {name: str(value) for name, value in chosen.items()}


@dataclass(frozen=True, slots=True)
class Groups:
    """The largest groups, and how much was counted."""

    groups: Sequence[Group]
    #: Letters that were counted, and the groups that they make.
    counted: int
    number: int
    #: Whether more letters stand than were counted, which then are the newest.
    is_sample: bool


def groups(engine: Engine, filters: Filters, by: Sequence[Trait], limit: int = 50) -> Groups:
    """Group the letters that stand and match, the largest group first. Raises Invalid if that takes too long."""
    most = _MOST_OF_COSTLY if _COSTLY & set(by) else _MOST
    filters = replace(filters, requeued=False)
    with engine.begin() as connection, in_time(connection, "created_after"):
        rows = connection.execute(_query(filters, by, limit, most)).all()
        counted, number = (int(rows[0].counted), rows[0].number) if rows else (0, 0)
        next_one = _newest_first(filters, DeadLetter.id).offset(most).limit(1)
        is_sample = counted == most and connection.scalar(next_one) is not None
    return Groups([_group(row, by) for row in rows], counted, number, is_sample)


def _newest_first(filters: Filters, *columns: Any) -> Any:  # noqa: ANN401 -- a Select of these columns
    return filters.on(select(*columns)).order_by(DeadLetter.id.desc())


def _query(filters: Filters, by: Sequence[Trait], limit: int, most: int) -> Any:  # noqa: ANN401 -- a Select of many columns
    columns = (
        *(DeadLetter.id, DeadLetter.notification_id, DeadLetter.reason, DeadLetter.error, DeadLetter.event_type),
        *(DeadLetter.channel, DeadLetter.created_at),
    )
    chosen = _newest_first(filters, *columns).limit(most).cte("chosen")
    age = func.extract("epoch", func.now() - chosen.c.created_at)
    hour = func.least(func.greatest(cast(func.floor(age / 3600), Integer), 0), _OLDER)
    traits = [_column(trait, chosen).label(trait.value) for trait in by]
    placed = select(*traits, hour.label("hour"), chosen.c.created_at).cte("placed")
    names = [placed.c[trait.value] for trait in by]
    hourly = select(
        *names,
        placed.c.hour,
        func.count().label("letters"),
        func.min(placed.c.created_at).label("first_at"),
        func.max(placed.c.created_at).label("last_at"),
    ).group_by(*names, placed.c.hour)
    parts = hourly.cte("parts")
    names = [parts.c[trait.value] for trait in by]
    letters = func.sum(parts.c.letters)
    return (
        select(
            *names,
            letters.label("letters"),
            func.min(parts.c.first_at).label("first_at"),
            func.max(parts.c.last_at).label("last_at"),
            func.array_agg(parts.c.hour).label("hours"),
            func.array_agg(parts.c.letters).label("sizes"),
            func.sum(letters).over().label("counted"),
            func.count().over().label("number"),
        )
        .group_by(*names)
        .order_by(letters.desc(), *names)
        .limit(limit)
    )


def _column(trait: Trait, letters: CTE) -> ColumnElement[Any]:
    if trait is Trait.ERROR:
        return error_form()
    return last_provider_of(letters.c.notification_id) if trait is Trait.PROVIDER else letters.c[trait.value]


def _group(row: Row[Any], by: Sequence[Trait]) -> Group:
    hours = dict(zip(row.hours, row.sizes, strict=True))
    hourly = [hours.get(hour, 0) for hour in reversed(range(HOURS))]
    daily = [sum(hours.get(24 * day + hour, 0) for hour in range(24)) for day in reversed(range(DAYS))]
    traits = {trait: getattr(row, trait.value) for trait in by}
    return Group(traits, int(row.letters), row.first_at, row.last_at, hourly, daily)
