"""A real Redis with a password, reached over TLS alone, by everything that speaks to it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.providers.receivers import certificate
from tests.services.redis_tls import RedisTls
from tests.support.breaking import all_delivered, kill
from tests.support.commands import manage, succeed
from tests.support.flowers import flower, workers_seen
from tests.support.load import posting
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, made, reaches, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTls]:
    """The server."""
    started = RedisTls(tmp_path_factory.mktemp("redis"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def system(new_system: Callable[..., Running], server: RedisTls) -> Iterator[Running]:
    """A system on it, with limits, which are counted there."""
    with new_system(REDIS_URL=server.url(), NOTIFIER_SMS_RECIPIENT_LIMIT="2/day") as running:
        yield running


def test_messages_and_limits_go_over_it(system: Running, server: RedisTls, http: HttpReceiver) -> None:
    http.answer("/tls", 503, 200)
    for _ in range(20):
        system.event(channel="webhook", recipient=http.url("/tls"))
    all_delivered(system, http, "/tls", 20, 60)
    for _ in range(2):
        reaches(system, made(system, channel="sms", recipient="+4915112345678"), "sent")
    assert (
        reaches(system, made(system, channel="sms", recipient="+4915112345678"), "scheduled")["reason"] == "throttled"
    )
    with redis.Redis.from_url(server.url()) as client:
        assert client.dbsize()


def test_operators_see_it(system: Running, http: HttpReceiver, tmp_path: Path) -> None:
    assert system.get("/ready").json()["checks"]["redis"] == {"status": "ok"}
    found = json.loads(manage("doctor", "--json", environment=system.environment).stdout)["findings"]
    states = {each["check"]: each["state"] for each in found}
    assert (states["redis"], states["broker"]) == ("ok", "ok")
    assert "cannot be reached" not in succeed("status", environment=system.environment)
    with flower(tmp_path, {**system.environment, "FLOWER_UNAUTHENTICATED_API": "1"}) as url:
        wait_for(lambda: workers_seen(url) == {"fresh", "retry", "clock"}, 30, "Flower to see the workers")


def test_a_restart_under_load_loses_nothing(system: Running, server: RedisTls, http: HttpReceiver) -> None:
    with posting(system, http.url("/restart")) as accepted:
        kill(server)
        server.start()
    all_delivered(system, http, "/restart", len(accepted), 60)
    assert set(http.times("/restart").values()) == {1}
    wait_for(lambda: system.get("/ready").json()["status"] == "ok", 40, "a system that is ready")


@pytest.mark.parametrize("fault", ["another authority", "another name", "another password"])
def test_a_server_that_is_not_the_one_is_named_by_the_doctor(
    system: Running, server: RedisTls, tmp_path: Path, fault: str
) -> None:
    url, said = {
        "another authority": (
            server.url(options=f"ssl_ca_certs={certificate(tmp_path).file}"),
            "certificate verify failed",
        ),
        "another name": (server.url(host="localhost"), "certificate verify failed"),
        "another password": (server.url().replace("of%20redis", "wrong"), "password"),
    }[fault]
    environment = {**system.environment, "REDIS_URL": url}
    found = json.loads(manage("doctor", "--json", environment=environment).stdout)["findings"]
    [broken, broker] = [each for each in found if each["check"] in {"redis", "broker"}]
    assert broken["state"] == broker["state"] == "failed"
    assert said in broken["says"]
    assert "wrong" not in broken["says"].replace("WRONGPASS", "")
    shown = manage("status", environment=environment)
    assert (shown.returncode, "The broker cannot be reached" in shown.stdout) == (0, True), shown.stderr
