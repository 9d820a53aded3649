"""Before 'manage.py migrate', and with a release newer than its database: everything waits, and goes on by itself."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from notifier import migrations
from tests.conftest import OWNER, as_login, clean_environment, engine_of
from tests.support.commands import manage
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, made, reaches, wait_for

SAYS_WHAT_TO_DO = "manage.py migrate"
NOTIFICATION = {"channel": "sms", "recipient": "+14155550100", "body": "x"}
REPORT = """MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=x

--x
Content-Type: message/delivery-status

Action: failed
Status: 5.1.1
--x--
"""
PATHS = ("/api/v1/notifications", "/api/v1/events", "/api/v1/dead-letters", "/api/v1/subscriptions", "/api/v1/users")
COMMANDS = ("status", "dlq list", "outbox", "hold", "hold sms", "api-keys list", "audit", "why ada", "alive clock")


def test_everything_waits_for_the_migrations_and_goes_on_by_itself(
    new_system: Callable[..., Running], new_database: Callable[[], str]
) -> None:
    database = new_database()
    engine = engine_of(as_login(database, OWNER))
    migrations.downgrade(engine, "base")
    system = new_system(DATABASE_URL=database)
    try:
        for child in system.children:
            child.launch()
        wait_for(system.api.is_ready, 40, "an API that answers")
        for worker in (system.fresh, system.retry, system.clock):
            wait_for(lambda child=worker: "not_migrated" in child.output(), 40, "a worker that waits")

        event = {"event_type": "x", "payload": {}}
        for answer in (
            *map(system.get, PATHS),
            system.post("/api/v1/notifications", NOTIFICATION),
            system.post("/api/v1/events", event),
            system.http.put(f"{system.url}/api/v1/users/ada", json={}, timeout=20),
        ):
            assert answer.status_code == 503, answer.text
            assert SAYS_WHAT_TO_DO in answer.json()["detail"]
            assert "Retry-After" in answer.headers
        batch = system.post("/api/v1/events/batch", {"events": [event]})
        assert batch.status_code == 503, batch.text
        assert SAYS_WHAT_TO_DO in batch.json()["detail"]
        assert SAYS_WHAT_TO_DO in system.get("/ready").text
        for command in (
            "status",
            "dlq list",
            "outbox",
            "hold",
            "hold sms",
            "api-keys list",
            "audit",
            "why 1",
            "alive clock",
        ):
            done = manage(*command.split(), environment=system.environment)
            assert done.returncode == 1, command
            assert SAYS_WHAT_TO_DO in done.stderr, command
            assert "Traceback" not in done.stderr, command

        # Half of the way there is as good as none for a worker: it could not record what it sends.
        migrations.upgrade(engine, "0008")
        answer = system.post("/api/v1/notifications", NOTIFICATION)
        assert answer.status_code in {202, 503}, answer.text
        assert manage("status", environment=system.environment).returncode in {0, 1}

        as_owner = {"NOTIFIER_MIGRATION_DATABASE_URL": as_login(database, OWNER)}
        assert manage("migrate", environment={**system.environment, **as_owner}).returncode == 0
        wait_for(lambda: system.get("/ready").json()["status"] == "ok", 40, "a system that is ready")
        reaches(system, made(system, **NOTIFICATION), "sent")
        assert system.sql("SELECT count(*) FROM attempts") == system.sql(
            "SELECT count(*) FROM notifications WHERE status = 'sent'"
        )
    finally:
        system.stop()
        engine.dispose()


def test_what_went_out_is_recorded_once_the_database_can_take_it(breakable: Running, http: HttpReceiver) -> None:
    """A release that records more than its database knows: nothing is sent a second time for that."""
    breakable.sql("ALTER TABLE attempts RENAME COLUMN fault TO unforeseen")
    try:
        notification_id = made(breakable, channel="webhook", recipient=http.url("/before-migrate"))
        wait_for(lambda: "record_failed" in breakable.fresh.output(), 30, "a worker that waits for the column")
        assert (
            breakable.sql("SELECT status FROM notifications WHERE id = :id", id=notification_id)[0].status == "sending"
        )
    finally:
        breakable.sql("ALTER TABLE attempts RENAME COLUMN unforeseen TO fault")
    told = reaches(breakable, notification_id, "delivered")
    assert [each["outcome"] for each in told["attempt_log"]] == ["accepted"]
    assert len(http.received("/before-migrate")) == 1


def test_bounces_are_left_to_the_mail_server_until_then(owner_engine: Engine, database_url: str) -> None:
    migrations.downgrade(owner_engine, "base")
    environment = {
        **clean_environment(),
        "DATABASE_URL": database_url,
        "NOTIFIER_EMAIL": "smtp://127.0.0.1?tls=none&bounces=bounce@example.com",
    }
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "bounces", "-"],
        env=environment,
        cwd=ROOT,
        input=f"To: bounce+{'a' * 42}@example.com\n{REPORT}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (75, "")
    assert SAYS_WHAT_TO_DO in done.stderr


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_setting_of_another_release_stops_nothing(system: Running, command: str) -> None:
    environment = {**system.environment, "NOTIFIER_EMAIL_FORM": "hunter2"}
    done = manage(command, environment=environment)
    assert done.returncode == (0 if command == "status" else 1), done.stdout + done.stderr
    assert ("NOTIFIER_EMAIL_FROM is the nearest one" in done.stdout) is (command == "doctor")
    assert "hunter2" not in done.stdout + done.stderr
