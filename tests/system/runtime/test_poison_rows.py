"""A row with the worst that its columns can hold, among twenty good ones: it fails alone, and they are sent at once.

Values are written by SQL, as an older or a newer release, or somebody at a prompt, may have left them. Each column of
what is read between the claim and the send has its worst values here; one that is new must be decided about.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from config.settings import read_settings
from config.wiring import Wiring
from notifier import models
from notifier.delivery.batch_failed import BatchFailed
from notifier.events import fan_out as event_fan_out
from notifier.notifications.dead_letters import dead_letter
from notifier.observability.tracing import BatchTrace
from notifier.runtime.isolation import in_parts, kind_of
from notifier.scheduling import next_channel
from notifier.scheduling.due import hand_over
from notifier.storage import stored_values
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from notifier.webhooks import release_waiting
from tasks.delivery_task import DeliverTask
from tests.conftest import QUICK
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import FINISHED, Running, ahead, made, reaches

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
    "dedup_key": (*TEXTS[:2], "(SELECT string_agg(md5(CAST(random() AS text)), '') FROM generate_series(1, 400))"),
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
USERS: dict[str, Sequence[str] | str] = {
    "id": "the key",
    "user_id": TEXTS[:2],
    "email": (*NOTHING, *TEXTS),
    "phone": (*NOTHING, *TEXTS),
    "push_tokens": ("CAST(ARRAY[NULL] AS text[])", "ARRAY['', '']"),
    "webhook_url": TEXTS,
    "chat_url": TEXTS,
    "timezone": ZONES,
    "locale": (*NOTHING, *TEXTS),
    "attributes": DOCUMENTS,
    "preferences": (
        *("'5'", "'[]'", "'{\"channels\": []}'", "'{\"channels\": 5}'", '\'{"categories": {"general": 1}}\''),
        *("'{\"quiet_hours\": 5}'", "'{\"quiet_hours\": [5]}'", "'{\"quiet_hours\": [{}]}'", "'{\"a\": 1e999}'"),
        '\'{"quiet_hours": [{"start": "25:00", "end": "07:00"}]}\'',
        '\'{"quiet_hours": [{"start": "22:00", "end": "22:00"}]}\'',
        '\'{"quiet_hours": [{"start": "22:00", "end": "22:01", "timezone": "Mars/Phobos"}]}\'',
        '\'{"quiet_hours": [{"start": "22:00", "end": "22:01", "timezone": 5}]}\'',
        "CAST('{\"a\": ' || repeat('9', 6000) || '}' AS jsonb)",
        "CAST(repeat('[', 3000) || repeat(']', 3000) AS jsonb)",
    ),
    "created_at": TIMES,
    "updated_at": TIMES,
}
TEMPLATES: dict[str, Sequence[str] | str] = {
    "id": "the key",
    "name": TEXTS,
    "channel": TEXTS,
    "locale": TEXTS,
    "version": NUMBERS,
    "subject": (*NOTHING, *TEXTS, "'{{ nobody }}'", "'{{'"),
    "text": (
        *(*NOTHING, *TEXTS, "'{{ nobody }}'", "'{% for'", "'{{ 9 ** 9 ** 9 }}'", "repeat('{% if 1 %}', 2000)"),
        *("'{{ payload.a }}'", "'{{ \"\\ud800\" }}'", "'{{ \"\\x00\" }}'", "'{{ user.attributes.x.y }}'"),
    ),
    "html": (*NOTHING, *TEXTS, "'{{ nobody }}'", "'<a href=''x'"),
    "sender": (*NOTHING, *TEXTS),
    "reply_to": (*NOTHING, *TEXTS),
    "created_at": TIMES,
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
DECIDED = {
    models.Notification: NOTIFICATIONS,
    models.Event: EVENTS,
    models.User: USERS,
    models.Template: TEMPLATES,
    models.Subscription: SUBSCRIPTIONS,
    models.Route: ROUTES,
}


def worst(*tables: Mapping[str, Sequence[str] | str], names: Sequence[str]) -> list[Any]:
    """Each column of some tables that has worst values, and those."""
    return [
        pytest.param(name, column, values, id=f"{name}.{column}")
        for table, name in zip(tables, names, strict=True)
        for column, values in table.items()
        if not isinstance(values, str)
    ]


@pytest.mark.parametrize("model", DECIDED, ids=lambda model: model.__tablename__)
def test_each_column_is_decided_about(model: type[models.Base]) -> None:
    assert set(DECIDED[model]) == {column.name for column in model.__table__.columns}


@pytest.fixture(scope="module")
def wires(new_database: Any) -> Iterator[Wiring]:
    """The wiring of a worker, on a database of this file's own."""
    made = Wiring(read_settings({**QUICK, "DATABASE_URL": new_database(), "REDIS_URL": "redis://127.0.0.1:1"}))
    yield made
    made.template_process.close()
    made.engine.dispose()


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


