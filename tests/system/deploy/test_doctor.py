"""The doctor: finds what is wrong, says what to do, and does so where everything is down."""

import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from config.settings import Settings, read_settings
from deploy.commands import doctor_service as service
from deploy.commands import doctor_storage as storage
from deploy.commands.doctor_checks import Check, Finding, State, findings, well
from deploy.embedded import EmbeddedValkey
from notifier import migrations
from notifier.observability import heartbeats
from notifier.providers import breakers
from notifier.security import api_keys
from notifier.security.secret_box import Vault, new_key
from notifier.security.signing_keys import reseal, signing_key
from notifier.storage import partitions
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.states import Channel
from tests.conftest import clean_environment
from tests.providers import receivers
from tests.support.commands import manage
from tests.support.running import Running, wait_for

NOBODY = "127.0.0.1:9"


def _settings(**more: str) -> Settings:
    return read_settings({"DATABASE_URL": f"postgresql://{NOBODY}/x", **more})


def _one(found: Iterator[Finding]) -> tuple[State, str]:
    [finding] = found
    assert (finding.todo is None) == (finding.state is not State.FAILED)
    return finding.state, finding.says


def _by_check(said: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["check"]: each for each in said}


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server.getsockname()[1]


# --- as a person uses it


def test_all_is_well(system: Running) -> None:
    def look() -> str:
        done = manage("doctor", environment=system.environment)
        return done.stdout if done.returncode == 0 else ""

    said = wait_for(look, 60, "a doctor who is content")
    assert "✘" not in said
    for line in (
        *("✔ settings ", "✔ postgres ", "✔ clocks ", "✔ migrations ", "✔ partitions ", "✔ breakers ", "✔ secret key "),
        *("✔ worker fresh ", "✔ worker retry ", "✔ worker clock ", "✔ clock ", "✔ redis ", "✔ broker ", "✔ disk "),
        *("✔ email smtp           it lets us in", "– sms outbox ", "– api keys             NOTIFIER_AUTH is off"),
        "All is well.",
    ):
        assert line in said, f"{line!r} is not in:\n{said}"


def test_everything_is_down_and_each_line_says_so() -> None:
    dead = {
        **clean_environment(),
        **{"DATABASE_URL": f"postgresql://u:s3cret@{NOBODY}/x", "REDIS_URL": f"redis://:s3cret@{NOBODY}/0"},
        **{
            "NOTIFIER_EMAIL": f"smtp://u:s3cret@{NOBODY}",
            "NOTIFIER_SMS": "twilio://AC1:s3cret@default?from=%2B15550100",
        },
    }
    done = manage("doctor", "--json", environment=dead)
    assert (done.returncode, done.stderr) == (1, "")
    assert "s3cret" not in done.stdout
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    found = _by_check(answer["findings"])
    failed = {name for name, each in found.items() if each["state"] == "failed"}
    assert failed == {"postgres", "redis", "broker", "public url", "email smtp"}
    for name in failed:
        assert found[name]["todo"]
    for name in ("migrations", "partitions", "workers", "breakers", "secret key", "api keys"):
        assert found[name]["says"] == "not looked at, because of postgres"
    assert "'manage.py providers test sms RECIPIENT'" in found["sms twilio"]["says"]


def test_what_hangs_is_as_good_as_away(silent: int) -> None:
    urls = {"DATABASE_URL": f"postgresql://127.0.0.1:{silent}/x", "REDIS_URL": f"redis://127.0.0.1:{silent}/0"}
    mail = {"NOTIFIER_EMAIL": f"smtp://127.0.0.1:{silent}?tls=none"}
    done = manage("doctor", environment={**clean_environment(), **urls, **mail})
    assert done.returncode == 1
    for name in ("postgres", "redis", "broker", "email smtp"):
        assert f"✘ {name:<20} " in done.stdout, done.stdout
    assert "no answer within 3 s" in done.stdout


def test_all_that_is_wrong_with_the_settings_is_said_at_once() -> None:
    wrong = {"NOTIFIER_AUTH": "maybe", "NOTIFIER_TYPO": "1", "NOTIFIER_WEBHOOK_SECRET": "s3cret"}
    done = manage("doctor", environment={**clean_environment(), **wrong})
    assert done.returncode == 1
    for name in ("NOTIFIER_AUTH is not", "NOTIFIER_TYPO is not", "NOTIFIER_WEBHOOK_SECRET", "DATABASE_URL is not set"):
        assert f"✘ settings             {name}" in done.stdout
    assert "s3cret" not in done.stdout
    assert " disk " in done.stdout


# --- one by one


