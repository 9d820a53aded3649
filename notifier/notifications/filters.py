"""Filters of events and notifications, each with an index that finds what it names, however many rows there are.

An index has the newest rows of a value where it ends with the id. It serves one value at a time: a filter that means
several, or rows that two indexes have, is asked in several ways (`ways_to`), and the newest of all answers are taken.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    Text,
    Uuid,
    and_,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.orm import Session

from notifier.models import Attempt, Event, IdempotencyKey, Notification
from notifier.vocabulary.error_forms import FORM_IN_SQL
from notifier.vocabulary.ids import bounds_of_millisecond, first_id_after, first_id_of
from notifier.vocabulary.states import EventStatus, Status

#: Notifications in a queue or in a worker's hands. The indexes of large groups leave them out, and that of due rows has
#: them.
_BUSY: Final = (Status.QUEUED, Status.SENDING)
#: Filters that name large groups, whose indexes leave busy rows out.
_OF_SETTLED: Final = ("event_type", "source", "channel")
#: Filters that have an index of all rows.
_OF_ALL: Final = (
    *("user_id", "recipient", "event_id", "request_id", "subscription_id", "cancellation_key", "dedup_key"),
    *("idempotency_key", "message_id", "reason"),
)
#: Attempts that are looked at for each row of a page, and how many times as many if those are too few.
_ATTEMPTS_A_ROW: Final = 2
_MORE: Final = 8
#: The digits of a UUIDv7 that are its millisecond, and the rest of the first and of the last id of that millisecond.
_MILLISECOND: Final = 13
_FIRST: Final = "-0000-0000-000000000000"
_LAST: Final = "-ffff-ffff-ffffffffffff"


def is_called_by_provider(message_id: str) -> ColumnElement[bool]:
    """Tell whether a notification's provider calls its message so."""
    return Notification.id.in_(select(Attempt.notification_id).where(Attempt.message_id == message_id))


def was_tried_by(provider: str) -> ColumnElement[bool]:
    """Tell whether a provider was called for a notification."""
    return select(Attempt.id).where(Attempt.notification_id == Notification.id, Attempt.provider == provider).exists()


def ids_of_key(idempotency_key: str) -> Select[UUID]:
    """Select the ids of events and notifications created with a key, from any source, while the key is kept.

    The primary key of the table begins with the source. So the sources are read first, by one step in it for each.
    """
    first = select(func.min(IdempotencyKey.source).label("source")).cte("sources", recursive=True)
    following = select(func.min(IdempotencyKey.source)).where(IdempotencyKey.source > first.c.source).scalar_subquery()
    sources = first.union_all(select(following).where(first.c.source.is_not(None)))
    return (
        select(func.unnest(IdempotencyKey.ids))
        .join(sources, IdempotencyKey.source == sources.c.source)
        .where(IdempotencyKey.key == idempotency_key)
    )


def ways_to(asked: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Return conditions on notifications, beside their filters: each that matches meets one of them, and no other.

    None, where a single query does. `asked`: the values of the filters by name; None does not filter.
    """
    given = {name for name, value in asked.items() if value is not None}
    forms = asked.get("recipient")
    if forms is not None and len(forms) > 1:
        return [Notification.recipient == form for form in forms]
    if asked["status"] in _BUSY:
        return [Notification.due_at.is_not(None)]
    if "status" in given or given & set(_OF_ALL) or not given & set(_OF_SETTLED):
        return []
    return [
        Notification.status.not_in(_BUSY),
        and_(Notification.status.in_(_BUSY), Notification.due_at.is_not(None)),
    ]


def ways_to_events(asked: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Return conditions on events, as `ways_to` does on notifications."""
    forms = asked["recipient"]
    is_live, is_finished = Event.due_at.is_not(None), Event.due_at.is_(None)
    if forms is not None:
        # No index has an event's recipient: its notifications do. It has one, unless its fan-out waits or has failed.
        told = select(Notification.event_id).where(Notification.recipient.in_(forms))
        has_failed = Event.status == EventStatus.FAILED
        return [is_live, and_(is_finished, has_failed), and_(is_finished, ~has_failed, Event.id.in_(told))]
    if asked["status"] == EventStatus.ACCEPTED:
        return [is_live]
    if asked["status"] == EventStatus.FAILED:
        return []
    if asked["status"] is not None:
        return [is_finished]
    return [is_finished, is_live] if asked["event_type"] is not None or asked["source"] is not None else []


def is_alone(name: str, asked: Mapping[str, Any]) -> bool:
    """Tell whether a filter is the only one that was given, beside time and place."""
    beside = {"limit", "cursor", "created_after", "created_before"}
    return asked[name] is not None and all(value is None for key, value in asked.items() if key not in {*beside, name})


def windows_of_provider(
    session: Session, provider: str, rows: int, *, before: UUID | None, since: datetime | None, until: datetime | None
) -> Iterator[ColumnElement[bool]]:
    """Yield conditions on notifications: the newest for which a provider was called, each time more, in the end all.

    An attempt has the millisecond of its notification in its id. So the newest attempts of whole milliseconds are those
    of the newest notifications. `rows`: how many are wanted, of those before an id and between two moments.
    """
    newest = select(Attempt.id, Attempt.notification_id).where(Attempt.provider == provider)
    if before is not None:
        newest = newest.where(Attempt.id <= bounds_of_millisecond(before)[1])
    if since is not None:
        newest = newest.where(Attempt.id >= first_id_of(since))
    if until is not None:
        newest = newest.where(Attempt.id < first_id_after(until))
    many = rows * _ATTEMPTS_A_ROW
    while True:
        found = session.execute(newest.order_by(Attempt.id.desc()).limit(many)).all()
        if len(found) < many:
            yield Notification.id.in_({row.notification_id for row in found})
            return
        _, last = bounds_of_millisecond(found[-1].id)
        yield Notification.id.in_({row.notification_id for row in found if row.id > last})
        many *= _MORE


def last_provider_of(notification_id: SQLColumnExpression[Any]) -> ColumnElement[str | None]:
    """Return the provider of a notification's last attempt, as a subquery for each row.

    An attempt's id is of its notification's millisecond: the bounds prune partitions, or each row would be looked for
    in every day.
    """
    millisecond = func.left(cast(notification_id, Text), _MILLISECOND, type_=Text())
    first, last = (cast(millisecond.concat(rest), Uuid) for rest in (_FIRST, _LAST))
    return (
        select(Attempt.provider)
        .where(Attempt.notification_id == notification_id, Attempt.id.between(first, last))
        .order_by(Attempt.number.desc())
        .limit(1)
        .scalar_subquery()
    )


def error_form() -> ColumnElement[str]:
    """Return the form of the column `error` of the one table of a query that has it."""
    return literal_column(FORM_IN_SQL, Text())
