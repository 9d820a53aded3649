"""Search: everything that has a given text as an id, an address or a key, newest first.

Each field is asked with an index of its own, so that a search takes some milliseconds however many rows there are: most
of that is Postgres planning over the days. So what the text cannot be is not asked, and rare keys are asked together.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, literal, or_, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from notifier.models import Attempt, DeadLetter, Event, Notification, Subscription, Suppression, User
from notifier.notifications.filters import ids_of_key
from notifier.people.suppressions import compared
from notifier.people.users import ADDRESS_FIELDS, addresses_in, is_reached_at
from notifier.security.address_seals import seals_of
from notifier.security.secret_box import Vault
from notifier.vocabulary.event_types import USER_ID
from notifier.vocabulary.states import Channel
from notifier.webhooks.subscriptions import ids_at

#: The longest id or key; addresses and providers' ids of messages may be longer.
_LONGEST_KEY: Final = 255
_LONGEST_MESSAGE_ID: Final = 1024
#: So many events that wait for their fan-out are looked at for an address, and so many whose fan-out has failed.
_LOOKED_AT: Final = 2000

#: The name by which a field is shown, its column, and the values that are looked for.
_Field = tuple[str, InstrumentedAttribute[Any], Collection[Any]]

_Row = TypeVar("_Row", Notification, Event, DeadLetter, Subscription)


class Type(StrEnum):
    """The type of a record that is found."""

    NOTIFICATION = "notification"
    EVENT = "event"
    USER = "user"
    DEAD_LETTER = "dead_letter"
    SUBSCRIPTION = "subscription"
    SUPPRESSION = "suppression"


@dataclass(frozen=True, slots=True)
class Match:
    """A record, and the names of its fields that have the text."""

    type: Type
    record: Any
    matched: tuple[str, ...]
    #: The address that a user has of those that were looked for.
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """The newest records of each type, and the fields by which there are more of a type."""

    items: list[Match]
    more: list[tuple[Type, str]]


@dataclass(slots=True)
class _Ids:
    """The ids that were found by each field of one type."""

    limit: int
    by_field: defaultdict[str, set[UUID]] = field(default_factory=lambda: defaultdict(set))

    def add(self, name: str, ids: Iterable[UUID | None]) -> None:
        """Add the newest ids of a field: one more than is shown, where there are more."""
        self.by_field[name].update(each for each in ids if each is not None)

    def newest(self) -> list[UUID]:
        """Return the ids that are shown."""
        return sorted(set().union(*self.by_field.values()), reverse=True)[: self.limit]

    def matched(self, row_id: UUID) -> tuple[str, ...]:
        """Return the fields by which an id was found."""
        return tuple(name for name, ids in self.by_field.items() if row_id in ids)

    def fields_with_more(self) -> list[str]:
        """Return the fields that have ids which are not shown."""
        shown = set(self.newest())
        return [name for name, ids in self.by_field.items() if ids - shown]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The records that a search is to find, and of notifications which."""

    #: A query over Notification with the filters.
    query: Select[Any]
    #: Conditions of which each of its rows meets exactly one (notifier.notifications.filters.ways_to).
    ways: Sequence[ColumnElement[bool]]
    #: The most records of each type.
    limit: int


def search(session: Session, vault: Vault, text: str, wanted: Wanted) -> Results:
    """Return all that has a text in one of its fields."""
    sought = _Sought(session, vault, text, wanted)
    found = [
        *(sought.notifications(), sought.events(), sought.users()),
        *(sought.dead_letters(), sought.subscriptions(), sought.suppressions()),
    ]
    return Results([each for part in found for each in part.items], [each for part in found for each in part.more])


