"""Resealing: seal the addresses with credentials that an earlier release has stored whole.

It goes through each table by its key, a page a transaction. A row that changes meanwhile is skipped: new values are
sealed when they are written. It is safe to repeat, and to interrupt anywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from notifier.notifications.claims import compared_for_dedup
from notifier.security.address_seals import PURPOSE, SEALED_CHANNELS, AddressSeals, seals_of
from notifier.security.secret_box import Vault
from notifier.security.signing_keys import find_signing_key, signing_key
from notifier.vocabulary.addresses import folded
from notifier.vocabulary.masking import seal_of
from notifier.vocabulary.states import Channel

_PAGE: Final = 1000
_CHANNELS: Final = tuple(sorted(each.value for each in SEALED_CHANNELS))


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of addresses."""

    table: str
    name: str
    #: Its channel, as SQL.
    channel: str = "channel"
    #: Where it differs for `name` = `:kept`.
    setting: str = "{name} = given.kept"
    condition: str = "true"


#: Addresses of subscriptions' notifications are masked already.
_COLUMNS: Final = (
    # Suppressions first, so that no suppressed address is sent to meanwhile.
    _Column("suppressions", "address", setting="address = given.kept, folded = given.kept"),
    _Column("users", "webhook_url", channel="'webhook'"),
    _Column("users", "chat_url", channel="'chat'"),
    _Column("events", "recipient"),
    _Column("notifications", "recipient", condition="subscription_id IS NULL"),
    _Column("outbox", "recipient"),
)
_DOUBLED: Final = text("""
    DELETE FROM suppressions s USING unnest(CAST(:ids AS text[]), CAST(:kept AS text[])) AS given(id, kept)
    WHERE CAST(s.id AS text) = given.id AND EXISTS (
        SELECT FROM suppressions other WHERE other.channel = s.channel AND other.folded = given.kept
    )
""")
_DEDUP_KEYS: Final = text("""
    SELECT channel, address, key FROM dedup_keys
    WHERE channel = ANY(:channels) AND (channel, address, key) > (:channel, :address, :key)
    ORDER BY channel, address, key LIMIT :page
""")
_MOVE_KEY: Final = text("""
    WITH old AS (DELETE FROM dedup_keys WHERE channel = :channel AND address = :address AND key = :key RETURNING *)
    INSERT INTO dedup_keys (channel, address, key, notification_id, until, scope)
    SELECT channel, :kept, key, notification_id, until, scope FROM old ON CONFLICT DO NOTHING
""")


def make_key(engine: Engine, vault: Vault) -> bool:
    """Make the key that addresses are sealed with; returns whether there was none. Raises CannotDecrypt, Conflict.

    No process of a release that knows no seals may run from now on.
    """
    if find_signing_key(engine, vault, PURPOSE) is not None:
        return False
    signing_key(engine, vault, PURPOSE)
    return True


def seal_stored(engine: Engine) -> Iterator[int]:
    """Seal values that are stored whole, a page at a time; yields how many rows each page changed.

    Raises the seals' errors. `engine` knows the seals (see `address_seals.with_seals`).
    """
    seals = seals_of(engine)
    for column in _COLUMNS:
        yield from _seal_column(engine, seals, column)
    yield from _seal_dedup_keys(engine, seals)


def _seal_column(engine: Engine, seals: AddressSeals, column: _Column) -> Iterator[int]:
    find = text(f"""
        SELECT id, {column.channel} AS channel, {column.name} AS address FROM {column.table}
        WHERE id > :after AND {column.channel} = ANY(:channels) AND {column.condition}
            AND {column.name} LIKE '%:/%' AND {column.name} NOT LIKE '% sealed:%'
        ORDER BY id LIMIT {_PAGE}
    """)
    update = text(f"""
        UPDATE {column.table} SET {column.setting.format(name=column.name)}
        FROM unnest(CAST(:ids AS text[]), CAST(:whole AS text[]), CAST(:kept AS text[])) AS given(id, whole, kept)
        WHERE {column.table}.id = ANY(:keys) AND CAST({column.table}.id AS text) = given.id
            AND {column.name} = given.whole
    """)
    after: Any = 0 if column.table == "outbox" else "00000000-0000-0000-0000-000000000000"
    while True:
        with engine.begin() as connection:
            rows = connection.execute(find, {"after": after, "channels": list(_CHANNELS)}).all()
            if not rows:
                return
            # Folded: an address that was kept before its form was normalised is compared by the normal one.
            kept = {row.id: seals.kept(Channel(row.channel), folded(Channel(row.channel), row.address)) for row in rows}
            changed = [row for row in rows if seal_of(kept[row.id]) is not None]
            values = {
                "ids": [str(row.id) for row in changed],
                "whole": [row.address for row in changed],
                "kept": [kept[row.id] for row in changed],
            }
            if column.table == "suppressions":
                connection.execute(_DOUBLED, {"ids": values["ids"], "kept": values["kept"]})
            if changed:
                connection.execute(update, {**values, "keys": [row.id for row in changed]})
        after = rows[-1].id
        yield len(changed)


def _seal_dedup_keys(engine: Engine, seals: AddressSeals) -> Iterator[int]:
    place = ("", "", "")
    while True:
        with engine.begin() as connection:
            values = dict(zip(("channel", "address", "key"), place, strict=True))
            rows = connection.execute(_DEDUP_KEYS, {**values, "channels": list(_CHANNELS), "page": _PAGE}).all()
            if not rows:
                return
            yield sum(_move_key(connection, seals, row) for row in rows)
        place = tuple(rows[-1])


def _move_key(connection: Connection, seals: AddressSeals, row: Any) -> bool:  # noqa: ANN401 -- channel, address, key
    kept = compared_for_dedup(Channel(row.channel), seals.kept(Channel(row.channel), row.address))
    if kept == row.address:
        return False
    connection.execute(_MOVE_KEY, {"channel": row.channel, "address": row.address, "key": row.key, "kept": kept})
    return True
