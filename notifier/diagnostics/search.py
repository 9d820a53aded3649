"""Search: everything that has a given text as an id, an address or a key, newest first.

Each field is asked with an index of its own, so that a search takes some milliseconds however many rows there are. Most
of them would go into plans over all days: a function of the database keeps its plans (migration 0030). A filter changes
a plan: where a field has more rows than the function returns, a filter is asked by a statement of its own.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, text, union_all
from sqlalchemy.orm import Session

from notifier.models import DeadLetter, Event, Notification, Subscription, Suppression, User
from notifier.notifications.filters import ids_of_key
from notifier.people.suppressions import compared
from notifier.people.users import ADDRESS_FIELDS, addresses_in
from notifier.security.address_seals import seals_of
from notifier.security.secret_box import Vault
from notifier.vocabulary.event_types import USER_ID
from notifier.vocabulary.ids import first_id_of
from notifier.vocabulary.states import Channel
from notifier.webhooks.subscriptions import ids_at

#: The longest idempotency key.
_LONGEST_KEY: Final = 255
#: So many events that wait for their fan-out are looked at for an address, and so many whose fan-out has failed.
_LOOKED_AT: Final = 2000
#: So many rows of a field does the function return at the most.
_MOST: Final = 101
#: Fields of which many rows may have the same text: their indexes have the newest first.
_OF_MANY: Final = ("recipient", "user_id", "subscription_id")

_SEARCH: Final = text("""
    SELECT kind, field, id
    FROM notifier_search(:text, :user_id, :id, CAST(:made AS uuid[]), :forms, :emails, :looked_at) ORDER BY id DESC
