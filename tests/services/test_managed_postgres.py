"""A Postgres as clouds give one: no superuser, TLS alone, and a certificate whose name is looked at."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from notifier.storage import dashboard_role, partitions
from notifier.storage.database_roles import Login
from tests.conftest import APP, OWNER, clean_environment, engine_of
from tests.providers.receivers import certificate
from tests.services.postgresql import ManagedPostgres, managed_postgres
from tests.support.breaking import all_delivered
from tests.support.commands import manage, succeed
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, made, reaches

READER = Login(dashboard_role.ROLE, "the dashboards'")


@pytest.fixture(scope="module")
def managed() -> Iterator[ManagedPostgres]:
    """The server, set up and migrated by our commands alone, with what docs/production.md says."""
    with managed_postgres(OWNER) as server:
        for command in ("roles", "migrate", "roles", "reader"):
            succeed(command, environment=_environment(server))
        yield server


def _environment(server: ManagedPostgres) -> dict[str, str]:
    return {
        **clean_environment(),
        "DATABASE_URL": server.url(APP),
        "NOTIFIER_MIGRATION_DATABASE_URL": server.url(OWNER),
        "NOTIFIER_READER_PASSWORD": READER.password,
    }


@pytest.fixture(scope="module")
def system(managed: ManagedPostgres, new_system: Callable[..., Running]) -> Iterator[Running]:
    """A system on it."""
    with new_system(DATABASE_URL=managed.url(APP)) as running:
        yield running


def test_no_role_of_ours_is_more_than_it_must_be(managed: ManagedPostgres, system: Running) -> None:
    roles = system.sql("SELECT rolname, rolsuper, rolcreaterole FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'")
    assert {tuple(role) for role in roles} == {
        ("cloud_admin", True, True),
        (OWNER.name, False, True),
        (APP.name, False, False),
        (READER.name, False, False),
    }


def test_everything_is_delivered(system: Running, http: HttpReceiver) -> None:
    http.answer("/managed", 503, 200)
    for _ in range(50):
        system.event(channel="webhook", recipient=http.url("/managed"))
    all_delivered(system, http, "/managed", 50, 60)
    found = system.get("/api/v1/search", params={"q": http.url("/managed"), "status": "delivered"}).json()["items"]
    assert [each["type"] for each in found] == ["notification"] * 20 + ["event"] * 20
    reaches(system, made(system, channel="sms", recipient="+4915112345678", send_at=ahead(seconds=1)), "sent")
    assert system.get("/ready").json()["status"] == "ok"


def test_the_doctor_finds_nothing_to_mend(system: Running) -> None:
    found = json.loads(manage("doctor", "--json", environment=system.environment).stdout)["findings"]
    states = {each["check"]: each["state"] for each in found}
    assert [name for name, state in states.items() if state == "failed"] == []
    assert (states["database role"], states["partitions"], states["migrations"]) == ("ok", "ok", "ok")
    assert "notifier_app" in succeed("doctor", environment=system.environment)


def test_old_days_are_dropped_by_a_role_that_owns_none(managed: ManagedPostgres, system: Running) -> None:
    old: date = (datetime.now(UTC) - timedelta(days=400)).date()
    engine = engine_of(managed.url(APP))
    with engine.begin() as connection:
        partitions.make_day(connection, "events", old)
    engine.dispose()
    day = f"events_{old:%Y%m%d}"
    assert system.sql("SELECT to_regclass(:day) IS NOT NULL", day=day)[0][0]
    succeed("purge", environment=system.environment)
    assert system.sql("SELECT to_regclass(:day) IS NULL", day=day)[0][0]


def test_dashboards_read_what_is_harmless(managed: ManagedPostgres, system: Running) -> None:
    connection = psycopg2.connect(managed.url(READER))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(status) FROM notifications")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("SELECT recipient FROM notifications")
    connection.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("another name", 'does not match host name "localhost"'),
        ("another authority", "certificate verify failed"),
        ("no encryption", "no encryption"),
    ],
)
def test_a_server_that_is_not_the_one_is_refused_in_one_line(
    managed: ManagedPostgres, tmp_path: Path, fault: str, said: str
) -> None:
    url = {
        "another name": managed.url(OWNER, host="localhost"),
        "another authority": managed.url(OWNER, authority=certificate(tmp_path).file),
        "no encryption": managed.url(OWNER).partition("?")[0] + "?sslmode=disable",
    }[fault]
    environment = {**clean_environment(), "DATABASE_URL": url, "NOTIFIER_MIGRATION_DATABASE_URL": url}
    refused = manage("status", environment=environment)
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert said in line
    assert OWNER.password not in line
    found = json.loads(manage("doctor", "--json", environment=environment).stdout)["findings"]
    [postgres] = [each for each in found if each["check"] == "postgres"]
    assert postgres["state"] == "failed"
    assert said in postgres["says"]
