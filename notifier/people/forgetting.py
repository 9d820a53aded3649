"""Forgetting: go through every table in batches, and remove mentions of a person from its texts.

The tables and their columns come from the models, so that new ones are included. This module lists the columns that
must stay (states, names of templates, ids) and the tables of settings, which are left to operators: a route or a
template that names somebody is only reported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Column, Connection, Row, String, Table, Text, exists, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from notifier.models import Base, User
from notifier.models.declarative import JsonText
from notifier.people.mentions import SEPARATORS, Named

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's constructor is untyped
#: Rows of a batch: some tens of milliseconds. Attachments may have megabytes each.
_BATCH: Final = 1000
_LARGE: Final = 20

#: Events first: notifications made from a redacted event mention nobody any more.
_FIRST: Final = ("events", "notifications", "attempts", "attachments")
#: Tables of which nothing is read: without a person's texts, or a record that must not be changed, or hashed already.
_SKIPPED: Final = frozenset(
    {
        *("audit", "erasures", "heartbeats", "listeners", "opt_outs", "signing_keys", "suppressions"),
        *("stats_hours", "stats_minutes", "stats_progress"),
    }
)
#: Tables that operators write: mentions in them are reported, and left but for the columns given.
_OF_OPERATORS: Final[Mapping[str, frozenset[str]]] = {
    "api_keys": frozenset(),
    "holds": frozenset(),
    "routes": frozenset(),
    "subscriptions": frozenset({"description"}),
    "templates": frozenset(),
}
#: Tables whose row is deleted if it mentions the person: it is no more than a key.
_OF_KEYS: Final = frozenset({"dedup_keys", "idempotency_keys"})
#: Columns of keys, which go whole.
_KEYS: Final = frozenset({"cancellation_key", "dedup_key", "idempotency_key"})
#: Columns with our own words or operators' names; and columns that are erased with their row or not at all.
_KEPT: Final = frozenset(
    {
        *("source", "status", "channel", "queue", "priority", "reason", "outcome", "fault", "provider", "kind", "how"),
        *("event_type", "template", "route", "category", "on_ambiguous", "dedup_window", "lead_time", "next_channels"),
        *("timezone", "locale", "traceparent", "asked_by", "content_type", "user_id", "act"),
    }
)
#: Of users, others' rows have their own addresses.
_ONLY: Final[Mapping[str, frozenset[str]]] = {"users": frozenset({"attributes"}), "providers": frozenset({"error"})}
_NOBODY: Final = "recipient"

#: SQL for the rows that existed at the erasure, by table; later rows are not touched.
_BY_INDEX: Final = text(
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
)
_BY_ID: Final = "id < :erasure"
_BY_NOTIFICATION: Final = "notification_id < :erasure"
_BEFORE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("events", "notifications", "attempts", "attachments", "users", "dead_letter_acts"), _BY_ID),
    **dict.fromkeys(("dedup_keys", "outbox", "receipts", "resends", "taken_receipts"), _BY_NOTIFICATION),
    "dead_letters": "coalesce(notification_id, event_id, id) < :erasure",
    "idempotency_keys": "created_at < :since",
}


@dataclass(frozen=True, slots=True)
class Sought:
    """The person whose mentions are removed, and the erasure's id and time: later rows stay as they are."""

    named: Named
    erasure: UUID
    since: datetime


@dataclass(slots=True)
class Batch:
    """The result of a batch: the place behind it (None behind the last row), and how many rows were changed."""

    place: list[str] | None
    changed: int = 0
    #: Rows that are theirs, and not only mention them: to be erased.
    events: list[UUID] = field(default_factory=list)
    notifications: list[UUID] = field(default_factory=list)
    #: Whether a table of operators' mentions them.
    is_left: bool = False


@dataclass(frozen=True)
class _Plan:
    """The columns that are read of a table, and those of them that may be changed."""

    table: Table
    read: tuple[Column[Any], ...]
    changed: frozenset[str]

    @property
    def key(self) -> list[Column[Any]]:
        return list(self.table.primary_key.columns)


