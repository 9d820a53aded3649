"""The worst that each column can hold, and twenty good neighbours."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.vocabulary.ids import new_id

GOOD: Final = 20


#: JSON that Postgres keeps and that no reader of ours takes.
DOCUMENTS = (
    *("""'{"a": 1e999, "a": 1}'""", """'{"a": "\\ud800", "a": 1}'""", """'"\\u0000"'""", "'5'", "'null'", "'[]'"),
    "CAST(repeat('[', 3000) || repeat(']', 3000) AS json)",
    """CAST('{"a": ' || repeat('9', 6000) || '}' AS json)""",
)


TEXTS = ("''", "'nonsense'", "repeat('x', 100000)", "E'\\x01\\x1b[0m\\r\\nBcc: eve@example.com\\n'", "U&'\\FFFF\\202E'")
TIMES = ("'infinity'", "'-infinity'", "'0044-03-15 00:00+00 BC'", "'294276-01-01 00:00+00'", "'9999-12-31 23:59+00'")
NUMBERS = ("2147483647", "-2147483648")
ZONES = (*TEXTS, "'right/Europe/Berlin'", "'Mars/Phobos'", "'../../etc/passwd'")
DURATIONS = (*TEXTS, "'P1Y'", "'P999999W'", "'PT999999999H'")
NOTHING = ("NULL",)


#: The worst values that a column of each table may hold, as SQL expressions; or the reason why it needs none.
NOTIFICATIONS: dict[str, Sequence[str] | str] = {
    "id": "the key",
    "status": "the state machine's, which the database itself holds to in tests",
    "queue": "whoever looks into a queue asks for it by name; nobody hands over what is in none",
    "event_id": (*NOTHING, "'00000000-0000-7000-8000-000000000000'"),
    "event_type": (*NOTHING, *TEXTS),
    "source": TEXTS,
    "user_id": (*NOTHING, *TEXTS),
    "recipient": (*NOTHING, *TEXTS),
    "channel": (*NOTHING, "'fax'", "'sms'"),
    "category": (*NOTHING, *TEXTS),
    "critical": ("true",),
    "priority": TEXTS,
    "content": (
        *(*NOTHING, *DOCUMENTS, "'{\"data\": 5}'", "'{\"data\": null}'", "'{\"body\": 5}'", "'{\"body\": {}}'"),
        *('\'{"data": {}, "attachments": ["x"]}\'', '\'{"data": {}, "attachments": 5}\''),
        *(
            '\'{"data": {}, "from": 5}\'',
            '\'{"data": {}, "from": "no\\r\\nbody"}\'',
            '\'{"data": {}, "reply_to": {}}\'',
        ),
        '\'{"data": {"name": 1e999, "name": "Ada"}}\'',
    ),
    "reason": TEXTS,
    "due_at": TIMES,
    "send_at": TIMES,
    "expires_at": TIMES,
    "cancellation_key": (*NOTHING, *TEXTS[:2], "repeat('x', 2000)"),
    "claims": NUMBERS,
    "attempts": NUMBERS,
    "tries": "rows that have another number than their message are not its own: see the clock's test",
    "lost": NUMBERS,
    "silent_claim": (*NOTHING, *NUMBERS),
    "created_at": TIMES,
    "sent_at": TIMES,
    "delivered_at": TIMES,
    "origin_id": NOTHING,
    "route": TEXTS,
    "template": TEXTS,
    "template_id": (*NOTHING, "'00000000-0000-7000-8000-000000000000'"),
    "template_version": NUMBERS,
    "target_date": (*NOTHING, *TIMES),
    "lead_time": (*NOTHING, *DURATIONS),
    "timezone": ZONES,
    "dedup_key": (*TEXTS[:2], "repeat('x', 2000)"),
    "dedup_window": (*NOTHING, *DURATIONS),
    "dedup_scope": TEXTS,
    "next_channels": ("ARRAY['fax', NULL]", "CAST('{}' AS text[])"),
    "siblings": ("CAST(ARRAY[NULL] AS uuid[])",),
    "follows": ("'00000000-0000-7000-8000-000000000000'",),
    "rule": TEXTS,
    "explanation": TEXTS,
    "waits_for": ("ARRAY['nonsense', NULL]", "CAST('{}' AS text[])"),
    "subscription_id": ("'00000000-0000-7000-8000-000000000000'",),
    "on_ambiguous": TEXTS,
    "request_id": TEXTS,
    "traceparent": (*TEXTS, "'00-' || repeat('0', 32) || '-' || repeat('0', 16) || '-01'"),
    "deferred_at": TIMES,
    "judged": (*NOTHING, *DOCUMENTS),
}


EVENTS: dict[str, Sequence[str] | str] = {
    "id": "the key",
    "status": "the state machine's",
    "event_type": TEXTS,
    "source": TEXTS,
    "payload": (*DOCUMENTS, '\'{"keys": {}, "payload": 1, "event": 2, "user": 3}\''),
    "recipient": (*NOTHING, *TEXTS),
    "channel": (*NOTHING, "'fax'", *TEXTS),
    "user_id": (*NOTHING, *TEXTS),
    "category": TEXTS,
    "critical": ("true",),
    "priority": TEXTS,
    "send_at": TIMES,
    "expires_at": TIMES,
    "cancellation_key": (*TEXTS[:2], "repeat('x', 2000)"),
    "idempotency_key": TEXTS,
    "occurred_at": TIMES,
    "created_at": TIMES,
    "due_at": TIMES,
    "handovers": NUMBERS,
    "error": TEXTS,
    "template": TEXTS,
    "target_date": (*NOTHING, *TIMES),
    "lead_time": ("CAST(ARRAY[NULL] AS text[])", "ARRAY['nonsense']", "ARRAY['P36525D']", "CAST('{}' AS text[])"),
    "timezone": ZONES,
    "dedup_key": TEXTS[:2],
    "dedup_window": DURATIONS,
    "dedup_scope": TEXTS,
    "on_ambiguous": TEXTS,
    "request_id": TEXTS,
    "traceparent": TEXTS,
    "fan_out_after": ("'ffffffff-ffff-7fff-bfff-ffffffffffff'",),
    "cancelled_at": TIMES,
}


SUBSCRIPTIONS: dict[str, Sequence[str] | str] = {
    "id": "the key",
    "url": (*TEXTS, "'http://[::1'"),
    "sealed_url": ("''", "'\\x00ff'"),
    "sealed_headers": ("''", "'\\x00ff'"),
    "event_types": ("CAST('{}' AS text[])", "CAST(ARRAY[NULL] AS text[])", "ARRAY['', '*', '**']"),
    "filter": (*TEXTS, "'payload.['", "repeat('[', 2000)", "'sort(@)'"),
    "description": TEXTS,
    "headers": (*DOCUMENTS, "'{\"a\": 5}'", "'{\"a\": null}'", '\'{"a\\r\\nb": "c\\r\\nd"}\''),
    "rate_limit_per_second": ("0", "-1", "'NaN'", "'infinity'", "'-infinity'", "1e-300", "1e300"),
    "permanent_statuses": ("CAST('{}' AS integer[])", "CAST(ARRAY[NULL, -1] AS integer[])"),
    "enabled": ("false",),
    "disabled_reason": TEXTS,
    "secret": ("''", "'\\x00ff'"),
    "previous_secret": ("''", "'\\x00ff'"),
    "previous_secret_until": TIMES,
    "created_at": TIMES,
    "updated_at": TIMES,
}


ROUTES: dict[str, Sequence[str] | str] = {
    "id": "the key",
    "name": TEXTS,
    "event_type": TEXTS,
    "definition": (
        *(*DOCUMENTS, "'{}'", "'{\"event_type\": 5}'", '\'{"event_type": "poison.*"}\''),
        *('\'{"event_type": "poison.*", "to": 5}\'', '\'{"event_type": "poison.*", "to": {}}\''),
        *(
            f'\'{{"event_type": "poison.*", "to": {{"user_id": "user_id"}}, {more}}}\''
            for more in (
                *('"template": 5', '"template": {}', '"category": {}', '"critical": "nonsense"', '"critical": 5'),
                *('"channels": ["fax"]', '"strategy": "nonsense"', '"priority": "urgent"', '"filter": "payload.["'),
                *('"lead_time": ["nonsense"], "target_date": "created_at"', '"template": 5', '"filter": 5'),
                '"lead_time": 5, "target_date": "created_at"',
            )
        ),
    ),
    "enabled": ("true",),
    "created_at": TIMES,
    "updated_at": TIMES,
}


def worst(*tables: Mapping[str, Sequence[str] | str], names: Sequence[str]) -> list[Any]:
    """Each column of some tables that has worst values, and those."""
    return [
        pytest.param(name, column, values, id=f"{name}.{column}")
        for table, name in zip(tables, names, strict=True)
        for column, values in table.items()
        if not isinstance(values, str)
    ]


class Batch:
    """Twenty good notifications and some that a test spoils, each with an event, a user and a template of its own."""

    def __init__(self, engine: Engine, values: Sequence[str], **columns: str) -> None:
        """`values`: what the bad ones get. `columns`: SQL expressions for columns of the notifications."""
        self._engine = engine
        self.ids = [new_id() for _ in range(GOOD + len(values))]
        #: In the middle, so that they have neighbours on both sides.
        self.bad = dict(zip(self.ids[GOOD // 2 :], values, strict=False))
        self.good = [each for each in self.ids if each not in self.bad]
        usual = {
            **dict.fromkeys(("id", "event_id", "template_id", "origin_id"), "id"),
            **{"event_type": "'poison.row'", "source": "'test'", "user_id": "CAST(id AS text)", "channel": "'email'"},
            **{"recipient": "id || '@example.com'", "critical": "false", "priority": "'normal'", "queue": "'email'"},
            **{"status": "'queued'", "due_at": "now() + interval '1 hour'", "created_at": "now()"},
            **{"content": '\'{"data": {"name": "Ada"}}\'', "template": "'t'", "template_version": "1"},
            **{"dedup_key": "'once'", "dedup_window": "'P1D'", "cancellation_key": "CAST(id AS text)"},
            **{"target_date": "now() + interval '2 hours'", "lead_time": "'PT1H'", "timezone": "'UTC'"},
            **{"traceparent": "'00-' || repeat('a', 32) || '-' || repeat('b', 16) || '-01'"},
        }
        self._insert("notifications", usual | columns)
        self._insert(
            "events",
            {
                **{"id": "id", "event_type": "'poison.row'", "source": "'test'", "status": "'processed'"},
                **{"payload": "'{\"a\": 1}'", "critical": "false", "priority": "'normal'", "created_at": "now()"},
            },
        )
        self._insert(
            "users",
            {
                **{"id": "id", "user_id": "CAST(id AS text)", "email": "id || '@example.com'", "push_tokens": "'{}'"},
                **{"timezone": "'Europe/Berlin'", "attributes": "'{\"x\": 1}'", "created_at": "now()"},
                **{"updated_at": "now()", "preferences": "'{\"quiet_hours\": []}'"},
            },
        )
        self._insert(
            "templates",
            {
                **{"id": "id", "name": "CAST(id AS text)", "channel": "'email'", "locale": "'default'", "version": "1"},
                **{"subject": "'{{ event.event_type }}'", "created_at": "now()"},
                "text": "'{{ payload.name }} {{ user.attributes.x }}{{ event.payload.a }}'",
            },
        )

    def _insert(self, table: str, columns: Mapping[str, str]) -> None:
        self.sql(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            " FROM unnest(CAST(:ids AS uuid[])) AS made(id)",
            ids=self.ids,
        )

    def sql(self, statement: str, **values: Any) -> list[Any]:
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def spoil(self, table: str, column: str) -> None:
        """Give those that are bad their values."""
        with self._engine.begin() as connection:
            for row_id, value in self.bad.items():
                escaped = value.replace("%", "%%")
                connection.exec_driver_sql(f"UPDATE {table} SET {column} = {escaped} WHERE id = '{row_id}'")

    def good_ends(self) -> list[tuple[str, int, int]]:
        """Status, attempts and recorded attempts of the good ones."""
        rows = self.sql(
            "SELECT status, attempts, (SELECT count(*) FROM attempts a WHERE a.notification_id = n.id)"
            " FROM notifications n WHERE id = ANY(:ids)",
            ids=self.good,
        )
        return [tuple(row) for row in rows]

    def bad_ends(self) -> list[tuple[str, str, str | None, str | None]]:
        """Value, status, reason and the dead letter's error of the bad ones."""
        rows = self.sql(
            "SELECT id, status, reason, (SELECT min(error) FROM dead_letters d WHERE d.notification_id = n.id)"
            " FROM notifications n WHERE id = ANY(:ids)",
            ids=list(self.bad),
        )
        return [(self.bad[row.id], *row[1:]) for row in rows]


def subscribe(batch: Batch, ids: Sequence[UUID], url: str, secret: bytes) -> None:
    """Make subscriptions with these ids."""
    batch.sql(
        "INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)"
        " SELECT id, :url, '{poison.*}', CAST(:headers AS json), true, :secret, now(), now()"
        " FROM unnest(CAST(:ids AS uuid[])) AS made(id)",
        ids=list(ids),
        url=url,
        headers='{"x-a": "b"}',
        secret=secret,
    )
