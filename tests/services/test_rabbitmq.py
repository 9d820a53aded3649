"""RabbitMQ as the broker: its restarts and silences cost time alone, and everything says which broker is meant."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from config.queues import ALL
from deploy.child_process import Child
from deploy.ports import free_port
from tests.services.rabbitmq import RabbitMQ
from tests.support.breaking import all_delivered, hang, kill, wake
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, reaches, wait_for


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ to be broken."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    wake(server)
    server.stop()


@pytest.fixture(scope="module")
def system(new_system: Callable[..., Running], rabbitmq: RabbitMQ) -> Iterator[Running]:
    """A system on it, with no Redis anywhere."""
    with new_system(BROKER_URL=rabbitmq.url, REDIS_URL="redis://127.0.0.1:9/0") as running:
        yield running


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


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_restart_costs_time_alone(system: Running, rabbitmq: RabbitMQ, http: HttpReceiver, how: str) -> None:
    path = f"/restart-{how}"
    for _ in range(20):
        system.event(channel="webhook", recipient=http.url(path))
    if how == "killed":
        kill(rabbitmq)
    else:
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


def test_flowers_broker_page_shows_our_queues(system: Running, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/healthcheck", timeout=2).ok
        except requests.RequestException:
            return False

    flower = Child(
        "flower",
        [sys.executable, ROOT / "manage.py", "flower", "--port", str(port)],
        log=tmp_path / "flower.log",
        environment={**system.environment, "FLOWER_BROKER_API": rabbitmq.management_url},
        cwd=ROOT,
        ready=answers,
    )
    flower.start()
    try:
        page = wait_for(
            lambda: page if "webhook.retry" in (page := requests.get(f"{url}/broker", timeout=10).text) else None
        )
    finally:
        flower.stop()
    assert all(f"<td>{queue}</td>" in "".join(page.split()) for queue in ALL)
    assert "celery_delayed" not in page


def test_the_doctor_finds_nothing_to_mend_at_the_broker(system: Running) -> None:
    command = [sys.executable, ROOT / "manage.py", "doctor"]
    doctor = Child("doctor", command, log=system.folder / "doctor.log", environment=system.environment, cwd=ROOT)
    doctor.launch()
    wait_for(lambda: not doctor.alive(), 60, "the doctor")
    [line] = [line for line in _log(doctor).splitlines() if "amqp" in line or "rabbitmq" in line]
    assert "broker" in line
    assert "answers" in line