def deliver(wires: Wiring, channel: Channel, ids: Sequence[UUID]) -> None:
    """One message to a worker: what it cannot send for good is buried, as Celery's handler does."""
    try:
        wires.deliveries[channel].deliver(ids, 0, lambda *_: False, from_slow_queue=True)
    except BatchFailed as failed:
        with wires.engine.begin() as connection:
            dead_letter(connection, DeliverTask._dead_letter_requests(failed.rows))


#: The statuses in which an unusable row may end; above all it is not still being sent.
ENDS = {"failed", "skipped", "sent", "delivered", "expired", "cancelled", "scheduled"}


def judge(batch: Batch, finished: str = "sent") -> None:
    assert batch.good_ends() == [(finished, 1, 1)] * GOOD
    for value, status, reason, error in batch.bad_ends():
        assert status in ENDS, value
        if status == "failed":
            assert (reason, bool(error)) == ("permanent_error", True), value


@pytest.mark.parametrize(
    ("table", "column", "values"),
    worst(NOTIFICATIONS, EVENTS, USERS, TEMPLATES, names=("notifications", "events", "users", "templates")),
)
def test_a_bad_row_fails_alone(wires: Wiring, table: str, column: str, values: Sequence[str]) -> None:
    if (table, column) == ("events", "due_at"):
        return  # those that were fanned out have none
    batch = Batch(wires.engine, values)
    batch.spoil(table, column)
    deliver(wires, Channel.EMAIL, batch.ids)
    judge(batch)


@pytest.mark.parametrize("channel", Channel)
def test_content_without_a_template_fails_alone(wires: Wiring, http: HttpReceiver, channel: Channel) -> None:
    recipient = {
        Channel.SMS: "'+4915112345678'",
        Channel.PUSH: "'token'",
        Channel.CHAT: "'slack://x'",
        Channel.WEBHOOK: f"'{http.url('/poison')}'",
        Channel.EMAIL: "id || '@example.com'",
    }
    batch = Batch(
        wires.engine,
        NOTIFICATIONS["content"],
        channel=f"'{channel}'",
        queue=f"'{channel}'",
        recipient=recipient[channel],
        template_id="CAST(NULL AS uuid)",
        dedup_key="NULL",
    )
    batch.spoil("notifications", "content")
    deliver(wires, channel, batch.ids)
    judge(batch, "delivered" if channel is Channel.WEBHOOK else "sent")


@pytest.mark.parametrize(("name", "column", "values"), worst(SUBSCRIPTIONS, names=("subscriptions",)))
def test_a_bad_subscription_keeps_no_other_waiting(
    wires: Wiring, http: HttpReceiver, name: str, column: str, values: Sequence[str]
) -> None:
    batch = Batch(wires.engine, values, channel="'webhook'", queue="'webhook'", subscription_id="id", dedup_key="NULL")
    subscribe(batch, batch.ids, http.url("/poison"), wires.vault.encrypt(QUICK["NOTIFIER_WEBHOOK_SECRET"]))
    batch.sql("UPDATE notifications SET template_id = NULL, content = NULL WHERE id = ANY(:ids)", ids=batch.ids)
    batch.spoil(name, column)
    batch.sql("UPDATE listeners SET version = version + 1")
    deliver(wires, Channel.WEBHOOK, batch.ids)
    batch.sql("DELETE FROM subscriptions")
    judge(batch, "delivered")


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


