"""Days filled with rows of many kinds, for searches: frequent values, rare ones, and ones that ended long ago.

Of each column that is filtered by, half of the oldest day has a value that no later day has, and five rows of it have a
value that no other row has: whoever goes through the table from its newest end finds both only there.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Engine, text

from benchmarks.filled_days import ID, MOMENT, fill_tables
from notifier.vocabulary.ids import first_id_of, millisecond_of

#: Of so many notifications one has failed; and so many of the newest wait, as do their events.
_FAILED: Final = 200
_QUEUED: Final = 500
_USERS: Final = 50_000
#: Sources that have used idempotency keys.
_SOURCES: Final = 20


def _value(usual: str, name: str) -> str:
    """Return SQL for a column's value: `old-NAME` or `rare-NAME` on the oldest day, else a usual one."""
    return (
        f"CASE WHEN :oldest AND n < 5 THEN 'rare-{name}' WHEN :oldest AND n % 2 = 0 THEN 'old-{name}' ELSE {usual} END"
    )


_EVENT_TYPE: Final = _value("CASE n % 3 WHEN 0 THEN 'order.' || n % 40 ELSE 'order.paid' END", "type")
_SOURCE: Final = _value("'shop'", "source")
_USER: Final = _value(f"'u_' || n % {_USERS} * 7919 % {_USERS}", "user")
_RECIPIENT: Final = _value(
    "CASE n % 3 WHEN 0 THEN 'https://hooks.example.com/in'"
    f" ELSE 'user' || n % {_USERS} * 7919 % {_USERS} || '@example.com' END",
    "recipient@example.com",
)
_CHANNEL: Final = "CASE WHEN :oldest AND n < 5 THEN 'chat' WHEN :oldest AND n % 2 = 0 THEN 'push' ELSE 'email' END"
_PROVIDER: Final = _value("'smtp'", "provider")
_KEYS: Final = (
    "'req-' || :day || '-' || n, CASE WHEN n % 10 = 0 THEN 'cancel-' || :day || '-' || n END,"
    " CASE WHEN n % 10 = 1 THEN 'dedup-' || :day || '-' || n END"
)
_FILL: Final = {
    "events": f"""
        INSERT INTO {{part}} (id, event_type, source, user_id, recipient, channel, request_id, cancellation_key,
            dedup_key, status, due_at, payload, critical, priority, created_at)
        SELECT {ID}, {_EVENT_TYPE}, {_SOURCE}, {_USER}, {_RECIPIENT}, {_CHANNEL}, {_KEYS},
            CASE WHEN :oldest AND n % 1000 = 999 THEN 'failed' WHEN :newest AND n >= :rows - {_QUEUED} THEN 'accepted'
                ELSE 'processed' END,
            CASE WHEN :newest AND n >= :rows - {_QUEUED} THEN now() + interval '1 year' END,
            '{{{{"order_id": "A123", "amount": 12.5}}}}', false, 'normal', {MOMENT}
        FROM generate_series(0, :rows - 1) n
    """,
    "notifications": f"""
        INSERT INTO {{part}} (id, event_id, origin_id, event_type, source, user_id, recipient, channel, request_id,
            cancellation_key, dedup_key, status, reason, due_at, sent_at, subscription_id, critical, priority, queue,
            claims, attempts, created_at)
        SELECT id, id, id, event_type, source, user_id, recipient, channel, request_id, cancellation_key, dedup_key,
            CASE WHEN live THEN 'queued' WHEN dead THEN 'failed' WHEN :oldest AND n < 5 THEN 'expired'
                WHEN n % 2 = 0 THEN 'sent' ELSE 'delivered' END,
            CASE WHEN live THEN NULL WHEN :oldest AND dead THEN 'too_old' WHEN dead THEN 'retries_exhausted'
                WHEN :oldest AND n < 5 THEN 'rare_reason' END,
            CASE WHEN live THEN now() + interval '1 year' END, CASE WHEN NOT live THEN at END,
            CASE WHEN n % 3 = 0 THEN CAST('00000000-0000-7000-8000-00000000000' || n % 10 AS uuid) END,
            false, 'normal', channel, 1, 1, at
        FROM (
            SELECT n, {ID} AS id, {MOMENT} AS at, {_EVENT_TYPE} AS event_type, {_SOURCE} AS source, {_USER} AS user_id,
                {_RECIPIENT} AS recipient, {_CHANNEL} AS channel, keys.*, n % {_FAILED} = {_FAILED} - 1 AS dead,
                :newest AND n >= :rows - {_QUEUED} AS live
            FROM generate_series(0, :rows - 1) n
                CROSS JOIN LATERAL (SELECT {_KEYS}) AS keys(request_id, cancellation_key, dedup_key)
        ) rows
    """,
    "attempts": f"""
        INSERT INTO {{part}} (id, notification_id, number, provider, message_id, outcome, status_code, duration_ms,
            started_at)
        SELECT {ID}, {ID}, 1, {_PROVIDER}, 'm-' || :day || '-' || n, 'accepted', 250, 12.5, {MOMENT}
        FROM generate_series(0, :rows - 1) n
    """,
}
#: Tables without days, filled once.
_FILL_ONCE: Final = (
    f"""
        INSERT INTO users (id, user_id, email, phone, push_tokens, attributes, created_at, updated_at)
        SELECT {ID}, 'u_' || n, 'User' || n || '@example.com', '+4915' || 100000000 + n, ARRAY['device-' || n], '{{}}',
            now(), now() FROM generate_series(0, :rows - 1) n
    """,
    f"""
        INSERT INTO idempotency_keys (source, key, fingerprint, ids, created_at, expires_at)
        SELECT 'source-' || n % {_SOURCES}, 'key-' || n, '\\x00', ARRAY[{ID}], now(), now() + interval '1 day'
        FROM generate_series(0, :rows - 1) n
    """,
    f"""
        INSERT INTO suppressions (id, channel, address, folded, reason, created_at)
        SELECT {ID}, 'email', address, address, 'hard_bounce', now()
        FROM (SELECT n, 'gone' || n || '@example.com' AS address FROM generate_series(0, :rows - 1) n) addresses
    """,
    f"""
        INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)
        SELECT {ID}, 'https://receiver-' || n || '.example.com/in', '{{order.*}}', '{{}}', false, '\\x00', now(), now()
        FROM generate_series(0, least(:rows, 5000) - 1) n
    """,
    """
        INSERT INTO dead_letters (id, notification_id, event_id, claims, channel, event_type, reason, error, attempts,
            created_at)
        SELECT id, id, event_id, 1, channel, event_type, reason,
            CASE WHEN row_number() OVER (ORDER BY id) <= 5 THEN 'rare failure' ELSE 'refused by the server' END,
            1, created_at
        FROM notifications WHERE status = 'failed'
    """,
)


def _day(back: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=back)


def fill_day(engine: Engine, back: int, days: int, rows: int) -> None:
    """Fill the day so many before today, of so many days, with so many rows of each table."""
    day = _day(back)
    values = {"oldest": back == days - 1, "newest": back == 0, "day": back, "rows": rows, "first": _first_of(day)}
    fill_tables(engine, day, _FILL, values)


def fill_once(engine: Engine, rows: int) -> None:
    """Fill the tables without days with so many rows each, once the days are filled."""
    first = _first_of(_day(0))
    with engine.begin() as connection:
        for statement in _FILL_ONCE:
            connection.execute(text(statement), {"rows": rows, "first": first} if ":rows" in statement else {})


def fill(engine: Engine, days: int, rows: int) -> None:
    """Fill so many days up to today with so many rows of each table a day, and the tables without days."""
    for back in range(days):
        fill_day(engine, back, days, rows)
    fill_once(engine, rows)


def _first_of(day: date) -> int:
    return millisecond_of(first_id_of(day))