def test_a_check_that_fails_or_hangs_is_a_finding() -> None:
    def hang() -> Iterator[Finding]:
        hanging.accept()
        yield well("never", "said")

    def fail() -> Iterator[Finding]:
        yield well("first", "said and lost")
        raise ValueError("told\nin two lines")

    with socket.create_server(("127.0.0.1", 0)) as hanging:
        [hung] = findings(Check("slow", hang, "wait"), 0.1)
    assert (hung.state, hung.says, hung.todo) == (State.FAILED, "no answer within 0.1 s", "wait")
    [failed] = findings(Check("broken", fail, "mend"))
    assert (failed.state, failed.says, failed.todo) == (State.FAILED, "told", "mend")


@pytest.mark.parametrize(
    ("skew", "state", "says"),
    [
        (0.5, State.OK, "500 ms apart"),
        (-2.5, State.FAILED, "Postgres is 2.5 s behind"),
        (90.0, State.FAILED, "Postgres is 90.0 s ahead of"),
    ],
)
def test_clocks(skew: float, state: State, says: str) -> None:
    found = storage.clocks(skew)
    assert found.state is state
    assert says in found.says


def test_migrations_and_partitions(engine: Engine, owner_engine: Engine) -> None:
    assert _one(storage.migrated(engine))[0] is State.OK
    assert _one(storage.partitioned(engine))[0] is State.OK
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    name = partitions.partition_of("notifications", tomorrow)
    with owner_engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {name}"))
    assert _one(storage.partitioned(engine)) == (State.FAILED, f"missing: {name}; rows go to the default partition")
    migrations.downgrade(owner_engine, "0004")
    state, says = _one(storage.migrated(engine))
    assert state is State.FAILED
    assert f"is not at {migrations.pending(engine)}" in says


def test_workers_by_their_queues_and_the_clock(engine: Engine) -> None:
    nobody = [finding.state for finding in service.workers(engine)]
    assert nobody == [State.FAILED] * 4
    heartbeats.sign(engine, "fresh@a", heartbeats.WORKER, service.WORKERS["fresh"])
    heartbeats.sign(engine, "clock@a", heartbeats.WORKER, service.WORKERS["clock"])
    found = {finding.check: finding for finding in service.workers(engine)}
    assert found["worker fresh"].state is State.OK
    assert found["worker retry"].says == "nobody serves its queues"
    assert found["worker retry"].todo == "start 'manage.py worker retry', and see its log"
    assert (found["worker clock"].state, found["clock"].state) == (State.OK, State.FAILED)
    heartbeats.sign(engine, heartbeats.CLOCK, heartbeats.CLOCK)
    first, *others = service.WORKERS["fresh"]
    heartbeats.sign(engine, "fresh@a", heartbeats.WORKER, others)
    found = {finding.check: finding for finding in service.workers(engine)}
    assert found["worker fresh"].says == f"nobody serves {first}"
    assert found["clock"].state is State.OK


def test_a_breaker_that_is_open(engine: Engine) -> None:
    assert _one(service.breakers(engine)) == (State.OK, "all are closed")
    now = datetime.now(UTC)
    note = {"name": "twilio", "failures": breakers.OPENS_AT, "alive_at": None, "failed_at": now, "error": "http 503"}
    breakers.remember(engine, Channel.SMS, [{**note, "probe_failed": False}])
    [found] = service.breakers(engine)
    assert (found.check, found.state) == ("breaker sms twilio", State.FAILED)
    assert found.says.endswith("http 503")
    assert found.todo == "see 'manage.py providers status sms'"


def test_the_key_of_secrets(engine: Engine) -> None:
    right, wrong = (_settings(NOTIFIER_SECRET_KEY=new_key()) for _ in range(2))
    assert _one(storage.secrets_readable(engine, _settings()))[0] is State.NOTE
    assert _one(storage.secrets_readable(engine, right))[0] is State.OK
    with engine.begin() as connection:
        connection.execute(
            text("""INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)
                VALUES (gen_random_uuid(), 'https://x', '{*}', '{}', true, :secret, now(), now())"""),
            {"secret": storage.Vault(right.secret_key).encrypt("whsec_x")},
        )
    assert _one(storage.secrets_readable(engine, right))[0] is State.OK
    assert _one(storage.secrets_readable(engine, wrong))[0] is State.FAILED
    assert _one(storage.secrets_readable(engine, _settings()))[0] is State.FAILED


def test_keys_that_sign_are_encrypted_or_it_says_so(engine: Engine) -> None:
    key = new_key()
    for settings in (_settings(), _settings(NOTIFIER_SECRET_KEY=key)):
        state, says = _one(storage.keys_sealed(engine, settings))
        assert state is State.NOTE
        assert "unsubscribe" in says
    before = signing_key(engine, Vault(()), "unsubscribe")
    assert reseal(engine, Vault([key])) == 2  # and the one that seals addresses
    assert _one(storage.keys_sealed(engine, _settings(NOTIFIER_SECRET_KEY=key)))[0] is State.OK
    assert signing_key(engine, Vault([key]), "unsubscribe") == before
    with pytest.raises(Conflict):
        signing_key(engine, Vault(()), "unsubscribe")
    newer = new_key()
    reseal(engine, Vault([newer, key]))
    assert signing_key(engine, Vault([newer]), "unsubscribe") == before