PROVIDERS: Final = {
    **dict.fromkeys(("failing_since", "failed_at", "open_until", "probing_until", "next_slot", "line_until"), TIMES),
    **{
        "failures": NUMBERS,
        "error": TEXTS,
        "open_for": ("'NaN'", "'infinity'", "-1", "1e300"),
        "waited_for": ("true",),
    },
}
ENDPOINTS: Final = {
    **dict.fromkeys(("failing_since", "open_until", "slow_until", "warned_at", "next_slot", "looked_at"), TIMES),
    **{"failures": NUMBERS, "open_for": ("'NaN'", "'infinity'", "-1", "1e300")},
    **dict.fromkeys(("probing", "waited_for"), ("true",)),
}


@pytest.mark.parametrize("column", PROVIDERS)
def test_whatever_is_remembered_of_a_provider_its_rows_come_to_an_end(wires: Wiring, column: str) -> None:
    assert set(PROVIDERS) == {each.name for each in models.ProviderState.__table__.columns} - {"channel", "name"}
    for value in PROVIDERS[column]:
        batch = Batch(wires.engine, [])
        shut = "INSERT INTO providers (channel, name, failures, open_until, open_for) VALUES ('email', 'outbox', 5,"
        batch.sql(f"{shut} now() + interval '1 hour', 60)")
        batch.sql(f"UPDATE providers SET {column} = {value}")
        deliver(wires, Channel.EMAIL, batch.ids)
        batch.sql("DELETE FROM providers")
        assert {status for status, _, _ in batch.good_ends()} <= ENDS, value


@pytest.mark.parametrize("column", ENDPOINTS)
def test_whatever_is_remembered_of_an_endpoint_the_others_are_sent(
    wires: Wiring, http: HttpReceiver, column: str
) -> None:
    assert set(ENDPOINTS) == {each.name for each in models.Endpoint.__table__.columns} - {"id"}
    values = ENDPOINTS[column]
    batch = Batch(wires.engine, values, channel="'webhook'", queue="'webhook'", subscription_id="id", dedup_key="NULL")
    subscribe(batch, batch.ids, http.url("/poison"), wires.vault.encrypt(QUICK["NOTIFIER_WEBHOOK_SECRET"]))
    batch.sql("UPDATE notifications SET template_id = NULL, content = NULL WHERE id = ANY(:ids)", ids=batch.ids)
    batch.sql(
        "INSERT INTO endpoints (id, failures) SELECT id, 5 FROM unnest(CAST(:ids AS uuid[])) AS made(id)",
        ids=list(batch.bad),
    )
    batch.spoil("endpoints", column)
    deliver(wires, Channel.WEBHOOK, batch.ids)
    release_waiting.release(wires.engine)
    batch.sql("DELETE FROM subscriptions")
    assert batch.good_ends() == [("delivered", 1, 1)] * GOOD
    # A row whose endpoint is known to keep callers waiting is queued anew, in the slow lane.
    assert {status for _, status, _, _ in batch.bad_ends()} <= ENDS | {"queued"}


_UNFINISHED: Final = text(
    "SELECT id FROM events WHERE id = ANY(:ids) AND status = 'accepted' AND fan_out_after IS NOT NULL ORDER BY id"
)


