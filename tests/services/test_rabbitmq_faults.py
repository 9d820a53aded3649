"""Faults of RabbitMQ under load: what it forgets, refuses or cuts off costs time, and no notification."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine

from config.broker import celery_settings
from config.settings import read_settings
from notifier.vocabulary.ids import new_id
from tasks.watchdog import Watchdog
from tests.services.rabbitmq import RabbitMQ
from tests.support.breaking import all_delivered, kill
from tests.support.commands import manage
from tests.support.load import posting
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, made, reaches, wait_for


@pytest.fixture
def system(on_rabbitmq: Running) -> Running:
    """A system on RabbitMQ."""
    return on_rabbitmq


def _killed(rabbitmq: RabbitMQ) -> None:
    kill(rabbitmq)
    rabbitmq.start()


def _queues_purged(rabbitmq: RabbitMQ) -> None:
    for queue in ("webhook", "webhook.due", "clock"):
        rabbitmq.control("purge_queue", queue)


def _queues_deleted(rabbitmq: RabbitMQ) -> None:
    for queue in ("webhook", "webhook.due", "clock"):
        rabbitmq.delete_queue(queue)
    # Workers are told that their queue is gone, and declare it anew.
    wait_for(lambda: {"webhook", "webhook.due", "clock"} <= rabbitmq.queues().keys(), 30, "queues declared anew")


def _connections_cut(rabbitmq: RabbitMQ) -> None:
    rabbitmq.control("close_all_connections", "as a test asks")


@pytest.mark.parametrize("fault", [_killed, _queues_purged, _queues_deleted, _connections_cut])
def test_under_load_nothing_is_lost(
    system: Running, rabbitmq: RabbitMQ, http: HttpReceiver, fault: Callable[[RabbitMQ], None]
) -> None:
    path = f"/{fault.__name__.strip('_')}"
    with posting(system, http.url(path)) as accepted:
        fault(rabbitmq)
    all_delivered(system, http, path, len(accepted), 60)
    assert set(http.times(path).values()) == {1}
    # A reminder goes out through a beat's tick and a clock that both go on.
    reaches(system, made(system, channel="sms", recipient="+4915112345678", send_at=ahead(seconds=1)), "sent")
    wait_for(lambda: system.get("/ready").json()["status"] == "ok", 40, "a system that is ready")
    for child in (system.fresh, system.retry, system.clock, system.beat):
        assert child.alive(), child.output()


def _broker(system: Running) -> dict[str, str]:
    found: dict[str, str] = system.get("/ready").json()["checks"]["rabbitmq"]
    return found


def test_an_alarm_holds_up_no_request_and_is_named(system: Running, rabbitmq: RabbitMQ, http: HttpReceiver) -> None:
    rabbitmq.raise_alarm()
    try:
        with posting(system, http.url("/alarm")) as accepted:
            wait_for(lambda: "takes no messages" in _broker(system).get("detail", ""), 10, "/ready to tell of it")
        doctor = manage("doctor", "--json", environment=system.environment)
    finally:
        rabbitmq.end_alarm()
    [broker] = [found for found in json.loads(doctor.stdout)["findings"] if found["check"] == "broker"]
    assert broker["state"] == "failed"
    assert "rabbitmq-diagnostics alarms" in broker["says"]
    all_delivered(system, http, "/alarm", len(accepted), 60)
    assert _broker(system) == {"status": "ok"}


def _app(rabbitmq: RabbitMQ) -> Celery:
    """Celery as the processes have it, on this RabbitMQ."""
    settings = read_settings({"DATABASE_URL": "postgresql://127.0.0.1:9/x", "BROKER_URL": rabbitmq.url})
    app = Celery(set_as_current=False, task_create_missing_queues=False)
    app.conf.update(celery_settings(settings))
    return app


def test_while_rabbitmq_takes_no_messages_no_worker_counts_as_stuck(
    system: Running, rabbitmq: RabbitMQ, engine: Engine
) -> None:
    def looks(dog: Watchdog) -> bool:
        dog.signed()
        for _ in range(3):
            dog.look()
        return dog.is_stuck

    app = _app(rabbitmq)
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "read_timeout": 1}
    dog = Watchdog(app, engine, "none@here", stuck_after=0.001, sign_file=None)
    dog.declare()
    rabbitmq.raise_alarm()
    try:
        assert not looks(dog)
    finally:
        rabbitmq.end_alarm()
    assert looks(dog), "where it takes them, and nobody consumes them"


def test_a_message_that_its_worker_left_unfinished_comes_back(
    system: Running, rabbitmq: RabbitMQ, http: HttpReceiver
) -> None:
    let_go = http.hold("/unfinished")
    event_id = system.event(channel="webhook", recipient=http.url("/unfinished"))
    wait_for(lambda: http.received("/unfinished"), 20, "a send under way")
    kill(system.fresh)
    let_go()
    system.start(only=[system.fresh])
    # Its copy claims nothing: the row is taken back once its lease is over, and its attempt is on record.
    system.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending'")
    finished = system.finished(event_id, 40)
    assert finished["status"] == "delivered"
    assert [attempt["outcome"] for attempt in finished["attempt_log"]] == ["ambiguous", "accepted"]
    wait_for(lambda: _unfinished(rabbitmq, "webhook") == 0, 30, "a queue with nothing in it")


def _unfinished(rabbitmq: RabbitMQ, queue: str) -> int:
    """How many messages wait or are being worked on, as RabbitMQ counts them every five seconds."""
    return int(rabbitmq.queues()[queue].get("messages", -1))


def _call(task: str, *arguments: Any) -> dict[str, Any]:
    return {"body": json.dumps([arguments, {}, None]), "headers": {"task": task, "id": str(new_id()), "lang": "py"}}


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("application/json", {"body": b"\xff{"}),
        ("application/x-python-serialize", {"body": b"cos\nsystem\n(S'true'\ntR."}),
        ("application/json", _call("tasks.nobody.knows", 1)),
        ("application/json", _call("tasks.deliver.webhook", "no list", "and one too many")),
        ("application/json", _call("tasks.deliver.webhook", ["no id"])),
        ("application/json", {"body": "[]"}),
    ],
)
def test_a_poisonous_message_is_dropped_and_stops_nothing(
    system: Running, rabbitmq: RabbitMQ, http: HttpReceiver, content_type: str, message: dict[str, Any]
) -> None:
    app = _app(rabbitmq)
    with app.connection_for_write() as connection:
        for _ in range(5):  # more than there are threads
            connection.Producer(auto_declare=False).publish(
                message["body"],
                exchange="",
                routing_key="webhook",
                headers=message.get("headers"),
                content_type=content_type,
                content_encoding="utf-8",
                serializer=None,
            )
    path = f"/poison-{new_id()}"
    event_id = system.event(channel="webhook", recipient=http.url(path))
    assert system.finished(event_id)["status"] == "delivered"
    wait_for(lambda: _unfinished(rabbitmq, "webhook") == 0, 30, "a queue with nothing in it")
    assert system.fresh.alive()