def tables() -> list[str]:
    """Return the tables in the order in which they are processed."""
    others = sorted(Base.metadata.tables.keys() - set(_FIRST) - _SKIPPED)
    return [name for name in (*_FIRST, *others) if _plan(name).read]


def redact(connection: Connection, table: str, place: Sequence[str] | None, sought: Sought) -> Batch:
    """Take the mentions of a person out of the next rows of a table, in the connection's transaction."""
    plan = _plan(table)
    page = _page(connection, plan, place, sought)
    if not page:
        return Batch(None)
    keys = [tuple(row[: len(plan.key)]) for row in page]
    batch = Batch([str(value) for value in keys[-1]])
    hits = [key for key, row in zip(keys, page, strict=True) if row.is_hit]
    if table in _OF_OPERATORS:
        batch.is_left = any(_mentions(row, plan, sought.named) for row in _rows(connection, plan, hits, ""))
    for row in _rows(connection, plan, hits, "FOR UPDATE") if plan.changed else ():
        _redact_row(connection, plan, row, sought, batch)
    return batch


@lru_cache(maxsize=100)
def _plan(name: str) -> _Plan:
    table = Base.metadata.tables[name]
    texts = [column for column in table.columns if _is_text(column)]
    changeable = {column.name for column in texts} - _KEPT
    if name in _ONLY:
        changeable &= _ONLY[name]
    if name in _OF_OPERATORS:
        return _Plan(table, tuple(texts), _OF_OPERATORS[name])
    # The owner of a row is in columns that are not changed.
    beside = {"user_id", "channel"} if {_NOBODY, "address"} & set(table.columns.keys()) else set()
    return _Plan(table, tuple(each for each in texts if each.name in changeable | beside), frozenset(changeable))


def _is_text(column: Column[Any]) -> bool:
    is_array = isinstance(column.type, ARRAY) and isinstance(column.type.item_type, Text)
    return isinstance(column.type, String | JsonText | JSONB) or is_array


def _page(connection: Connection, plan: _Plan, place: Sequence[str] | None, sought: Sought) -> Sequence[Row[Any]]:
    """Return the primary keys of the next rows, each with whether it may mention the person (`is_hit`)."""
    name, key = plan.table.name, plan.key
    columns = ", ".join(column.name for column in key)
    conditions = [_BEFORE.get(name, "true")]
    values: dict[str, Any] = {"erasure": sought.erasure, "since": sought.since, "pattern": sought.named.sql_pattern()}
    if place is not None:
        bounds = ", ".join(f"CAST(:place{n} AS {column.type.compile(_DIALECT)})" for n, column in enumerate(key))
        conditions.append(f"({columns}) > ({bounds})")
        values |= {f"place{n}": value for n, value in enumerate(place)}
    texts = ", ".join(f"CAST({column.name} AS text)" for column in plan.read)
    values |= {"likes": sought.named.sql_likes(), "separators": SEPARATORS}
    whole = f"concat_ws(E'\\n', {texts})"
    looked_at = f"(plain LIKE ANY(:likes) AND {whole} ~* :pattern)"
    if name == "attachments":
        # Their bytes as they are, where those are ASCII.
        looked_at = f"({looked_at} OR encode(content, 'escape') ~* :pattern)"
    if {"user_id", _NOBODY} <= set(plan.table.columns.keys()):
        looked_at = f"({looked_at} OR user_id = ANY(:users) OR recipient = ANY(:forms))"
        values |= {"users": sorted(sought.named.user_ids), "forms": sought.named.forms}
    query = text(f"""
        SELECT {columns}, coalesce({looked_at}, false) AS is_hit FROM (
            SELECT *, translate(lower({whole}), :separators, '') AS plain FROM {name}
            WHERE {" AND ".join(conditions)} ORDER BY {columns} LIMIT {_LARGE if name == "attachments" else _BATCH}
        ) AS page ORDER BY {columns}
    """)
    # Without statistics Postgres may read and sort a whole day for each page.
    connection.execute(_BY_INDEX)
    return connection.execute(query, values).all()


