"""Old days, filled with events, notifications and attempts as a busy system leaves them."""

from datetime import date

from sqlalchemy import Connection, text

from notifier.storage.partitions import TABLES, make_day, partition_of
from notifier.vocabulary.ids import first_id_of, millisecond_of

#: A UUIDv7 of the nth part of a day; the same for an event, its notification and its attempt.
ID = """
    CAST(lpad(to_hex(:first + CAST(n AS bigint) * 86400000 / :rows), 12, '0') || '7' || left(md5(CAST(n AS text)), 3)
        || '8' || right(md5(CAST(n AS text)), 15) AS uuid)
"""
_FILL = {
    "events": f"""
        INSERT INTO {{part}} (id, event_type, source, status, payload, recipient, channel, critical, priority,
            created_at)
        SELECT {ID}, 'USER_SIGNUP', 'bench', 'processed', '{{{{"n": 1, "order_id": "A123", "amount": 12.5}}}}',
            'http://127.0.0.1:9/hook', 'webhook', false, 'normal', now() FROM generate_series(0, :rows - 1) n
    """,
    "notifications": f"""
        INSERT INTO {{part}} (id, event_id, origin_id, event_type, source, recipient, channel, critical, priority,
            queue, status, due_at, send_at, claims, attempts, created_at, sent_at)
        SELECT id, id, id, 'USER_SIGNUP', 'bench', 'http://127.0.0.1:9/hook', 'webhook', false, 'normal', 'webhook',
            CASE WHEN live THEN 'scheduled' ELSE 'sent' END, CASE WHEN live THEN now() + interval '1 year' END,
            CASE WHEN live THEN now() + interval '1 year' END, 1, 1, now(), CASE WHEN NOT live THEN now() END
        FROM (SELECT {ID} AS id, n % :live = :live - 1 AS live FROM generate_series(0, :rows - 1) n) rows
    """,
    "attempts": f"""
        INSERT INTO {{part}} (id, notification_id, number, provider, outcome, status_code, response_excerpt,
            duration_ms, started_at)
        SELECT {ID}, {ID}, 1, 'webhook', 'accepted', 204, '', 12.5, now() FROM generate_series(0, :rows - 1) n
    """,
}
#: The tables that are filled.
FILLED = tuple(_FILL)


def fill_day(connection: Connection, day: date, rows: int, live: int) -> None:
    """Fill today or an earlier day with so many rows of each table; of `live` notifications one is not finished."""
    for table in TABLES:
        if connection.scalar(text("SELECT to_regclass(:name)"), {"name": partition_of(table, day)}) is None:
            make_day(connection, table, day)
    for table, statement in _FILL.items():
        query = text(statement.format(part=partition_of(table, day)))
        connection.execute(query, {"rows": rows, "first": millisecond_of(first_id_of(day)), "live": live})
