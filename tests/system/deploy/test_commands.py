"""manage.py, as a person uses it."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import requests
from click.testing import CliRunner
from sqlalchemy import Engine, text

from config.settings import STACK_FILE
from deploy.child_process import Child
from deploy.commands.cli import cli
from deploy.ports import free_port
from notifier import VERSION
from notifier.observability import heartbeats
from tests.conftest import clean_environment
from tests.support.commands import manage, succeed
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


@pytest.fixture
def env(system: Running) -> dict[str, str]:
    """The shared system's environment."""
    return system.environment


@pytest.mark.parametrize(
    "command",
    [
        "",
        "up",
        "migrate",
        "api",
        "worker",
        "beat",
        "flower",
        "exporter",
        "status",
        "alive",
        "dlq",
        "dlq requeue",
        "outbox",
        "providers",
        "providers test",
        "providers status",
        "why",
        "listen",
        "api-keys",
        "replay",
        "purge",
        "users",
        "users export",
    ],
)
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(cli, [*command.split(), "--help"], terminal_width=110)
    assert done.exit_code == 0, done.output
    out = done.output
    assert "Usage:" in out
    # A sentence beside the options: what it does, for somebody who does not know.
    assert re.search(r"^  [A-Z].+\.$", out, re.MULTILINE), out


@pytest.mark.parametrize(
    "command", ["status", "outbox", "migrate", "worker fresh", "api", "exporter", "dlq list", "alive clock"]
)
def test_without_a_database_each_says_so_in_one_line(command: str, tmp_path: Path) -> None:
    done = manage(*command.split(), environment=clean_environment(), cwd=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr.strip() == "Error: DATABASE_URL is not set, and no stack started by 'manage.py up' is running here"
    )