def _rows(connection: Connection, plan: _Plan, keys: Sequence[tuple[Any, ...]], lock: str) -> Iterable[Row[Any]]:
    """Read some rows, one by one: few of them mention the person."""
    name, columns = plan.table.name, ", ".join(column.name for column in plan.key)
    key = {column.name for column in plan.key}
    texts = "".join(f", {_as_text(column)}" for column in plan.read if column.name not in key)
    more = ", content" if name == "attachments" else ""
    where = " AND ".join(f"{column.name} = :key{n}" for n, column in enumerate(plan.key))
    query = text(f"SELECT {columns}{texts}{more} FROM {name} WHERE {where} {lock}")
    for each in keys:
        yield from connection.execute(query, {f"key{n}": value for n, value in enumerate(each)})


def _as_text(column: Column[Any]) -> str:
    is_json = isinstance(column.type, JsonText | JSONB)
    return f"CAST({column.name} AS text) AS {column.name}" if is_json else column.name


def _mentions(row: Row[Any], plan: _Plan, named: Named) -> bool:
    left = [column for column in plan.read if column.name not in plan.changed]
    return any(_without(column, row._mapping[column.name], named) != row._mapping[column.name] for column in left)


def _redact_row(connection: Connection, plan: _Plan, row: Row[Any], sought: Sought, batch: Batch) -> None:
    name, found = plan.table.name, row._mapping
    if name in {"events", "notifications"} and _is_theirs(connection, row, sought.named):
        (batch.events if name == "events" else batch.notifications).append(found["id"])
        return
    changes = {}
    for column in plan.read:
        value = found[column.name]
        new = (
            _without(column, value, sought.named, is_at=found.get("channel")) if column.name in plan.changed else value
        )
        if new != value:
            changes[column.name] = new
    if name == "attachments" and (content := _content_without(bytes(found["content"]), sought.named)) is not None:
        changes["content"] = content
    if not changes:
        return
    where = " AND ".join(f"{column.name} = :key{n}" for n, column in enumerate(plan.key))
    keys = {f"key{n}": found[column.name] for n, column in enumerate(plan.key)}
    if name in _OF_KEYS:
        connection.execute(text(f"DELETE FROM {name} WHERE {where}"), keys)
    else:
        casts = {column.name: "json" for column in plan.read if isinstance(column.type, JsonText)}
        casts |= {column.name: "jsonb" for column in plan.read if isinstance(column.type, JSONB)}
        setting = ", ".join(f"{each} = CAST(:{each} AS {casts[each]})" if each in casts else f"{each} = :{each}"
                            for each in changes)  # fmt: skip
        connection.execute(text(f"UPDATE {name} SET {setting} WHERE {where}"), keys | changes)
    batch.changed += 1


def _is_theirs(connection: Connection, row: Row[Any], named: Named) -> bool:
    """Return whether a row is the person's: it names them, or goes to their address and to no other user."""
    if row.user_id in named.user_ids:
        return True
    is_at = named.is_at(row.recipient, row.channel)
    return is_at and not (row.user_id and connection.scalar(select(exists().where(User.user_id == row.user_id))))


def _without(column: Column[Any], value: Any, named: Named, is_at: str | None = None) -> Any:  # noqa: ANN401 -- an SQL expression or a value
    """Return a column's value without mentions of a person."""
    if value is None:
        return None
    if column.name == "address":
        return None if named.is_at(value, is_at) else value
    if column.name in _KEYS or column.table.name in _OF_KEYS:
        return None if named.are_in(value) else value
    if column.name == _NOBODY and named.is_at(value, is_at):
        return None if column.nullable else named.taken_out_of(value)
    if isinstance(column.type, JsonText | JSONB):
        return named.taken_out_of_json(value)
    if isinstance(value, list):
        return [named.taken_out_of(each) for each in value]
    return named.taken_out_of_name(value) if column.name == "name" else named.taken_out_of(value)


def _content_without(content: bytes, named: Named) -> bytes | None:
    """Return a file that is a text without mentions of a person; None where there are none, or it is no text."""
    try:
        before = content.decode()
    except UnicodeDecodeError:
        return None
    after = named.taken_out_of(before)
    return None if after == before else after.encode()
