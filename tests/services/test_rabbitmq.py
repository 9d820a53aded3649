"""RabbitMQ as the broker: messages go over quorum queues, and its restarts and silences cost time alone."""

import time

import pytest

from config.queues import ALL
from deploy.child_process import Child
from tests.services.rabbitmq import RabbitMQ
from tests.support.breaking import all_delivered, hang, wake
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, reaches, wait_for


@pytest.fixture
def system(on_rabbitmq: Running) -> Running:
    """A system on RabbitMQ."""
    return on_rabbitmq


def _log(child: Child) -> str:
    return child.log.read_text(errors="replace")


def _sms(system: Running, **fields: str) -> str:
    [notification] = system.notifications(system.event(channel="sms", recipient="+4915112345678", **fields))
    return str(notification["id"])


def test_messages_go_over_quorum_queues_of_ours_alone(system: Running, rabbitmq: RabbitMQ, http: HttpReceiver) -> None:
    http.answer("/rabbit", 503, 200)
    event_id = system.event(channel="webhook", recipient=http.url("/rabbit"))
    assert system.finished(event_id)["status"] == "delivered"
    assert len(http.received("/rabbit")) == 2
    queues = rabbitmq.queues()
    ours = {
        name: queue["type"] for name, queue in queues.items() if "@" not in name and not name.startswith("celeryev")
    }
    assert ours == dict.fromkeys(ALL, "quorum")
    for worker in (system.fresh, system.retry, system.clock):
        assert "logger=kombu" not in _log(worker)


def test_ready_names_the_broker_that_is_away(system: Running, rabbitmq: RabbitMQ) -> None:
    checks = system.get("/ready").json()["checks"]
    assert checks["rabbitmq"] == {"status": "ok"}
    assert "redis" not in checks
    rabbitmq.stop()
    try:
        answer = system.get("/ready")
    finally:
        rabbitmq.start()
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["checks"]["rabbitmq"]["status"] == "failed"
    wait_for(lambda: system.get("/ready").json()["status"] == "ok", 40, "a system that is ready")


def test_a_restart_costs_time_alone(system: Running, rabbitmq: RabbitMQ, http: HttpReceiver) -> None:
    path = "/restart"
    for _ in range(20):
        system.event(channel="webhook", recipient=http.url(path))
    rabbitmq.stop()
    for _ in range(20):
        began = time.monotonic()
        system.event(channel="webhook", recipient=http.url(path))
        assert time.monotonic() - began < 2
    reminder = _sms(system, send_at=ahead(seconds=1))
    rabbitmq.start()
    all_delivered(system, http, path, 40, 60)
    assert set(http.times(path).values()) == {1}
    # These are sent only through beat's ticks.
    reaches(system, reminder, "sent")
    reaches(system, _sms(system, send_at=ahead(seconds=2)), "sent")
    for child in (system.fresh, system.retry, system.clock, system.beat):
        assert child.alive(), child.name
    assert "Traceback" not in _log(system.beat)


def test_a_rabbitmq_that_hangs_holds_up_no_request(system: Running, rabbitmq: RabbitMQ, http: HttpReceiver) -> None:
    hang(rabbitmq)
    try:
        for _ in range(20):
            began = time.monotonic()
            system.event(channel="webhook", recipient=http.url("/hangs"))
            assert time.monotonic() - began < 2
    finally:
        wake(rabbitmq)
    all_delivered(system, http, "/hangs", 20, 60)
    reaches(system, _sms(system, send_at=ahead(seconds=2)), "sent")
