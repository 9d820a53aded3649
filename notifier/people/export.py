"""Export of all data about one person, as one JSON document.

The document is created while it is read, some hundreds of rows at a time and with no transaction open in between: a
person may have a hundred thousand notifications, and a slow reader must not hold anything. Rows are exported whole, so
that columns of later versions are included.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, text

from notifier.people import suppressions
from notifier.people.identities import THEIRS, named_by
from notifier.people.mentions import Named
from notifier.people.users import people, users_at
from notifier.security.address_seals import seals_of
from notifier.security.redaction import masked_json, opened_json, secrets_of
from notifier.storage.personal_data import named_in
from notifier.vocabulary.addresses import hash_of
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.states import Channel
from notifier.vocabulary.timestamps import rfc3339

#: Rows that are read at once, and ids that are remembered.
_PAGE: Final = 500
_IDS: Final = 20_000
#: The length from which on a text does not occur by chance.
_NO_CHANCE: Final = 8

_USER: Final = "SELECT CAST(row_to_json(u) AS text) FROM users u WHERE user_id = ANY(:users)"
_SUPPRESSIONS: Final = """
    SELECT CAST(row_to_json(s) AS text) FROM suppressions s
    WHERE (channel, folded) IN (SELECT * FROM unnest(CAST(:channels AS text[]), CAST(:addresses AS text[])))
    ORDER BY id
"""
_OPT_OUTS: Final = """
    SELECT CAST(json_build_object('channel', channel, 'category', category, 'created_at', created_at) AS text)
    FROM opt_outs
    WHERE (channel, address_hash) IN (SELECT * FROM unnest(CAST(:channels AS text[]), CAST(:hashes AS bytea[])))
    ORDER BY channel, category
"""
# Attempts, and attachments, are close to their notifications in time: the bound prunes partitions.
_NOTIFICATIONS: Final = f"""
    SELECT CAST(row_to_json(whole) AS text) FROM (
        SELECT n.*, (
            SELECT coalesce(json_agg(a ORDER BY number), '[]') FROM attempts a
            WHERE a.notification_id = n.id AND a.id >= :first
        ) AS attempt_log, (
            SELECT coalesce(json_agg(d ORDER BY id), '[]') FROM dead_letters d WHERE d.notification_id = n.id
        ) AS dead_letters, (
            SELECT coalesce(json_agg(r ORDER BY id), '[]') FROM resends r WHERE r.notification_id = n.id
        ) AS resends, (
            SELECT coalesce(json_agg(t ORDER BY happened_at), '[]') FROM taken_receipts t WHERE t.notification_id = n.id
        ) AS receipts, (
            SELECT coalesce(json_agg(json_build_object('id', id, 'name', name, 'content_type', content_type,
                'bytes', octet_length(content)) ORDER BY id), '[]')
            FROM attachments WHERE id IN (SELECT {named_in("n.content")})
        ) AS attachments
        FROM notifications n WHERE n.id = ANY(:ids)
    ) AS whole ORDER BY id
"""
_EVENTS: Final = "SELECT CAST(row_to_json(e) AS text) FROM events e WHERE e.id = ANY(:ids) ORDER BY id"
_OUTBOX: Final = "SELECT CAST(row_to_json(o) AS text) FROM outbox o WHERE o.id = ANY(:ids) ORDER BY id"
_THEIRS: Final = THEIRS.format(more="")
_DEDUP_KEYS: Final = f"""
    SELECT CAST(row_to_json(d) AS text) FROM dedup_keys d WHERE d.notification_id IN ({_THEIRS}) ORDER BY d.until
