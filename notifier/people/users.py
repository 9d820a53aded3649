"""Users: their addresses and preferences."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Connection, Engine, func, literal, or_, select, text, union_all, update
from sqlalchemy.orm import Session

from notifier.models import User
from notifier.security.address_seals import SEALED_CHANNELS, AddressSeals, seals_of
from notifier.vocabulary.addresses import folded
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import PENDING_IN_SQL, Channel

#: Users who share an address, from which on it is no longer a rare one.
_SHARED: Final = 2000


@dataclass(frozen=True, slots=True)
class Person:
    """A known user, as routing sees them: with addresses in their kept form. Templates see `opened`."""

    user_id: str
    email: str | None
    phone: str | None
    push_tokens: tuple[str, ...]
    webhook_url: str | None
    chat_url: str | None
    timezone: str | None
    locale: str | None
    #: JSON text: if it is invalid, only its readers fail.
    attributes_text: str

    def addresses(self, channel: Channel) -> tuple[str, ...]:
        """Return the user's addresses on a channel."""
        if channel is Channel.PUSH:
            return self.push_tokens
        address: str | None = getattr(self, ADDRESS_FIELDS[channel])
        return (address,) if address else ()

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Return the attributes of the user, for templates. Raises ValueError if the stored text is no JSON."""
        attributes: Mapping[str, Any] = orjson.loads(self.attributes_text)
        return attributes

    def as_members(self) -> dict[str, Any]:
        """Return the user as templates see it. Raises the errors of invalid stored attributes."""
        names = (field.name for field in fields(self) if field.name != "attributes_text")
        return {**{name: getattr(self, name) for name in names}, "attributes": self.attributes}

    def opened(self, seals: AddressSeals) -> "Person":
        """Return them with whole addresses, those that can be opened. Raises SQLAlchemyError."""
        chat_url, webhook_url = (held and seals.opened_or_kept(held) for held in (self.chat_url, self.webhook_url))
        return replace(self, chat_url=chat_url, webhook_url=webhook_url)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels over which they can be reached."""
        return tuple(channel for channel in Channel if self.addresses(channel))


#: The field that holds the address of each channel; push has several.
ADDRESS_FIELDS: Final = {
    Channel.EMAIL: "email",
    Channel.SMS: "phone",
    Channel.PUSH: "push_tokens",
    Channel.CHAT: "chat_url",
    Channel.WEBHOOK: "webhook_url",
}

_PEOPLE: Final = text("""
    SELECT user_id, email, phone, push_tokens, webhook_url, chat_url, timezone, locale,
        CAST(attributes AS text) AS attributes
    FROM users WHERE user_id = ANY(:ids) ORDER BY user_id
""")
# Nobody is erased while notifications are being made for them: the deletion waits, and then finds those too.
_PEOPLE_KEPT: Final = text(f"{_PEOPLE.text} FOR KEY SHARE")
_ADD_OR_REPLACE: Final = text("""
    INSERT INTO users (id, user_id, email, phone, push_tokens, webhook_url, chat_url, timezone, locale, attributes,
        created_at, updated_at)
    VALUES (:id, :user_id, :email, :phone, :push_tokens, :webhook_url, :chat_url, :timezone, :locale,
        CAST(:attributes AS json), :now, :now)
    ON CONFLICT (user_id) DO UPDATE SET email = excluded.email, phone = excluded.phone,
        push_tokens = excluded.push_tokens, webhook_url = excluded.webhook_url, chat_url = excluded.chat_url,
        timezone = excluded.timezone, locale = excluded.locale, attributes = excluded.attributes,
        updated_at = excluded.updated_at
    RETURNING xmax = 0 AS is_new
""")
# Notifications that wait for a changed address move to the new one; those for a removed address are skipped, with that
# reason.
_MOVE_WAITING: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM notifications WHERE user_id = :user_id AND channel = :channel
            AND recipient = ANY(:old) AND status IN {PENDING_IN_SQL} ORDER BY id FOR UPDATE
    )
    UPDATE notifications n SET recipient = :new FROM locked WHERE n.id = locked.id