def fan_out(wires: Wiring, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Fan out the events of a message as tasks.fan_out does; return the errors of events that cannot be fanned out."""
    failed: dict[UUID, str] = {}

    def work(part: Sequence[UUID]) -> None:
        event_fan_out.fan_out(
            wires.engine, part, wires.planner(lambda _: 60.0), wires.subscribers, BatchTrace("fan out")
        )

    def give_up(event_id: UUID, error: Exception) -> None:
        failed[event_id] = kind_of(error)

    while ids:
        in_parts(ids, work, give_up)
        # Filters have so much time a batch: what is left on a slow machine is handed over again, where it stopped.
        with wires.engine.connect() as connection:
            ids = list(connection.scalars(_UNFINISHED, {"ids": list(ids)}))
    return failed


class Events(Batch):
    """Events that are not fanned out; two good routes and subscriptions are for them, and some that a test spoils."""

    def __init__(self, wires: Wiring, values: Sequence[str]) -> None:
        super().__init__(wires.engine, values)
        self.sql("DELETE FROM notifications; DELETE FROM routes; DELETE FROM subscriptions")
        self.sql(
            "UPDATE events SET status = 'accepted', due_at = now() + interval '1 hour' WHERE id = ANY(:ids)",
            ids=self.ids,
        )
        self.others = [new_id(), new_id()]
        route = {"event_type": "poison.*", "to": {"recipient": "join('', ['slack://', source])", "channel": "chat"}}
        self.sql(
            "INSERT INTO routes (id, name, event_type, definition, enabled, created_at, updated_at)"
            " SELECT id, CAST(id AS text), 'poison.*', CAST(:route AS json), true, now(), now()"
            " FROM unnest(CAST(:ids AS uuid[])) AS made(id)",
            route=json.dumps(route),
            ids=[*self.others, *self.bad],
        )
        subscribe(self, [*self.others, *self.bad], "http://127.0.0.1/", b"x")
        self.sql("UPDATE listeners SET version = version + 1")

    def made(self) -> list[tuple[str, int]]:
        """Of each good event its status, and how many notifications the good routes and subscriptions made of it."""
        rows = self.sql(
            "SELECT status, (SELECT count(*) FROM notifications n WHERE n.event_id = e.id AND status = 'queued'"
            " AND (route = ANY(:names) OR subscription_id = ANY(:others)))"
            " FROM events e WHERE id = ANY(:ids)",
            ids=self.good,
            names=[str(each) for each in self.others],
            others=self.others,
        )
        return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("table", "column", "values"), worst(EVENTS, ROUTES, SUBSCRIPTIONS, names=("events", "routes", "subscriptions"))
)
def test_a_bad_row_costs_no_other_event_its_notifications(
    wires: Wiring, table: str, column: str, values: Sequence[str]
) -> None:
    events = Events(wires, values)
    events.spoil(table, column)
    failed = fan_out(wires, events.ids)
    assert events.made() == [("processed", 4)] * GOOD
    assert set(failed) <= (set(events.bad) if table == "events" else set())
    for event_id, status in events.sql("SELECT id, status FROM events WHERE id = ANY(:ids)", ids=list(events.bad)):
        assert (status == "processed") != (event_id in failed), events.bad[event_id]


def test_what_a_broken_route_does_not_make_is_on_record(wires: Wiring) -> None:
    events = Events(wires, ["""'{"to": 5}'"""])
    [bad] = events.bad
    events.spoil("routes", "definition")
    assert not fan_out(wires, events.ids)
    rows = events.sql("SELECT status, reason, explanation FROM notifications WHERE route = :name", name=str(bad))
    assert len(rows) == GOOD + 1
    for status, reason, explanation in rows:
        assert (status, reason) == ("skipped", "broken_route")
        assert explanation.startswith(f"The route {bad} is broken.")


#: The columns of a row that the clock reads, with their worst values.
CLOCK: Final = {
    **{name: NOTIFICATIONS[name] for name in ("claims", "attempts", "lost", "on_ambiguous", "channel")},
    "due_at": ("'-infinity'", "'0044-03-15 00:00+00 BC'"),
    "tries": NUMBERS,
}


@pytest.mark.parametrize("status", ["scheduled", "retrying", "queued", "sending"])
@pytest.mark.parametrize("column", CLOCK)
def test_the_clock_hands_over_the_others(wires: Wiring, column: str, status: str) -> None:
    policy = wires.settings.of(Channel.EMAIL).retry_policy
    batch = Batch(wires.engine, CLOCK[column], status=f"'{status}'", due_at="now() - interval '1 minute'")
    batch.spoil("notifications", column)
    batch.sql("UPDATE notifications SET silent_claim = claims")
    messages = hand_over(wires.engine, "email", 64, 3600.0, policy)
    handed = {row_id: message for message in messages for row_id in message.ids}
    assert handed.keys() >= set(batch.good)
    assert all(0 <= message.failures <= policy.max_retries for message in messages)
    for row in batch.sql("SELECT id, status, tries FROM notifications WHERE id = ANY(:ids)", ids=list(batch.bad)):
        if column == "lost" and row.id not in handed:
            continue  # of those with their last chance one goes at a time
        assert row.status == "failed" or handed[row.id].failures == row.tries, batch.bad[row.id]


#: The columns of a row that its successor depends on.
SUCCESSORS: Final = {
    name: NOTIFICATIONS[name]
    for name in (
        *("next_channels", "content", "user_id", "priority", "expires_at", "target_date", "lead_time", "timezone"),
        *("dedup_window", "template", "created_at", "siblings", "traceparent", "on_ambiguous", "origin_id"),
    )
}


@pytest.mark.parametrize("column", SUCCESSORS)
def test_the_others_get_their_next_channel(wires: Wiring, column: str) -> None:
    batch = Batch(
        wires.engine,
        SUCCESSORS[column],
        status="'failed'",
        due_at="CAST(NULL AS timestamptz)",
        next_channels="CAST('{email}' AS text[])",
        template="NULL",
    )
    batch.spoil("notifications", column)
    next_channel.take_over(wires.engine, wires.planner(lambda _: 3600.0))
    statement = "SELECT count(*) FROM notifications WHERE follows = ANY(:ids) AND status = 'queued'"
    assert batch.sql(statement, ids=batch.good)[0][0] == GOOD
    statement = "SELECT count(*) FROM notifications WHERE id = ANY(:ids) AND next_channels IS NOT NULL"
    assert batch.sql(statement, ids=batch.ids)[0][0] == 0


def test_thirty_emails_go_at_once_beside_two_that_are_bad(system: Running, smtp: SmtpReceiver) -> None:
    """The whole system: what an older release accepted behind a doubled name, and a time zone that is none any more."""
    template = {"channel": "email", "text": "{{ payload.a }}"}
    assert system.http.put(f"{system.url}/api/v1/templates/poison", json=template, timeout=20).ok
    user = {"email": "zoned@example.com", "timezone": "Europe/Berlin"}
    assert system.http.put(f"{system.url}/api/v1/users/u_zoned", json=user, timeout=20).ok
    rules = {"quiet_hours": [{"channels": ["sms"], "start": "22:00", "end": "07:00"}]}
    assert system.http.put(f"{system.url}/api/v1/users/u_zoned/preferences", json=rules, timeout=20).ok
    later = {"send_at": ahead(hours=1), "channel": "email", "on_ambiguous": "hold"}
    plain = [made(system, recipient=f"plain{number}@example.com", **later) for number in range(30)]
    answer = system.post(
        "/api/v1/notifications",
        {"recipient": "poison@example.com", "template": "poison", "data": {"a": 1}, **later},
    )
    poison = answer.json()["items"][0]["id"]
    zoned = made(system, user_id="u_zoned", **later)
    system.sql("UPDATE users SET timezone = 'right/Europe/Berlin' WHERE user_id = 'u_zoned'")
    system.sql(
        "UPDATE notifications SET content = CAST(:content AS json) WHERE id = :id",
        content='{"data": {"a": 1e999, "a": 1}}',
        id=poison,
    )
    system.sql(
        "UPDATE notifications SET due_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))", ids=[*plain, poison, zoned]
    )
    for each in (*plain, zoned):
        sent = reaches(system, each, *FINISHED)
        assert (sent["status"], sent["attempts"], len(sent["attempt_log"])) == ("sent", 1, 1)
    bad = reaches(system, poison, *FINISHED)
    assert (bad["status"], bad["reason"], bad["attempts"]) == ("failed", "permanent_error", 0)
    assert "its data cannot be used (JSONDecodeError)" in bad["explanation"]
    assert [len(smtp.mails_to(f"plain{number}@example.com")) for number in range(30)] == [1] * 30
    assert [
        row.claims
        for row in system.sql("SELECT claims FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))", ids=plain)
    ] == [1] * 30, "none waited for a lease"


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("2026-11-28 09:00:00.5+00", datetime(2026, 11, 28, 9, 0, 0, 500_000, UTC)),
        ("infinity", stored_values.LATEST),
        ("-infinity", stored_values.EARLIEST),
        ("0044-03-15 00:00:00+00 BC", stored_values.EARLIEST),
        ("0001-01-01 00:00:00+00", stored_values.EARLIEST),
        ("9999-12-31 23:59:59+00", stored_values.LATEST),
        ("294276-01-01 00:00:00+00", stored_values.LATEST),
        (None, None),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns"])
def test_a_stored_moment_is_read_within_the_calendar(
    wires: Wiring, stored: str | None, read: datetime | None, zone: str
) -> None:
    with wires.engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL timezone = '{zone}'")
        assert connection.scalar(text("SELECT CAST(:stored AS timestamptz)"), {"stored": stored}) == read
