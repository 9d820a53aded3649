"""Failures of Redis: they cost seconds and no events, and the receiver judges."""

import re
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from deploy.embedded import EmbeddedValkey
from tests.support.breaking import all_delivered, hang, kill, wake
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A Redis to be killed."""
    server = EmbeddedValkey(tmp_path_factory.mktemp("own") / "valkey", settings={"appendonly": "no"})
    server.start()
    yield server
    wake(server)
    server.stop()


@pytest.fixture(scope="module")
def on_own_valkey(new_system: Callable[..., Running], own_valkey: EmbeddedValkey) -> Iterator[Running]:
    """A system on it."""
    with new_system(REDIS_URL=own_valkey.url) as system:
        yield system


@pytest.fixture
def system(on_own_valkey: Running, own_valkey: EmbeddedValkey) -> Running:
    """The same, whole for each test."""
    wake(own_valkey)
    own_valkey.start()
    on_own_valkey.mend()
    return on_own_valkey


def _post_quickly(system: Running, http: HttpReceiver, path: str, count: int) -> list[str]:
    ids = []
    for _ in range(count):
        began = time.monotonic()
        ids.append(system.event(recipient=http.url(path), channel="webhook"))
        assert time.monotonic() - began < 1
    return ids


def test_redis_down_costs_seconds_and_no_events(
    system: Running, http: HttpReceiver, own_valkey: EmbeddedValkey
) -> None:
    kill(own_valkey)
    _post_quickly(system, http, "/redis-down", 20)
    assert system.get("/ready").status_code == 200
    assert system.get("/ready").json()["status"] == "degraded"
    assert system.get("/ready").json()["checks"]["redis"]["status"] == "failed"
    # However long that lasts, workers go on to look for it as often.
    waits = re.compile(r"Trying again in ([\d.]+) second")
    logged = len(system.fresh.log.read_text())
    tried = wait_for(lambda: len(found := waits.findall(system.fresh.log.read_text()[logged:])) >= 4 and found, 40)
    assert set(tried) == {"2.00"}
    own_valkey.start()
    all_delivered(system, http, "/redis-down", 20)
    assert set(http.times("/redis-down").values()) == {1}
    for child in (system.fresh, system.retry, system.clock, system.beat):
        assert child.alive(), child.name


def test_a_redis_that_hangs_holds_up_no_request(
    system: Running, http: HttpReceiver, own_valkey: EmbeddedValkey
) -> None:
    hang(own_valkey)
    _post_quickly(system, http, "/redis-hangs", 20)
    wake(own_valkey)
    all_delivered(system, http, "/redis-hangs", 20)


def test_losing_all_of_redis_loses_nothing(system: Running, http: HttpReceiver) -> None:
    release = http.hold("/flushed-first")
    first = system.event(recipient=http.url("/flushed-first"), channel="webhook")
    wait_for(lambda: http.received("/flushed-first"))
    kill(system.fresh)  # so that what follows stays in Redis until it is gone
    for _ in range(20):
        system.event(recipient=http.url("/flushed"), channel="webhook")
    client = redis.Redis.from_url(system.environment["REDIS_URL"])
    wait_for(lambda: client.llen("webhook"))
    client.flushdb()
    client.close()
    release()
    system.fresh.launch()
    wait_for(lambda: len(http.times("/flushed")) == 20, 40)
    assert set(http.times("/flushed").values()) == {1}
    assert system.finished(first, 40)["status"] == "delivered"


def test_redis_holds_at_most_64_messages_a_queue(system: Running) -> None:
    kill(system.fresh)
    client = redis.Redis.from_url(system.environment["REDIS_URL"])
    most = 0
    for _ in range(150):
        system.event(recipient="+4915112345678", channel="sms")
        most = max(most, client.llen("sms"))
    client.close()
    assert 0 < most <= 64
    system.fresh.launch()
    wait_for(lambda: system.sql("SELECT count(*) FROM outbox")[0][0] == 150, 40)
    wait_for(lambda: system.sql("SELECT count(*) FROM notifications WHERE due_at IS NOT NULL")[0][0] == 0)
    assert system.sql("SELECT count(*) FROM outbox")[0][0] == 150
