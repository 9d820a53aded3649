"""A row with the worst that its columns can hold, among twenty good ones: it fails alone, and they are sent at once.

Values are written by SQL, as an older or a newer release, or somebody at a prompt, may have left them. Each column of
what is read between the claim and the send has its worst values here; one that is new must be decided about.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import pytest

from config.settings import read_settings
from config.wiring import Wiring
from notifier import models
from notifier.delivery.batch_failed import BatchFailed
from notifier.notifications.dead_letters import dead_letter
from notifier.vocabulary.states import Channel
from notifier.webhooks import release_waiting
from tasks.delivery_task import DeliverTask
from tests.conftest import QUICK
from tests.support.poison import (
    DOCUMENTS,
    EVENTS,
    GOOD,
    NOTHING,
    NOTIFICATIONS,
    NUMBERS,
    ROUTES,
    SUBSCRIPTIONS,
    TEXTS,
    TIMES,
    ZONES,
    Batch,
    subscribe,
    worst,
)
from tests.support.receivers import HttpReceiver

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


DECIDED = {
    models.Notification: NOTIFICATIONS,
    models.Event: EVENTS,
    models.User: USERS,
    models.Template: TEMPLATES,
    models.Subscription: SUBSCRIPTIONS,
    models.Route: ROUTES,
}


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