""")

_Row = TypeVar("_Row", Notification, Event, User, DeadLetter, Subscription)


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
        """Add ids of a field, the newest first. One more is kept than is shown, where there are more."""
        self.by_field[name].update(islice((each for each in ids if each is not None), self.limit + 1))

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


def search(session: Session, vault: Vault, sought: str, wanted: Wanted) -> Results:
    """Return all that has a text in one of its fields."""
    asked = _Sought(session, vault, sought, wanted)
    found = [
        *(asked.notifications(), asked.events(), asked.users()),
        *(asked.dead_letters(), asked.subscriptions(), asked.suppressions()),
    ]
    return Results([each for part in found for each in part.items], [each for part in found for each in part.more])


class _Sought:
    """One search."""

    def __init__(self, session: Session, vault: Vault, sought: str, wanted: Wanted) -> None:
        self._session, self._vault, self._text = session, vault, sought
        self._notifications, self._ways, self._limit = wanted.query, wanted.ways, wanted.limit
        self._is_filtered = wanted.query.whereclause is not None
        self._id = _as_id(sought)
        self._forms = seals_of(session).forms_sought(None, sought)
        self._emails = [form.lower() for form in self._forms]
        self._user_id = sought if USER_ID.fullmatch(sought) else None
        #: The ids that were made with it as idempotency key: of events, or of notifications.
        self._made = list(session.scalars(ids_of_key(sought))) if len(sought) <= _LONGEST_KEY else []
        self._found = {each: _Ids(wanted.limit) for each in Type}
        #: The newest ids that have it in a field, by type and field.
        self._having = self._ids_by_field()

    def _ids_by_field(self) -> dict[str, dict[str, list[UUID]]]:
        values: dict[str, Any] = {"text": self._text, "user_id": self._user_id, "id": self._id, "made": self._made}
        values |= {"forms": list(self._forms), "emails": self._emails, "looked_at": _LOOKED_AT}
        having = defaultdict[str, dict[str, list[UUID]]](lambda: defaultdict(list))
        for row in self._session.execute(_SEARCH, values):
            having[row.kind][row.field].append(row.id)
        return having

    def notifications(self) -> Results:
        """Return the notifications."""
        found = self._found[Type.NOTIFICATION]
        for name, ids in self._having[Type.NOTIFICATION].items():
            found.add(name, self._wanted_of(name, ids) if self._is_filtered else ids)
        found.add("id", self._wanted([self._id] if self._id is not None else []))
        found.add("idempotency_key", self._wanted(self._made))
        return self._results(Type.NOTIFICATION, self._rows(Notification, found.newest()))

    def _newest(self, condition: ColumnElement[bool]) -> Sequence[UUID]:
        """Return the newest ids of notifications that the filters leave and that meet a condition.

        Today and yesterday are asked first: mostly they have enough, and a plan for two days is soon made.
        """
        query = self._notifications.with_only_columns(Notification.id).where(condition)
        yesterday = first_id_of(datetime.now(UTC).date() - timedelta(days=1))
        found: list[UUID] = []
        for days in (Notification.id >= yesterday, Notification.id < yesterday):
            newest = query.where(days).order_by(Notification.id.desc()).limit(self._limit + 1)
            ways = [newest.where(way) for way in self._ways]
            found += self._session.scalars(union_all(*ways) if len(ways) > 1 else newest.where(*self._ways))
            if len(found) > self._limit:
                break
        return found

    def _wanted(self, ids: Collection[UUID]) -> Sequence[UUID]:
        """Return those of some ids that are of notifications which the filters leave, newest first."""
        query = self._notifications.with_only_columns(Notification.id).where(Notification.id.in_(ids))
        return sorted(self._session.scalars(query), reverse=True) if ids else []

    def _wanted_of(self, name: str, ids: Collection[UUID]) -> Sequence[UUID]:
        """Return the newest ids that have the text in a field and that the filters leave. `ids`: the newest of all."""
        if len(ids) < _MOST or name == "message_id":
            return self._wanted(ids)
        column = Notification.event_id if name == "idempotency_key" else getattr(Notification, name)
        values: dict[str, Collection[Any]] = {
            "recipient": self._forms,
            "event_id": [self._id],
            "subscription_id": [self._id],
            "idempotency_key": self._made,
        }
        sought = values.get(name, [self._text])
        if name in _OF_MANY:
            return sorted((each for value in sought for each in self._newest(column == value)), reverse=True)
        # All are read before they are sorted: Postgres would go through all days for them in the order of ids.
        alike = self._notifications.with_only_columns(Notification.id).where(column.in_(sought)).cte("alike")
        newest = select(alike.prefix_with("MATERIALIZED").c.id).order_by(text("id DESC")).limit(self._limit + 1)
        return self._session.scalars(newest).all()

    def events(self) -> Results:
        """Return the events. Those that name an address or a dedup key are found by their notifications."""
        found = self._found[Type.EVENT]
        for name, ids in self._having[Type.EVENT].items():
            found.add(name, ids)
        by_id = [*([self._id] if self._id is not None else []), *self._made]
        told = self._found[Type.NOTIFICATION].by_field
        made_notifications = told["recipient"] | told["dedup_key"]
        through = self._failed_events()
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

    def _failed_events(self) -> set[UUID]:
        """Return the events that name the address and whose fan-out has failed, so that no notification has it."""
        # Read first: mostly there are none, and then no day of events is looked at.
        letters = select(DeadLetter.event_id).where(
            DeadLetter.notification_id.is_(None), DeadLetter.event_id.is_not(None)
        )
        failed = self._session.scalars(letters.order_by(DeadLetter.event_id.desc()).limit(_LOOKED_AT)).all()
        if not failed:
            return set()
        return set(
            self._session.scalars(select(Event.id).where(Event.id.in_(failed), Event.recipient.in_(self._forms)))
        )

    def users(self) -> Results:
        """Return the users."""
        found, held = self._found[Type.USER], dict[UUID, str]()
        rows = self._rows(User, self._having[Type.USER]["any"][: self._limit + 1])
        for row in rows:
            if row.user_id == self._text:
                found.add("user_id", [row.id])
            for channel, address in addresses_in(row):
                if address in self._forms or (channel is Channel.EMAIL and address.lower() in self._emails):
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
            newest = select(DeadLetter.id).where(column == self._id).order_by(DeadLetter.id.desc())
            found.add(column.key, self._session.scalars(newest.limit(self._limit + 1)))
        return self._results(Type.DEAD_LETTER, self._rows(DeadLetter, found.newest()))

    def subscriptions(self) -> Results:
        """Return the subscriptions."""
        found = self._found[Type.SUBSCRIPTION]
        if self._id is not None:
            found.add("id", self._session.scalars(select(Subscription.id).where(Subscription.id == self._id)))
        if "://" in self._text:
            found.add("url", ids_at(self._session, self._vault, self._text))
        return self._results(Type.SUBSCRIPTION, self._rows(Subscription, found.newest()))

    def suppressions(self) -> Results:
        """Return the suppressed addresses."""
        found = self._found[Type.SUPPRESSION]
        forms = {each for form in self._forms for channel in Channel for each in compared(channel, form)}
        query = select(Suppression).where(Suppression.channel.in_(list(Channel)), Suppression.folded.in_(forms))
        rows = self._session.scalars(query.order_by(Suppression.id.desc()).limit(self._limit + 1)).all()
        found.add("address", [row.id for row in rows])
        return self._results(Type.SUPPRESSION, rows)

    def _rows(self, model: type[_Row], ids: Collection[UUID]) -> Sequence[_Row]:
        """Return the rows with some ids."""
        return self._session.scalars(select(model).where(model.id.in_(ids))).all() if ids else []

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