@pytest.mark.parametrize("command", ["beat", "flower"])
def test_beat_and_flower_want_a_broker_and_no_database(command: str, tmp_path: Path) -> None:
    done = manage(command, environment=clean_environment(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: REDIS_URL and BROKER_URL are not set")


@pytest.mark.parametrize(("name", "command"), [("beat", ["beat", "--sign-file", "FILE"]), ("flower", ["flower"])])
def test_beat_and_flower_work_without_a_database(
    name: str, command: list[str], new_redis: Callable[[], str], tmp_path: Path
) -> None:
    url, file, port = new_redis(), tmp_path / "beat", free_port()
    arguments = [str(file) if each == "FILE" else each for each in command]
    if name == "flower":
        arguments.append(f"--port={port}")
    child = Child(
        name,
        [sys.executable, ROOT / "manage.py", *arguments],
        log=tmp_path / "log",
        environment={**clean_environment(), "REDIS_URL": url},
        cwd=tmp_path,
    )
    child.launch()
    try:
        if name == "beat":
            with redis.Redis.from_url(url) as client:
                wait_for(lambda: client.llen("clock"), 30, "a tick")
            alive = ("alive", "--sign-file", str(file))
            assert "alive" in succeed(*alive, environment=clean_environment())
            os.utime(file, (0, 0))
            wait_for(lambda: file.stat().st_mtime, 20, "the file to be touched again")
        else:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/healthcheck"), 30, "Flower")
        assert child.alive(), child.output()
    finally:
        child.stop()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def test_alive_by_a_file_that_nobody_touches(tmp_path: Path) -> None:
    file = tmp_path / "beat"
    missing = manage("alive", "--sign-file", str(file), environment=clean_environment())
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "No such file" in missing.stderr
    file.touch()
    os.utime(file, (0, 0))
    stale = manage("alive", "--sign-file", str(file), environment=clean_environment())
    assert "has not been touched for 20 seconds" in stale.stderr
    for both in ((), ("clock", "--sign-file", str(file))):
        assert manage("alive", *both, environment=clean_environment()).returncode == 2


def test_a_wrong_setting_stops_each_process_in_one_line(env: dict[str, str]) -> None:
    for command in ("api", "worker fresh", "beat", "exporter"):
        done = manage(*command.split(), environment={**env, "NOTIFIER_RETRY_JITTER": "maybe"})
        assert done.returncode == 1
        assert done.stderr.strip() == "Error: NOTIFIER_RETRY_JITTER is neither 0, 1, true nor false"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_or_a_password_only_this_machine_is_listened_to(env: dict[str, str], host: str) -> None:
    for command in (f"api --host {host}", f"flower --address {host}"):
        done = manage(*command.split(), "--port", str(free_port()), environment=env)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        [line] = done.stderr.splitlines()
        for name in ("NOTIFIER_AUTH=off", f"--host {host}") if "api" in command else ("FLOWER_BASIC_AUTH", host):
            assert name in line


@pytest.mark.parametrize("command", ["api --port", "flower --port", "exporter --port", "listen --port", "up --port"])
def test_no_port_is_0(command: str) -> None:
    for each in command, command.replace("up --port", "up --flower-port"):
        done = CliRunner().invoke(cli, [*each.split(), "0"])
        assert done.exit_code == 2
        assert "0 is not in the range 1<=x<=65535" in done.stderr


def test_postgres_that_is_away_is_said_in_one_line(env: dict[str, str]) -> None:
    done = manage("status", environment={**env, "DATABASE_URL": "postgresql://127.0.0.1:9/x"})
    assert done.returncode == 1
    assert re.fullmatch(r"Error: Postgres cannot be reached: .+\n", done.stderr), done.stderr


def test_a_running_stack_is_found_by_its_folder(env: dict[str, str], tmp_path: Path) -> None:
    ours = {name: env[name] for name in env if name.startswith(("NOTIFIER_", "DATABASE_URL", "REDIS_URL"))}
    (tmp_path / STACK_FILE).write_text(json.dumps({"pid": os.getpid(), "environment": ours}))
    assert "worker" in succeed("status", "--data-dir", str(tmp_path), environment=clean_environment())


def test_status_shows_queues_letters_and_workers(system: Running, http: HttpReceiver, env: dict[str, str]) -> None:
    http.answer("/status-dead", 410)
    http.answer("/status-waits", (503, {"Retry-After": "60"}))
    system.finished(system.event(recipient=http.url("/status-dead"), channel="webhook"))
    waiting = system.event(recipient=http.url("/status-waits"), channel="webhook")
    wait_for(lambda: system.notifications(waiting)[0]["status"] == "retrying")
    out = succeed("status", environment=env)
    assert re.search(r"webhook\.retry +│ retrying +│ +\d+ │ +in \d+ s", out), out
    assert re.search(r"webhook +│ permanent_error +│ \d+", out), out
    assert "fresh@" in out
    assert "ticks" in out


def test_status_works_without_the_broker(env: dict[str, str]) -> None:
    out = succeed("status", environment={**env, "REDIS_URL": "redis://127.0.0.1:9/0"})
    assert "broker cannot be reached" in out


def test_alive_tells_by_its_exit_code(env: dict[str, str]) -> None:
    assert "alive" in succeed("alive", "fresh", environment=env)
    assert "alive" in succeed("alive", "clock", environment=env)
    done = manage("alive", "nobody", environment=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody" in done.stderr


def test_alive_clock_means_ticks_and_no_worker_of_that_name(database_url: str, engine: Engine) -> None:
    environment = {**clean_environment(), "DATABASE_URL": database_url}
    node = f"clock@{socket.gethostname()}"
    heartbeats.sign(engine, node, heartbeats.WORKER, ["clock"])
    assert manage("alive", "clock", environment=environment).returncode == 1
    assert "alive" in succeed("alive", node, environment=environment)
    heartbeats.sign(engine, heartbeats.CLOCK, heartbeats.CLOCK)
    assert "alive" in succeed("alive", "clock", environment=environment)
    with engine.begin() as connection:
        connection.execute(text("UPDATE heartbeats SET seen_at = now() - interval '48 s' WHERE name = 'clock'"))
    assert "clock has not been seen" in manage("alive", "clock", environment=environment).stderr


def test_dead_letters_from_the_shell(system: Running, http: HttpReceiver, env: dict[str, str]) -> None:
    http.answer("/shell", 410)
    events = [system.event(event_type="shell.event", recipient=http.url("/shell"), channel="webhook") for _ in range(3)]
    letters = [system.dead_letter(event_id)["id"] for event_id in events]
    listed = succeed("dlq", "list", "--event-type", "shell.event", environment=env)
    assert all(letter in listed for letter in letters)
    assert "permanent_error" in succeed("dlq", "show", letters[0], environment=env)
    dry = succeed("dlq", "requeue", "--event-type", "shell.event", "--dry-run", environment=env)
    assert dry.strip() == "Would have requeued 3 dead letters."
    http.answer("/shell", 204)
    assert "Requeued 1 dead letter." in succeed("dlq", "requeue", letters[0], environment=env)
    assert "Requeued 2 dead letters." in succeed("dlq", "requeue", "--event-type", "shell.event", environment=env)
    for event_id in events:
        wait_for(lambda event_id=event_id: system.finished(event_id)["status"] == "delivered")
    assert letters[0] not in succeed("dlq", "list", environment=env)
    assert letters[0] in succeed("dlq", "list", "--requeued", environment=env)
    assert "Requeued 0" in succeed("dlq", "requeue", letters[0], environment=env)
    purged = succeed("dlq", "purge", "--event-type", "shell.event", "--yes", environment=env)
    assert "Purged 3 dead letters." in purged


def test_purging_asks_first(system: Running, http: HttpReceiver, env: dict[str, str]) -> None:
    http.answer("/asked", 410)
    letter = system.dead_letter(system.event(recipient=http.url("/asked"), channel="webhook"))["id"]
    assert manage("dlq", "purge", letter, environment=env).returncode == 1
    assert system.get(f"/api/v1/dead-letters/{letter}").status_code == 200


@pytest.mark.parametrize(
    "arguments", ["", "--all --channel sms", "not-a-uuid", "--created-after yesterday", "--channel fax"]
)
def test_which_letters_are_meant_must_be_said(arguments: str, env: dict[str, str]) -> None:
    done = manage("dlq", "requeue", *arguments.split(), environment=env)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_keys_from_the_shell(env: dict[str, str]) -> None:
    made = manage("api-keys", "create", "--name", "from-shell", "--scope", "send, read", environment=env)
    assert made.returncode == 0
    key = made.stdout.strip()
    assert key.startswith("ntf_")
    listed = succeed("api-keys", "list", environment=env)
    assert "from-shell" in listed
    assert key not in listed
    again = manage("api-keys", "create", "--name", "from-shell", "--scope", "send", environment=env)
    assert (again.returncode, again.stdout) == (1, "")
    assert manage("api-keys", "create", "--name", "x", "--scope", "root", environment=env).returncode == 1
    assert "Revoked" in succeed("api-keys", "revoke", "from-shell", environment=env)
    assert manage("api-keys", "revoke", "from-shell", environment=env).returncode == 1


def test_the_outbox_and_a_replay_from_the_shell(system: Running, env: dict[str, str]) -> None:
    event_id = system.event(recipient="+4915112345670", channel="sms", payload={"marker": "[bold]x[/bold]"})
    system.finished(event_id)
    shown = succeed("outbox", "--recipient", "+49 151 1234-5670", environment=env)  # in any form
    assert "marker: [bold]x[/bold]" in shown
    assert "1 notification to be sent now" in succeed("replay", event_id, environment=env)
    wait_for(lambda: len(system.sql("SELECT 1 FROM outbox WHERE recipient = '+4915112345670'")) == 2)
    assert manage("replay", "01a1fc47-52fc-7015-a681-4dd01035c71e", environment=env).returncode == 1


@pytest.mark.parametrize("command", [["worker", "--help"], ["beat", "--help"]])
def test_plain_celery_works(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", *command], env=env, cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_plain_celery_consumes_every_queue(env: dict[str, str]) -> None:
    program = "import tasks, celery; from config.queues import ALL; assert set(tasks.app.amqp.queues) == set(ALL);"
    program += "assert tasks.app.conf.worker_pool == 'threads'; print('yes')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "yes\n", done.stderr


def test_messages_say_in_few_words_what_they_are_for(env: dict[str, str], new_redis: Callable[[], str]) -> None:
    program = """
import json, os, redis, uuid
from notifier.scheduling.due import Handover
from tasks import app
from tasks.hints import publish
one, many = [uuid.UUID(int=1)], [uuid.UUID(int=n) for n in range(1, 501)]
with app.producer_or_acquire() as producer:
    publish(app, [Handover("sms", one, 0), Handover("sms", many, 2), Handover("fan_out", one, 0)], producer)
for queue in ("sms", "fan_out"):
    for message in redis.Redis.from_url(os.environ["REDIS_URL"]).lrange(queue, 0, -1):
        headers = json.loads(message)["headers"]
        print(headers["argsrepr"], headers["kwargsrepr"])
"""
    here = {**env, "REDIS_URL": new_redis()}
    done = subprocess.run(
        [sys.executable, "-c", program], env=here, cwd=ROOT, capture_output=True, text=True, check=False
    )
    first = "00000000-0000-0000-0000-000000000001"
    assert sorted(done.stdout.splitlines()) == [
        f"(fan_out: event {first}) {{}}",
        f"(sms: 500 notifications, the first {first}) {{failures: 2}}",
        f"(sms: notification {first}) {{}}",
    ], done.stderr


def test_the_version_is_told() -> None:
    assert succeed("--version", environment=clean_environment()).strip() == f"notifier {VERSION}"


def test_the_api_says_where_it_listens_and_nothing_else(system: Running, env: dict[str, str]) -> None:
    said = system.api.log.read_text(encoding="utf-8").splitlines()
    assert said[0] == f"Listening on http://127.0.0.1:{system.port}."
    assert not [line for line in said if "blocking threads" in line]
    done = manage("api", "--port", str(system.port), environment=env)
    assert done.returncode == 1
    assert done.stderr.strip() == f"Error: cannot listen on 127.0.0.1, port {system.port}: Address already in use"


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/api/v1/events", "/api/v1/events/1", "/nothing", "/openapi.json"]
)
def test_answers_end_with_a_newline(system: Running, path: str) -> None:
    assert system.get(path).text.endswith("}\n")


def test_what_is_accepted_and_refused_ends_with_a_newline(system: Running) -> None:
    for body in ({"event_type": "newline", "payload": {}}, {}):
        assert system.post("/api/v1/events", body).text.endswith("}\n")
    assert system.post("/api/v1/events/batch", {"events": [{"event_type": "newline"}, {}]}).text.endswith("}\n")