def test_redis_as_it_should_be_and_as_it_should_not(tmp_path: Path, new_redis: Callable[[], str]) -> None:
    states = {each.check: each.state for each in storage.redis_server(_settings(REDIS_URL=new_redis()))}
    assert states == {
        **dict.fromkeys(("redis", "redis eviction", "redis memory"), State.OK),
        "redis persistence": State.NOTE,
    }
    small = {"maxmemory-policy": "allkeys-lru", "maxmemory": "1mb", "appendonly": "yes"}
    server = EmbeddedValkey(tmp_path, settings=small)
    server.start()
    try:
        found = {each.check: each for each in storage.redis_server(_settings(REDIS_URL=server.url))}
    finally:
        server.stop()
    assert found["redis persistence"].state is State.OK
    assert found["redis eviction"].state is found["redis memory"].state is State.FAILED
    assert "allkeys-lru" in found["redis eviction"].says


def test_redis_is_not_needed_with_another_broker() -> None:
    away = {"REDIS_URL": f"redis://{NOBODY}/0"}
    assert _one(storage.redis_server(_settings(**away)))[0] is State.FAILED
    assert _one(storage.redis_server(_settings(**away, BROKER_URL="amqp://x/")))[0] is State.NOTE


def _email(engine: Engine, *dsns: str) -> list[Finding]:
    checks = service.provider_checks(_settings(NOTIFIER_EMAIL=",".join(dsns)), engine, Channel.EMAIL)
    return [finding for check in checks for finding in findings(check, 10)]


def test_a_mail_server_is_logged_in_to(engine: Engine) -> None:
    replies = {"EHLO": b"250-here\r\n250 AUTH PLAIN", "AUTH": b"535 5.7.8 wrong password"}
    refusing, willing = receivers.MailServer(replies), receivers.MailServer({**replies, "AUTH": b"235 welcome"})
    with receivers.listening(refusing.talk) as one, receivers.listening(willing.talk) as other:
        wrong, right, away = _email(
            engine,
            f"smtp://u:s3cret@127.0.0.1:{one.port}?tls=none",
            f"smtp://u:s3cret@127.0.0.1:{other.port}?tls=none&name=ok",
            f"smtp://{NOBODY}?name=away",
        )
        wait_for(lambda: "QUIT" in willing.heard)
    assert (wrong.check, wrong.state) == ("email smtp", State.FAILED)
    assert wrong.says == "auth: smtp 535, 5.7.8 wrong password"
    assert (right.check, right.state) == ("email ok", State.OK)
    assert (away.state, away.says) == (State.FAILED, "refused: connection refused")
    assert [line.split()[0] for line in willing.heard] == ["EHLO", "AUTH", "QUIT"]


def test_a_provider_that_cannot_be_made(engine: Engine) -> None:
    [found] = _email(engine, "smtp://127.0.0.1?tls=maybe")
    assert (found.check, found.state) == ("email", State.FAILED)
    assert found.says.startswith("NOTIFIER_EMAIL has a tls")


@pytest.mark.parametrize(
    ("url", "auth", "state"),
    [
        ("https://notify.example.com", "required", State.OK),
        ("http://notify.example.com", "required", State.FAILED),
        ("https://localhost:8000", "required", State.FAILED),
        ("https://127.0.0.1", "required", State.FAILED),
        ("https://[::1]/", "required", State.FAILED),
        ("http://localhost:8000", "off", State.NOTE),
    ],
)
def test_the_public_url(url: str, auth: str, state: State) -> None:
    assert _one(service.public_url(_settings(NOTIFIER_PUBLIC_URL=url, NOTIFIER_AUTH=auth)))[0] is state


def test_keys_that_can_be_used(engine: Engine) -> None:
    assert _one(service.api_keys(_settings(), engine))[0] is State.FAILED
    api_keys.create(engine, "ending", ["send"], expires_at=datetime.now(UTC) + timedelta(days=3))
    usable, soon = service.api_keys(_settings(), engine)
    assert (usable.state, usable.says) == (State.OK, "1 in use")
    assert soon.says.startswith("ending ends ")
    api_keys.revoke(engine, "ending")
    assert _one(service.api_keys(_settings(), engine))[0] is State.FAILED


def test_there_is_a_channel() -> None:
    assert next(service.any_channel(_settings())).state is State.FAILED
    assert [each.state for each in service.any_channel(_settings(NOTIFIER_SMS="outbox:"))] == [State.NOTE]
