"""Old days, filled with events, notifications and attempts as a busy system leaves them."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from notifier.storage.partitions import TABLES, attach_day, create_day, partition_of
from notifier.vocabulary.ids import first_id_of, millisecond_of

#: A UUIDv7 of the nth part of a day; the same for an event, its notification and its attempt.
ID = """
    CAST(lpad(to_hex(:first + CAST(n AS bigint) * 86400000 / :rows), 12, '0') || '7' || left(md5(CAST(n AS text)), 3)
        || '8' || right(md5(CAST(n AS text)), 15) AS uuid)
"""
#: The moment of that id.
MOMENT = "to_timestamp((:first + CAST(n AS bigint) * 86400000 / :rows) / 1000.0)"
_FILL = {
    "events": f"""
        INSERT INTO {{part}} (id, event_type, source, status, payload, recipient, channel, critical, priority,
            created_at)
        SELECT {ID}, 'USER_SIGNUP', 'bench', 'processed', '{{{{"n": 1, "order_id": "A123", "amount": 12.5}}}}',
            'http://127.0.0.1:9/hook', 'webhook', false, 'normal', {MOMENT} FROM generate_series(0, :rows - 1) n
    """,
    "notifications": f"""
        INSERT INTO {{part}} (id, event_id, origin_id, event_type, source, recipient, channel, critical, priority,
            queue, status, due_at, send_at, claims, attempts, created_at, sent_at)
        SELECT id, id, id, 'USER_SIGNUP', 'bench', 'http://127.0.0.1:9/hook', 'webhook', false, 'normal', 'webhook',
            CASE WHEN live THEN 'scheduled' ELSE 'sent' END, CASE WHEN live THEN now() + interval '1 year' END,
            CASE WHEN live THEN now() + interval '1 year' END, 1, 1, at, CASE WHEN NOT live THEN at END
        FROM (
            SELECT {ID} AS id, {MOMENT} AS at, n % :live = :live - 1 AS live FROM generate_series(0, :rows - 1) n
        ) rows
    """,
    "attempts": f"""
        INSERT INTO {{part}} (id, notification_id, number, provider, outcome, status_code, response_excerpt,
            duration_ms, started_at)
        SELECT {ID}, {ID}, 1, 'webhook', 'accepted', 204, '', 12.5, {MOMENT}
        FROM generate_series(0, :rows - 1) n
    """,
}
#: The tables that are filled.
FILLED = tuple(_FILL)


_INDEXES = """
    SELECT index.indexrelid::regclass AS name, pg_get_indexdef(index.indexrelid) AS definition, key.conname AS key,
        pg_get_constraintdef(key.oid) AS key_definition
    FROM pg_index index LEFT JOIN pg_constraint key ON key.conindid = index.indexrelid
    WHERE index.indrelid = CAST(:table AS regclass)
"""


def fill_day(engine: Engine, day: date, rows: int, live: int) -> None:
    """Fill today or an earlier day with so many rows of each table; of `live` notifications one is not finished."""
    values = {"rows": rows, "first": millisecond_of(first_id_of(day)), "live": live}
    fill_tables(engine, day, _FILL, values)


def fill_tables(engine: Engine, day: date, statements: dict[str, str], values: dict[str, Any]) -> None:
    """Insert rows into a day's partitions by each table's statement, which names the partition `{part}`.

    Partitions that are missing are made. They get their indexes once they are full, which takes a third of the time,
    and are attached by short transactions: attaching locks the default partition, which the usual work reads.
    """
    for table in TABLES:
        part = partition_of(table, day)
        with engine.connect() as connection:
            is_there = connection.scalar(text("SELECT to_regclass(:name)"), {"name": part}) is not None
        with engine.begin() as connection:
            indexes = [] if is_there else _create_bare(connection, table, day)
            if table in statements:
                connection.execute(text(statements[table].format(part=part)), values)
            _add_indexes(connection, part, indexes)
        if not is_there:
            with engine.begin() as connection:
                attach_day(connection, table, day)


def _create_bare(connection: Connection, table: str, day: date) -> Sequence[Row[Any]]:
    """Create the table of a day's partition without its indexes; returns those."""
    create_day(connection, table, day)
    part = partition_of(table, day)
    indexes = connection.execute(text(_INDEXES), {"table": part}).all()
    for each in indexes:
        removed = f"ALTER TABLE {part} DROP CONSTRAINT {each.key}" if each.key else f"DROP INDEX {each.name}"
        connection.execute(text(removed))
    return indexes


def _add_indexes(connection: Connection, part: str, indexes: Sequence[Row[Any]]) -> None:
    connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
    for each in indexes:
        added = f"ALTER TABLE {part} ADD CONSTRAINT {each.key} {each.key_definition}" if each.key else each.definition
        connection.execute(text(added))


def vacuum(engine: Engine) -> None:
    """Vacuum all tables, as autovacuum has long done in a system that has so many rows. `engine`: of a superuser."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
