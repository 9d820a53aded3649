"""RabbitMQ as operators see it: queues that stay small, canaries, status, the doctor, Flower; and TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from config.broker import celery_settings
from config.queues import ALL, CLOCK, MAX_MESSAGES
from config.settings import read_settings
from deploy.child_process import Child
from deploy.ports import free_port
from notifier.vocabulary.ids import new_id
from tasks import canary
from tasks.beat import TickScheduler
from tasks.broker_check import check_broker
from tasks.hints import HintPublisher
from tasks.queue_depth import depth
from tests.services.rabbitmq import RabbitMQ
from tests.support.commands import manage, succeed
from tests.support.flowers import flower, workers_seen
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

#: The queues as they are declared: by celeryconfig.py, from which tests take no settings.
_QUORUM = {name: {"queue_arguments": {"x-queue-type": "quorum"}} for name in ALL}


@pytest.fixture
def system(on_rabbitmq: Running) -> Running:
    """A system on RabbitMQ."""
    return on_rabbitmq


def _app(broker: str) -> Celery:
    """Celery as the processes have it, on this broker."""
    settings = read_settings({"DATABASE_URL": "postgresql://127.0.0.1:9/x", "BROKER_URL": broker})
    app = Celery(set_as_current=False, task_create_missing_queues=False, task_queues=_QUORUM)
    app.conf.update(celery_settings(settings), task_default_queue=CLOCK)
    return app


@contextmanager
def _without_workers(system: Running) -> Iterator[None]:
    """Stop all that takes or sends messages by itself; it is started again by whoever mends the system."""
    stopped: list[Child] = [system.fresh, system.retry, system.clock, system.beat]
    for child in stopped:
        child.terminate()
    for child in stopped:
        child.stop()
    yield
    system.mend()


def test_where_nobody_takes_messages_the_queues_stay_small(system: Running, rabbitmq: RabbitMQ) -> None:
    app = _app(rabbitmq.url)
    with _without_workers(system), app.connection_for_write() as connection:
        # The API's hints: enough for three times as many full messages.
        publisher = HintPublisher(app)
        for _ in range(10):
            publisher.hint([("webhook", new_id())] * 20_000)
            wait_for(lambda: publisher._count < 20_000 or depth(connection, "webhook") > MAX_MESSAGES / 2)
        wait_for(lambda: depth(connection, "webhook") > MAX_MESSAGES / 2, 30, "a full queue")
        # Ticks of a beat, and canaries of an exporter.
        scheduler = TickScheduler(app, lazy=True)
        entry = scheduler.Entry(name="tick", task="tasks.hand_over_due", options={"queue": CLOCK}, app=app)
        for _ in range(MAX_MESSAGES):
            scheduler.apply_async(entry, advance=False)
        for _ in range(MAX_MESSAGES // 2 + 2):
            canary.send(app, ["email.low"])
        depths = {queue: depth(connection, queue) for queue in ALL}
        assert depths["clock"] == depths["email.low"] == MAX_MESSAGES // 2
        assert max(depths.values()) <= MAX_MESSAGES
        shown = succeed("status", environment=system.environment)
        # By queue: status, rows, oldest due, messages.
        rows = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines()]
        waiting = {row[1]: row[5] for row in rows if len(row) == 7}
        assert waiting[CLOCK] == str(MAX_MESSAGES // 2)
    # The rows that they speak of are not there, and so they are soon gone.
    wait_for(lambda: _depth(app, "webhook") == 0, 60, "an empty queue")


def _depth(app: Celery, queue: str) -> int:
    with app.connection_for_write() as connection:
        return depth(connection, queue)


def test_workers_hold_few_messages_in_memory(system: Running, rabbitmq: RabbitMQ) -> None:
    """Quorum queues know no limit for a whole connection, so that each queue has its own: one a thread."""
    threads = 4

    def limits() -> dict[str, int]:
        found = {each["queue"]["name"]: each["prefetch_count"] for each in rabbitmq.get("consumers").json()}
        return {queue: found[queue] for queue in ALL if queue in found}

    wait_for(lambda: limits().keys() == set(ALL), 30, "a consumer of each queue")
    # The clock's worker has one thread.
    assert limits() == {queue: 1 if queue == CLOCK else threads for queue in ALL}


def test_two_beats_tick_once_a_second_for_one_clock(system: Running, rabbitmq: RabbitMQ, http: HttpReceiver) -> None:
    second = system.add("beat-2", "beat")
    system.start(only=[second])
    path = "/two-beats"
    ids = [system.event(channel="webhook", recipient=http.url(path)) for _ in range(20)]
    assert {system.finished(each)["status"] for each in ids} == {"delivered"}
    assert set(http.times(path).values()) == {1}
    system.beat.stop()
    # The other one goes on alone.
    system.sql("DELETE FROM heartbeats WHERE kind = 'clock'")
    wait_for(lambda: system.sql("SELECT FROM heartbeats WHERE kind = 'clock'"), 20, "a tick of the other beat")


def test_canaries_come_through_every_queue_and_the_exporter_reads_depths(
    system: Running, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    port = free_port()
    exporter = system.add("exporter", "exporter", "--port", str(port))
    system.start(only=[exporter])

    def samples() -> dict[tuple[str, str], float]:
        try:
            served = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        except requests.RequestException:
            return {}
        return {
            (sample.name, sample.labels.get("queue", "")): sample.value
            for family in text_string_to_metric_families(served)
            for sample in family.samples
        }

    def arrived() -> bool:
        return {queue for name, queue in samples() if name == "notifier_canary_age_seconds"} == set(ALL)

    wait_for(arrived, 60, "a canary through every queue")
    assert samples()["notifier_broker_up", ""] == 1
    assert {queue for name, queue in samples() if name == "notifier_queue_messages"} == set(ALL)


def test_status_says_that_the_broker_is_away(system: Running, rabbitmq: RabbitMQ) -> None:
    nobody = {**system.environment, "BROKER_URL": "amqp://127.0.0.1:9//"}
    shown = manage("status", environment=nobody)
    assert shown.returncode == 0, shown.stderr
    assert "The broker cannot be reached" in shown.stdout
    assert "fresh@" in shown.stdout


def test_before_any_worker_has_declared_a_queue_all_are_empty(system: Running, rabbitmq: RabbitMQ) -> None:
    empty = {**system.environment, "BROKER_URL": rabbitmq.new_virtual_host("empty")}
    shown = succeed("status", environment=empty)
    assert "cannot be reached" not in shown


def test_the_doctor_finds_nothing_to_mend_at_the_broker(system: Running) -> None:
    shown = succeed("doctor", environment=system.environment)
    [line] = [line for line in shown.splitlines() if " broker " in line]
    assert "answers, and takes messages" in line


def test_flowers_broker_page_shows_our_queues(system: Running, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    environment = {
        **system.environment,
        "FLOWER_BROKER_API": rabbitmq.management_url,
        "FLOWER_UNAUTHENTICATED_API": "1",
    }
    with flower(tmp_path, environment) as url:
        page = wait_for(
            lambda: page if "webhook.retry" in (page := requests.get(f"{url}/broker", timeout=10).text) else None,
            40,
            "Flower's page of queues",
        )
        wait_for(lambda: workers_seen(url) == {"fresh", "retry", "clock"}, 30, "Flower to see the workers")
    assert all(f"<td>{queue}</td>" in "".join(page.split()) for queue in ALL)
    assert "celery_delayed" not in page


def test_flower_watches_workers_without_the_management_plugin(
    system: Running, rabbitmq: RabbitMQ, http: HttpReceiver, tmp_path: Path
) -> None:
    with flower(tmp_path, {**system.environment, "FLOWER_UNAUTHENTICATED_API": "1"}) as url:
        wait_for(lambda: workers_seen(url) == {"fresh", "retry", "clock"}, 30, "Flower to see the workers")

        def sees_a_task() -> bool:
            # Workers tell of their tasks from when Flower's wish for it has reached them.
            system.event(channel="webhook", recipient=http.url("/flower"))
            seen = requests.get(f"{url}/api/tasks", params={"limit": "100"}, timeout=20)
            return "tasks.deliver.webhook" in seen.text

        wait_for(sees_a_task, 30, "Flower to see a task")

        def pools() -> set[str]:
            told = requests.get(f"{url}/api/workers", params={"refresh": "1"}, timeout=20).json().values()
            return {worker.get("stats", {}).get("pool", {}).get("implementation", "") for worker in told}

        # Threads that begin with the most urgent message.
        wait_for(lambda: pools() == {"tasks.pool:PriorityPool"}, 30, "the workers to tell of their pools")


@pytest.mark.parametrize(
    ("host", "options", "said"),
    [
        ("127.0.0.1", "?ssl_ca_certs={ca}", None),
        ("127.0.0.1", "", "certificate verify failed"),
        ("localhost", "?ssl_ca_certs={ca}", "certificate verify failed"),
    ],
)
def test_tls_is_verified(rabbitmq: RabbitMQ, host: str, options: str, said: str | None) -> None:
    ca = rabbitmq.log.parent / "certificate.pem"
    app = _app(f"amqps://guest:guest@{host}:{rabbitmq.tls_port}//{options.format(ca=ca)}")
    if said is None:
        check_broker(app)
    else:
        with pytest.raises(Exception, match=said):
            check_broker(app)