class _Sought:
    """One search."""

    def __init__(self, session: Session, vault: Vault, text: str, wanted: Wanted) -> None:
        self._session, self._vault, self._text = session, vault, text
        self._notifications, self._ways, self._limit = wanted.query, wanted.ways, wanted.limit
        self._id = _as_id(text)
        self._forms = seals_of(session).forms_sought(None, text)
        self._is_key = len(text) <= _LONGEST_KEY
        self._is_user_id = USER_ID.fullmatch(text) is not None
        #: The ids that were made with it as idempotency key: of events, or of notifications.
        self._made = list(session.scalars(ids_of_key(text))) if self._is_key else []
        self._found = {each: _Ids(wanted.limit) for each in Type}

    def notifications(self) -> Results:
        """Return the notifications."""
        found = self._found[Type.NOTIFICATION]
        for form in self._forms:
            found.add("recipient", self._newest(self._notifications, Notification.recipient == form))
        if self._is_user_id:
            found.add("user_id", self._newest(self._notifications, Notification.user_id == self._text))
        if len(self._text) <= _LONGEST_MESSAGE_ID:
            called = select(Attempt.notification_id).where(Attempt.message_id == self._text)
            found.add("message_id", self._existing(called.order_by(Attempt.id.desc()).limit(self._limit + 1)))
        if self._id is not None:
            found.add("id", self._existing([self._id]))
            found.add("subscription_id", self._newest(self._notifications, Notification.subscription_id == self._id))
        if self._made:
            found.add("idempotency_key", self._existing(self._made))
        for name, row_id in self._by_rare_fields(self._notifications, self._rare_fields_of_notifications()):
            found.add(name, [row_id])
        return self._results(Type.NOTIFICATION, self._rows(Notification, found.newest()))

    def _rare_fields_of_notifications(self) -> list[_Field]:
        keys = ("request_id", "cancellation_key", "dedup_key") if self._is_key else ()
        rare: list[_Field] = [(name, getattr(Notification, name), [self._text]) for name in keys]
        if self._id is not None:
            rare.append(("event_id", Notification.event_id, [self._id]))
        if self._made:
            rare.append(("idempotency_key", Notification.event_id, self._made))
        return rare

    def events(self) -> Results:
        """Return the events. Those that name an address or a dedup key are found by their notifications."""
        found = self._found[Type.EVENT]
        if self._is_user_id:
            found.add("user_id", self._newest(select(Event), Event.user_id == self._text))
        keys = ("request_id", "cancellation_key") if self._is_key else ()
        for name, row_id in self._by_rare_fields(
            select(Event), [(name, getattr(Event, name), [self._text]) for name in keys]
        ):
            found.add(name, [row_id])
        by_id = [*([self._id] if self._id is not None else []), *self._made]
        told = self._found[Type.NOTIFICATION].by_field
        made_notifications = told["recipient"] | told["dedup_key"]
        through = self._events_without_notifications()
        if made_notifications:
            of_notifications = select(Notification.event_id).where(Notification.id.in_(made_notifications))
            through |= {each for each in self._session.scalars(of_notifications) if each is not None}
        rows = self._rows(Event, {*by_id, *through, *found.newest()})
        for row in rows:
            if row.id == self._id:
                found.add("id", [row.id])
            if row.id in self._made:
                found.add("idempotency_key", [row.id])
            if row.recipient in self._forms:
                found.add("recipient", [row.id])
            if row.dedup_key == self._text:
                found.add("dedup_key", [row.id])
        results = self._results(Type.EVENT, rows)
        of_more = {name for _, name in self._more_of(Type.NOTIFICATION) if name in {"recipient", "dedup_key"}}
        missing = [(Type.EVENT, name) for name in sorted(of_more) if found.by_field.get(name)]
        return Results(results.items, list(dict.fromkeys([*results.more, *missing])))

    def _events_without_notifications(self) -> set[UUID]:
        """Return the events that may name the address and have made no notification: they wait, or have failed."""
        is_live = Event.due_at.is_not(None)
        waiting = select(Event.id, Event.recipient).where(is_live).order_by(Event.due_at).limit(_LOOKED_AT).subquery()
        found = set(self._session.scalars(select(waiting.c.id).where(waiting.c.recipient.in_(self._forms))))
        # Read first: mostly there are none, and then no day of events is looked at.
        letters = select(DeadLetter.event_id).where(
            DeadLetter.notification_id.is_(None), DeadLetter.event_id.is_not(None)
        )
        failed = self._session.scalars(letters.order_by(DeadLetter.event_id.desc()).limit(_LOOKED_AT)).all()
        if failed:
            found.update(
                self._session.scalars(select(Event.id).where(Event.id.in_(failed), Event.recipient.in_(self._forms)))
            )
        return found

    def users(self) -> Results:
        """Return the users."""
        found, held = self._found[Type.USER], dict[UUID, str]()
        query = select(User).where(or_(User.user_id == self._text, is_reached_at(self._session, self._forms)))
        rows = self._session.scalars(query.order_by(User.id.desc()).limit(self._limit + 1)).all()
        emails = {form.lower() for form in self._forms}
        for row in rows:
            if row.user_id == self._text:
                found.add("user_id", [row.id])
            for channel, address in addresses_in(row):
                if address in self._forms or (channel is Channel.EMAIL and address.lower() in emails):
                    found.add(ADDRESS_FIELDS[channel], [row.id])
                    held.setdefault(row.id, address)
        results = self._results(Type.USER, rows)
        return Results([replace(each, address=held.get(each.record.id)) for each in results.items], results.more)

    def dead_letters(self) -> Results:
        """Return the dead letters."""
        found = self._found[Type.DEAD_LETTER]
        if self._id is None:
            return Results([], [])
        found.add("id", self._session.scalars(select(DeadLetter.id).where(DeadLetter.id == self._id)))
        for column in (DeadLetter.notification_id, DeadLetter.event_id):
            found.add(column.key, self._newest(select(DeadLetter), column == self._id))
        return self._results(Type.DEAD_LETTER, self._rows(DeadLetter, found.newest()))

    def subscriptions(self) -> Results:
        """Return the subscriptions."""
        found = self._found[Type.SUBSCRIPTION]
        if self._id is not None:
            found.add("id", self._session.scalars(select(Subscription.id).where(Subscription.id == self._id)))
        if "://" in self._text:
            found.add("url", ids_at(self._session, self._vault, self._text)[: self._limit + 1])
        return self._results(Type.SUBSCRIPTION, self._rows(Subscription, found.newest()))

    def suppressions(self) -> Results:
        """Return the suppressed addresses."""
        found = self._found[Type.SUPPRESSION]
        forms = {each for form in self._forms for channel in Channel for each in compared(channel, form)}
        query = select(Suppression).where(Suppression.channel.in_(list(Channel)), Suppression.folded.in_(forms))
        rows = self._session.scalars(query.order_by(Suppression.id.desc()).limit(self._limit + 1)).all()
        found.add("address", [row.id for row in rows])
        return self._results(Type.SUPPRESSION, rows)

    def _newest(self, query: Select[Any], condition: ColumnElement[bool]) -> Sequence[UUID]:
        """Return the newest ids that meet a condition, one more than is shown."""
        id_column = query.column_descriptions[0]["entity"].id
        newest = query.with_only_columns(id_column).where(condition).order_by(id_column.desc()).limit(self._limit + 1)
        ways = self._ways if id_column.class_ is Notification else ()
        each = union_all(*(newest.where(way) for way in ways)) if len(ways) > 1 else newest.where(*ways)
        return sorted(self._session.scalars(each), reverse=True)[: self._limit + 1]

    def _rows(self, model: type[_Row], ids: Collection[UUID]) -> Sequence[_Row]:
        """Return the rows with some ids."""
        return self._session.scalars(select(model).where(model.id.in_(ids))).all() if ids else []

    def _existing(self, ids: Select[Any] | Collection[UUID]) -> Sequence[UUID]:
        """Return those of some ids that are of notifications which are wanted."""
        named = list(self._session.scalars(ids)) if isinstance(ids, Select) else ids
        if not named:
            return []
        return self._session.scalars(
            self._notifications.with_only_columns(Notification.id).where(Notification.id.in_(named))
        ).all()

    def _by_rare_fields(self, query: Select[Any], fields: Sequence[_Field]) -> Iterable[tuple[str, UUID]]:
        """Yield (field, id) of the newest rows with one of some values in a field, of which few rows have the same.

        One statement, since planning it is what takes time; and all such rows are read before they are sorted.
        """
        if not fields:
            return []
        model = query.column_descriptions[0]["entity"]
        alike = or_(*(column.in_(values) for _, column, values in fields))
        columns = {column.key: column for _, column, _ in fields}
        rows = query.with_only_columns(model.id, *columns.values()).where(alike).cte("alike")
        each = [
            select(literal(name).label("field"), rows.c.id)
            .where(rows.c[column.key].in_(values))
            .order_by(rows.c.id.desc())
            .limit(self._limit + 1)
            for name, column, values in fields
        ]
        found = self._session.execute(union_all(*each) if len(each) > 1 else each[0])
        return [(row.field, row.id) for row in found]

    def _results(self, kind: Type, rows: Iterable[Any]) -> Results:
        """Return the rows that are shown, newest first, each with its fields."""
        found = self._found[kind]
        by_id: Mapping[UUID, Any] = {row.id: row for row in rows}
        shown = [row_id for row_id in found.newest() if row_id in by_id]
        return Results([Match(kind, by_id[row_id], found.matched(row_id)) for row_id in shown], self._more_of(kind))

    def _more_of(self, kind: Type) -> list[tuple[Type, str]]:
        return [(kind, name) for name in self._found[kind].fields_with_more()]


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
