"""Redis behind sentinels: a failover under load costs seconds and no events, and everybody follows the master."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from redis.exceptions import RedisError

from config.broker import celery_settings, parse_sentinels, redis_client
from config.settings import Settings, SettingsError, read_settings
from deploy.commands import doctor_storage as storage
from deploy.commands.doctor_checks import State
from tests.support.breaking import all_delivered, kill
from tests.support.commands import manage, succeed
from tests.support.flowers import flower, workers_seen
from tests.support.load import posting
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, made, reaches, wait_for
from tests.support.sentinels import MASTER, PASSWORD, SENTINEL_PASSWORD, Watched, watched_redis


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A Redis that may move."""
    with watched_redis(tmp_path_factory.mktemp("sentinels")) as servers:
        yield servers


def _environment(watched: Watched) -> dict[str, str]:
    hosts = ",".join(f"127.0.0.1:{port}" for port in watched.sentinel_ports)
    return {
        "REDIS_URL": f"sentinel://:{quote(PASSWORD, safe='')}@{hosts}/3",
        "NOTIFIER_REDIS_MASTER": MASTER,
        "NOTIFIER_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
    }


def _settings(**environment: str) -> Settings:
    return read_settings({"DATABASE_URL": "postgresql://localhost/notifier", **environment})


def test_a_failover_under_load_costs_seconds_and_no_events(
    watched: Watched, new_system: Callable[..., Running], http: HttpReceiver, tmp_path: Path
) -> None:
    limits = {"NOTIFIER_SMS_RECIPIENT_LIMIT": "2/day"}
    with new_system(**_environment(watched), **limits) as system:
        settings = _settings(**_environment(watched))
        findings = list(storage.redis_server(settings))
        assert findings[0].state is State.OK
        # Messages and counts go to the master, to the database that the URL names.
        for _ in range(2):
            reaches(system, made(system, channel="sms", recipient="+4915112345678"), "sent")
        limited = made(system, channel="sms", recipient="+4915112345678")
        assert reaches(system, limited, "scheduled")["reason"] == "throttled"
        with redis.Redis(port=watched.ports[0], password=PASSWORD, db=3) as master:
            assert master.dbsize()

        with posting(system, http.url("/failover")) as accepted:
            kill(watched.servers[0])
            wait_for(lambda: watched.master_port() == watched.ports[1], 30, "a failover")
        all_delivered(system, http, "/failover", len(accepted), 60)
        assert set(http.times("/failover").values()) == {1}
        reaches(system, made(system, channel="sms", recipient="+4915112345679", send_at=ahead(seconds=1)), "sent")
        wait_for(lambda: system.get("/ready").json()["status"] == "ok", 40, "a system that is ready")
        with redis_client(settings, 2) as client:
            assert client.ping()
            assert client.connection_pool.get_master_address() == ("127.0.0.1", watched.ports[1])
        _operators_see_the_new_master(system, tmp_path)


def _operators_see_the_new_master(system: Running, folder: Path) -> None:
    found = json.loads(manage("doctor", "--json", environment=system.environment).stdout)["findings"]
    states = {each["check"]: each["state"] for each in found}
    assert (states["redis"], states["broker"]) == ("ok", "ok")
    assert "cannot be reached" not in succeed("status", environment=system.environment)
    with flower(folder, {**system.environment, "FLOWER_UNAUTHENTICATED_API": "1"}) as url:
        wait_for(lambda: workers_seen(url) == {"fresh", "retry", "clock"}, 30, "Flower to see the workers")


@pytest.mark.parametrize("name", ["REDIS_URL", "BROKER_URL"])
def test_sentinels_must_be_told_which_redis_is_meant(name: str) -> None:
    with pytest.raises(SettingsError, match="NOTIFIER_REDIS_MASTER is not set"):
        _settings(**{name: "sentinel://one:26379"})


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://u:p%40@one,two:7,[::1]/4",
        "sentinel://u:p%40@one:26379/4;sentinel://two:7/4;sentinel://[::1]:26379/4",
    ],
)
def test_sentinels_are_written_with_commas_or_as_celery_does(url: str) -> None:
    settings = _settings(REDIS_URL=url, NOTIFIER_REDIS_MASTER="m")
    sentinels = parse_sentinels(url, settings)
    assert sentinels.addresses == (("one", 26379), ("two", 7), ("::1", 26379))
    assert (sentinels.username, sentinels.password, sentinels.database) == ("u", "p@", 4)
    assert celery_settings(settings)["broker_url"] == (
        "sentinel://u:p%40@one:26379/4;sentinel://u:p%40@two:7/4;sentinel://u:p%40@[::1]:26379/4"
    )


@pytest.mark.parametrize("url", ["sentinel://one,[::1", "sentinel://one:7;sentinel://[two]:7", "sentinel://[::1/0"])
def test_a_sentinel_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL is a URL of a host that cannot be read"):
        _settings(REDIS_URL=url, NOTIFIER_REDIS_MASTER="m")


def test_without_a_sentinel_that_answers_there_is_an_error_in_time() -> None:
    settings = _settings(REDIS_URL="sentinel://127.0.0.1:9", NOTIFIER_REDIS_MASTER="m")
    with redis_client(settings, 1) as client, pytest.raises(RedisError):
        client.ping()
    assert next(storage.redis_server(settings)).state is State.FAILED