"""
# The ids of their rows. No index finds events by their recipient, but notifications of theirs name them.
_FIND: Final = {
    "notifications": THEIRS.format(more="AND id > :after"),
    "events": f"""
        SELECT id FROM events WHERE user_id = ANY(:users) AND id > :after
        UNION SELECT e.id FROM events e WHERE e.recipient = ANY(:forms) AND e.id > :after AND e.id IN (
            SELECT event_id FROM notifications WHERE id IN ({_THEIRS})
        )
    """,
    "outbox": f"SELECT o.id FROM outbox o WHERE o.notification_id IN ({_THEIRS}) AND o.id > :after",
}


def export(engine: Engine, user_id: str, *, reveals: bool = False) -> Iterator[bytes] | None:
    """Return a user's data as JSON; None if there is no such user. `reveals`: include the credentials in addresses.

    An object: `exported_at`, `user` (with preferences), `suppressions` and `opt_outs` of their addresses,
    `notifications` (each with `attempt_log`, `dead_letters` and `attachments`), `events` that name them, messages in
    the local `outbox`, `dedup_keys`. Rows that name no more than their address are included too, unless another user
    has that address. Rows that change meanwhile may be included in either state.
    """
    with engine.connect() as connection:
        person = people(connection, [user_id]).get(user_id)
        if person is None:
            return None
        own = [(channel, address) for channel in Channel for address in person.addresses(channel)]
        named = named_by(connection, [user_id], own)
    pieces = _pieces(engine, named, own)
    return _shown(engine, pieces, own, reveals=reveals)


def _shown(
    engine: Engine, pieces: Iterator[bytes], own: Sequence[tuple[Channel, str]], *, reveals: bool
) -> Iterator[bytes]:
    """Return the pieces of a document, of which each row is one, with the credentials in it opened or masked."""
    seals = seals_of(engine)
    if reveals:
        return (opened_json(piece.decode(), seals.opened_or_kept).encode() for piece in pieces)
    return _masked(pieces, [(channel, seals.opened_or_kept(address)) for channel, address in own])


def _masked(pieces: Iterator[bytes], own: Sequence[tuple[Channel, str]]) -> Iterator[bytes]:
    """Return the pieces of a document with the credentials of a person's addresses masked, wherever they occur."""
    # A short one would be found in ids.
    secrets = {each for _, address in own for each in secrets_of(address) if len(each) >= _NO_CHANCE}
    return (masked_json(piece.decode(), secrets).encode() for piece in pieces)


def export_address(engine: Engine, channel: Channel, address: str, *, reveals: bool = False) -> Iterator[bytes]:
    """Export, as `export` does, the data of the person at an address; `user` may be null.

    Raises Conflict if several users have it.
    """
    with engine.connect() as connection:
        found = users_at(connection, channel, address)
        named = named_by(connection, [], [(channel, address)])
    if len(found) > 1:
        raise Conflict(f"{len(found)} users have this address. Export those who are meant by their ids.")
    known = export(engine, found[0], reveals=reveals) if found else None
    if known is not None:
        return known
    pieces = _pieces(engine, named, [(channel, address)])
    return _shown(engine, pieces, [(channel, address)], reveals=reveals)


def _pieces(engine: Engine, named: Named, own: Sequence[tuple[Channel, str]]) -> Iterator[bytes]:
    one = {"users": sorted(named.user_ids), "forms": named.forms, "before": UUID(int=2**128 - 1)}
    compared = [(channel, form) for channel, address in own for form in suppressions.listed(engine, channel, [address])]
    addresses = {
        "channels": [channel.value for channel, _ in compared],
        "addresses": [form for _, form in compared],
    }
    hashes = {
        "channels": [channel.value for channel, _ in own],
        "hashes": [hash_of(channel, address) for channel, address in own],
    }
    yield b'{"exported_at":' + orjson.dumps(rfc3339(datetime.now(UTC)))
    yield b',"user":' + (next(_rows(engine, _USER, one), b"null"))
    yield from _list("suppressions", _rows(engine, _SUPPRESSIONS, addresses))
    yield from _list("opt_outs", _rows(engine, _OPT_OUTS, hashes))
    yield from _list("notifications", _paged(engine, "notifications", _NOTIFICATIONS, one))
    yield from _list("events", _paged(engine, "events", _EVENTS, one))
    yield from _list("outbox", _paged(engine, "outbox", _OUTBOX, one))
    yield from _list("dedup_keys", _rows(engine, _DEDUP_KEYS, one))
    yield b"}"


def _list(name: str, rows: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a member of the document: a list of rows."""
    yield b',"' + name.encode() + b'":['
    for place, row in enumerate(rows):
        yield b"," + row if place else row
    yield b"]"


def _rows(engine: Engine, query: str, values: dict[str, Any]) -> Iterator[bytes]:
    """Yield the rows of a query, as JSON."""
    with engine.connect() as connection:
        documents = _documents(connection, query, values)
    yield from documents


def _documents(connection: Connection, query: str, values: dict[str, Any]) -> list[bytes]:
    connection.execute(text("SET LOCAL TIME ZONE 'UTC'"))
    return [document.encode() for document in connection.scalars(text(query), values)]


def _paged(engine: Engine, table: str, query: str, one: dict[str, Any]) -> Iterator[bytes]:
    """Yield the rows of a table that name a user as JSON, page by page, given a query by their ids."""
    find = text(f"{_FIND[table]} ORDER BY id LIMIT {_IDS}")
    after: UUID | int | None = 0 if table == "outbox" else UUID(int=0)
    while after is not None:
        with engine.connect() as connection:
            ids = list(connection.scalars(find, {**one, "after": after}))
        for place in range(0, len(ids), _PAGE):
            page = ids[place : place + _PAGE]
            # An attempt's id is of its notification's millisecond.
            first = UUID(int=page[0].int >> 80 << 80) if isinstance(page[0], UUID) else None
            yield from _rows(engine, query, {"ids": page, "first": first})
        after = ids[-1] if ids else None