""")


def people(connection: Connection, user_ids: Iterable[str | None], *, keep: bool = False) -> dict[str, Person]:
    """Return the known users among these ids, by user_id; one query. `keep`: lock them until the transaction ends."""
    wanted = sorted({user_id for user_id in user_ids if user_id is not None})
    if not wanted:
        return {}
    rows = connection.execute(_PEOPLE_KEPT if keep else _PEOPLE, {"ids": wanted})
    return {
        row.user_id: Person(
            row.user_id,
            row.email,
            row.phone,
            tuple(row.push_tokens),
            row.webhook_url,
            row.chat_url,
            row.timezone,
            row.locale,
            row.attributes,
        )
        for row in rows
    }


def put(engine: Engine, user_id: str, fields: Mapping[str, Any], attributes: bytes) -> bool:
    """Write a whole user; `fields` are the validated columns, `attributes` JSON text. Returns whether they are new.

    Notifications that wait for a changed address move to the new one.
    """
    seals = seals_of(engine)
    sealed = {
        name: seals.kept(channel, fields[name])
        for channel, name in ADDRESS_FIELDS.items()
        if channel in SEALED_CHANNELS and fields[name] is not None
    }
    values = {**fields, **sealed, "attributes": attributes.decode(), "user_id": user_id, "id": new_id()}
    with engine.begin() as connection:
        before = people(connection, [user_id]).get(user_id)
        is_new = bool(connection.execute(_ADD_OR_REPLACE, {**values, "now": datetime.now(UTC)}).scalar_one())
        after = people(connection, [user_id])[user_id]
        for channel in Channel if before else ():
            _move(connection, channel, before, after)
    return is_new


def _move(connection: Connection, channel: Channel, before: Person | None, after: Person) -> None:
    old, new = before.addresses(channel) if before else (), after.addresses(channel)
    seals = seals_of(connection)
    for address in (each for each in old if each not in new):
        # Of several push tokens none takes over for another: each has its own message.
        successor = new[0] if new and channel is not Channel.PUSH else None
        values = {"user_id": after.user_id, "channel": channel.value, "new": successor}
        connection.execute(_MOVE_WAITING, {**values, "old": list(seals.forms(channel, address))})


def is_reached_at(session: Session, forms: Collection[str]) -> ColumnElement[bool]:
    """Tell whether a user is reached at an address, over any channel; `forms` as `addresses.sought` makes them.

    Of an email address, upper and lower case are the same. Each column has an index. Users are read by it first:
    Postgres cannot guess how few have an address, and would go through all users in the order that is asked for. An
    address that many users share is soon found so.
    """
    ways = [
        func.lower(User.email).in_([form.lower() for form in forms]),
        *(column.in_(forms) for column in (User.phone, User.webhook_url, User.chat_url)),
        User.push_tokens.bool_op("&&")(list(forms)),
    ]
    each = (select(literal(place).label("way"), User.id).where(way).limit(_SHARED) for place, way in enumerate(ways))
    rows = session.execute(union_all(*each)).all()
    found = Counter(row.way for row in rows)
    few = {row.id for row in rows if found[row.way] < _SHARED}
    return or_(User.id.in_(few), *(way for place, way in enumerate(ways) if found[place] == _SHARED))


_HAVE: Final = """
    SELECT user_id, email, phone, push_tokens, webhook_url, chat_url FROM users
    WHERE lower(email) = ANY(:emails) OR phone = ANY(:texts) OR webhook_url = ANY(:texts) OR chat_url = ANY(:texts)
        OR push_tokens && CAST(:texts AS text[])
"""


def addresses_in(row: Any) -> Iterator[tuple[Channel, str]]:  # noqa: ANN401 -- a user's, with these columns
    """Yield the addresses of a user's row, each with its channel."""
    for channel, name in ADDRESS_FIELDS.items():
        held = getattr(row, name)
        for each in held if isinstance(held, list) else [held] if held else ():
            yield channel, each


def _having(connection: Connection, addresses: Collection[tuple[Channel, str]]) -> Iterator[tuple[str, Channel, str]]:
    """Yield (user_id, channel, folded address) of the users who have one of some addresses, in any form."""
    seals = seals_of(connection)
    held = {(channel, form) for channel, address in addresses for form in seals.forms(channel, address)}
    texts = sorted({form for channel, address in held for form in (address, folded(channel, address))})
    wanted = {(channel, folded(channel, seals.opened_or_kept(address))) for channel, address in held}
    emails = sorted({address.lower() for address in texts})
    for row in connection.execute(text(_HAVE), {"texts": texts, "emails": emails}) if addresses else ():
        for channel, each in addresses_in(row):
            whole = folded(channel, seals.opened_or_kept(each))
            if (channel, whole) in wanted:
                yield row.user_id, channel, whole


def users_at(connection: Connection, channel: Channel, address: str) -> list[str]:
    """Return the ids of the users with an address on a channel."""
    return sorted({user_id for user_id, _, _ in _having(connection, [(channel, address)])})


def addresses_of_others(
    connection: Connection, addresses: Collection[tuple[Channel, str]], user_ids: Collection[str]
) -> set[tuple[Channel, str]]:
    """Return those of some addresses that users have whose ids are not given."""
    others = {(each, held) for user_id, each, held in _having(connection, addresses) if user_id not in user_ids}
    seals = seals_of(connection)
    return {
        (channel, address)
        for channel, address in addresses
        if (channel, folded(channel, seals.opened_or_kept(address))) in others
    }


def set_preferences(engine: Engine, user_id: str, preferences: Mapping[str, Any]) -> bool:
    """Write all of a user's preferences; false if there is no such user."""
    statement = update(User).where(User.user_id == user_id)
    with engine.begin() as connection:
        return connection.execute(statement.values(preferences=preferences, updated_at=func.now())).rowcount > 0


# One statement, so that two at once lose neither.
_SWITCH_CATEGORY: Final = text("""
    UPDATE users SET updated_at = now(), preferences = jsonb_set(
        jsonb_set(
            jsonb_set(coalesce(preferences, '{}'), '{categories}', coalesce(preferences -> 'categories', '{}')),
            CAST(ARRAY['categories', :category] AS text[]),
            coalesce(preferences -> 'categories' -> CAST(:category AS text), '{}')
        ),
        CAST(ARRAY['categories', :category, :channel] AS text[]), to_jsonb(CAST(:wanted AS boolean))
    ) WHERE user_id = :user_id
""")


def switch_category(engine: Engine, user_id: str, category: str, channel: Channel, *, wanted: bool) -> bool:
    """Switch one category on or off for one channel; false if there is no such user."""
    values = {"user_id": user_id, "category": category, "channel": channel.value, "wanted": wanted}
    with engine.begin() as connection:
        return connection.execute(_SWITCH_CATEGORY, values).rowcount > 0
