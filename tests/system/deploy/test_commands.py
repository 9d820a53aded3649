"""manage.py, as a person uses it."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

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
from tests.providers import receivers
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, made, wait_for


def manage(*arguments: str, environment: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run manage.py to its end."""
    return subprocess.run(
        [sys.executable, ROOT / "manage.py", *arguments],
        env={**environment, "COLUMNS": "200"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def env(system: Running) -> dict[str, str]:
    """The shared system's environment."""
    return system.environment


def succeed(*arguments: str, environment: dict[str, str]) -> str:
    done = manage(*arguments, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
    publish(app, [Handover("sms", one, 0), Handover("sms", many, 2)], producer)
for message in redis.Redis.from_url(os.environ["REDIS_URL"]).lrange("sms", 0, -1):
    print(json.loads(message)["headers"]["argsrepr"])
"""
    here = {**env, "REDIS_URL": new_redis()}
    done = subprocess.run(
        [sys.executable, "-c", program], env=here, cwd=ROOT, capture_output=True, text=True, check=False
    )
    first = "00000000-0000-0000-0000-000000000001"
    assert sorted(done.stdout.splitlines()) == [f"({first},)", f"(500 rows, the first {first},)"], done.stderr


# --- providers


def test_providers_are_listed_without_their_secrets(env: dict[str, str], smtp: SmtpReceiver) -> None:
    sms = "twilio://AC1:s3cret@default?from=%2B15550100&weight=80, outbox:?name=spare&rate=14"
    dsns = {"NOTIFIER_SMS": sms, "NOTIFIER_PUSH": ""}
    listed = succeed("providers", "list", environment={**env, **dsns})
    rows = [line.strip("│┃ ").split("│") for line in listed.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["email", "smtp", smtp.dsn.removeprefix("smtp://"), "", "", "30 s"],
        ["sms", "twilio", "its own", "80", "", "15 s"],
        ["spare", "its own", "", "14/s", "10 s"],
        ["push", "none", "refused at intake: NOTIFIER_PUSH is not set"],
        ["chat", "outbox", "its own", "", "", "10 s"],
    ]
    assert "s3cret" not in listed


def test_a_worker_does_not_start_with_a_malformed_provider(env: dict[str, str]) -> None:
    done = manage("worker", "fresh", environment={**env, "NOTIFIER_SMS": "twilio://"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: NOTIFIER_SMS has no account: twilio://SID:TOKEN@default?from=+15550100\n"


def test_providers_that_cannot_be_made_are_one_line(env: dict[str, str]) -> None:
    done = manage("providers", "list", environment={**env, "NOTIFIER_SMS": "outbox:, outbox:?rate=often"})
    assert (done.returncode, done.stdout) == (1, "")
    said = "NOTIFIER_SMS, provider 2 of 2, has a rate that is not a number of messages a second, such as 14 or 0.5"
    assert done.stderr == f"Error: {said}\n"


@pytest.mark.parametrize("command", [["outbox"], ["dlq", "list"]])
def test_channels_are_named_as_everywhere(env: dict[str, str], command: list[str]) -> None:
    succeed(*command, "--channel", "sms", environment=env)


def test_a_provider_is_tried_out(env: dict[str, str], system: Running, smtp: SmtpReceiver) -> None:
    told = succeed("providers", "test", "email", "tried-out@example.com", "--text", "Does it work?", environment=env)
    assert "accepted" in told
    assert "took it over" in told
    [mail] = smtp.mails_to("tried-out@example.com")
    assert mail.get_content().strip() == "Does it work?"
    assert not system.sql("SELECT FROM notifications WHERE recipient = 'tried-out@example.com'")


def test_what_a_provider_says_is_told(env: dict[str, str]) -> None:
    with receivers.http(receivers.response(401, b'{"code": 20003, "status": 401}')) as (server, _):
        dsn = f"twilio://AC1:s3cret@127.0.0.1:{server.port}?from=%2B15550100&tls=none"
        done = manage("providers", "test", "sms", "+4915112345678", environment={**env, "NOTIFIER_SMS": dsn})
    assert done.returncode == 1
    for words in ("unsent", "http 401", "certainly not sent", "its credentials"):
        assert words in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("email", "nobody"), "Not an email address"),
        (("webhook", "https://example.com"), "'webhook' is not one of"),
        (("sms",), "Missing argument 'RECIPIENT'"),
    ],
)
def test_what_cannot_be_tried_out(env: dict[str, str], arguments: tuple[str, ...], words: str) -> None:
    done = manage("providers", "test", *arguments, environment=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_one_of_several_providers_is_tried_out(env: dict[str, str], smtp: SmtpReceiver) -> None:
    several = {**env, "NOTIFIER_EMAIL": f"smtp://127.0.0.1:9?tls=none, {smtp.dsn}?tls=none&name=spare"}
    told = succeed("providers", "test", "email", "spare@example.com", "--provider", "spare", environment=several)
    assert "accepted" in told
    assert len(smtp.mails_to("spare@example.com")) == 1
    done = manage("providers", "test", "email", "spare@example.com", environment=several)
    assert (done.returncode, "refused: connection refused" in done.stdout) == (1, True)
    done = manage("providers", "test", "email", "spare@example.com", "--provider", "other", environment=several)
    assert done.stderr == "Error: There is no provider 'other'; there are: smtp, spare.\n"


def test_why_an_sms_did_not_go_out(start_system: Callable[..., Running], env: dict[str, str]) -> None:
    """What an operator sees, step by step, of a system whose provider is down."""
    port = free_port()
    sms = f"twilio://AC1:s3cret@127.0.0.1:{port}?from=%2B15550100&tls=none"
    system = start_system(NOTIFIER_SMS=sms, NOTIFIER_SMS_RETRY_BACKOFF="1")
    here = {**env, **system.environment}
    first = succeed("providers", "status", environment={**here, "NOTIFIER_PUSH": ""})
    assert "twilio is well: no failure of its own is known." in first
    assert "No provider: NOTIFIER_PUSH is not set, and the API answers 422." in first
    assert "Nothing was tried within the last hour." in first

    stuck = made(system, channel="sms", recipient="+4915112345678")
    for number in range(6):
        made(system, channel="sms", recipient=f"+491511234567{number}")
    wait_for(lambda: system.notification(stuck)["reason"] == "breaker_open", 30)
    told = succeed("providers", "status", "sms", environment=here)
    assert "twilio is left alone since " in told
    assert "refused: connection refused" in told
    assert "wait: breaker_open; the first is due at " in told

    system.post("/api/v1/suppressions", {"address": "+4915112345678", "channel": "sms", "reason": "asked us to"})
    system.http.put(f"{system.url}/api/v1/holds/sms", timeout=20).raise_for_status()
    told = succeed("providers", "status", "sms", "+4915112345678", environment=here)
    assert "An operator holds sms: nothing of it goes out before manage.py release sms." in told
    assert "The address is on the suppression list, and gets nothing: asked us to." in told
    assert f"{stuck}, made at " in told
    assert "attempt 1 by twilio: unsent (refused: connection refused)" in told
    assert "s3cret" not in told
    told = succeed("why", stuck, environment=here)
    assert "The provider twilio fails since " in told
    assert "left alone (refused: connection refused); one message tries it from " in told
    assert " holds sms since " in told
    assert "Its address is on the suppression list by now: asked us to." in told
    assert "It names no user, so nobody's quiet hours hold it up." in told
    assert "s3cret" not in told
    done = manage("providers", "status", "sms", "Ada", environment=here)
    assert done.returncode == 2
    assert "Not a phone number" in done.stderr


def test_why_tells_what_happened_in_local_time(system: Running, env: dict[str, str]) -> None:
    person = {"push_tokens": ["why-token"], "timezone": "Asia/Tokyo"}
    system.http.put(f"{system.url}/api/v1/users/u-why", json=person, timeout=20).raise_for_status()
    posted = {"event_type": "why.event", "user_id": "u-why", "channel": "push", "critical": True}
    event = system.post("/api/v1/events", posted, headers={"X-Request-Id": "why-request"}).json()["id"]
    wait_for(lambda: system.notifications(event))
    notification = system.finished(event)["id"]
    # As where a worker was lost, and another one sent it again.
    system.sql(
        "INSERT INTO attempts (id, notification_id, number, outcome, error)"
        " VALUES (:id, :id, 2, 'ambiguous', E'worker lost: \\x1b[31m it may have been sent')",
        id=notification,
    )
    system.sql(
        "INSERT INTO taken_receipts (id, notification_id, provider, kind, error, happened_at, taken_at, applied)"
        " VALUES (:id, :id, 'acme', 'bounced', 'nobody there', '2026-11-01T16:30:00Z', '2026-11-01T16:30:05Z', false)",
        id=notification,
    )
    for asked in (notification, event, "u-why", "why-request", "why-token"):
        said = succeed("why", asked, environment=env)
        assert notification in said, asked
    assert "Asia/Tokyo: Attempt 1 by" in said
    assert "It may have arrived 2 times: by attempts 1, 2." in said
    assert "It is critical" in said
    assert "\x1b" not in said
    assert "2026-11-02 01:30:00 Asia/Tokyo: Its provider acme says: bounced (nobody there)." in said
    assert "We heard of it at 2026-11-01T16:30:05Z; it came late or twice, and changed nothing." in said
    assert "Its user has set no quiet hours." not in said


@pytest.mark.parametrize(
    "asked",
    [
        "nobody-known",
        "nobody/known",
        "",
        "\x1b[31m\u202e",
        "\udcff",
        "%",
        "[red]",
        "01a22194-6b9e-7199-8934-ad1d48133d9e",
    ],
)
def test_why_of_what_nobody_knows_is_an_error_of_one_line(env: dict[str, str], asked: str) -> None:
    done = manage("why", asked, environment=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: No notification or event of that id, address, user or request is known.\n"


def made_nothing(system: Running, event_type: str, payload: dict[str, Any], request: str) -> str:
    """An event that was fanned out and made no notification."""
    body = {"event_type": event_type, "payload": payload}
    event: str = system.post("/api/v1/events", body, headers={"X-Request-Id": request}).json()["id"]
    wait_for(lambda: system.get(f"/api/v1/events/{event}").json()["status"] == "processed")
    assert system.notifications(event) == []
    return event


def test_why_tells_why_an_event_made_nothing(system: Running, env: dict[str, str]) -> None:
    nobody = made_nothing(system, "why.nobody", {}, "why-request-nobody")
    for asked in (nobody, "why-request-nobody"):
        said = succeed("why", asked, environment=env)
        assert f"event {nobody}\n" in said
        assert "Accepted: why.nobody by anonymous, by request why-request-nobody." in said
        assert "No route is for why.nobody." in said
        assert "No subscription is for why.nobody." in said
    definitions: dict[str, dict[str, Any]] = {
        "why-filter": {"filter": "payload.total > `100`"},
        "why-off": {"enabled": False},
    }
    for name, fields in definitions.items():
        route = {"event_type": "why.route", "to": {"user_id": "payload.user_id"}, **fields}
        system.http.put(f"{system.url}/api/v1/routes/{name}", json=route, timeout=20).raise_for_status()
    subscription = {"url": "https://why.example/", "event_types": ["why.route"], "filter": "payload.total > `200`"}
    heard = system.post("/api/v1/subscriptions", subscription).json()["id"]
    event = made_nothing(system, "why.route", {"total": 5}, "why-request-route")
    said = succeed("why", event, environment=env)
    assert "The route why-filter is for its type, and its filter does not want it: payload.total > `100`." in said
    assert "The route why-off is disabled." in said
    assert f"The subscription {heard} is for its type, and its filter does not want it: payload.total > `200`." in said
    route = {"event_type": "why.nobody", "to": {"user_id": "payload.user_id"}}
    system.http.put(f"{system.url}/api/v1/routes/why-later", json=route, timeout=20).raise_for_status()
    assert "The route why-later is for it by now" in succeed("why", nobody, environment=env)
    system.sql("UPDATE routes SET definition = '[]' WHERE name = 'why-later'")
    assert "The route why-later is for it, and cannot be used: " in succeed("why", nobody, environment=env)
    for name in (*definitions, "why-later"):
        system.http.delete(f"{system.url}/api/v1/routes/{name}", timeout=20).raise_for_status()
    system.http.delete(f"{system.url}/api/v1/subscriptions/{heard}", timeout=20).raise_for_status()


def test_why_tells_of_an_event_that_broke_fan_out(system: Running, env: dict[str, str]) -> None:
    event, letter = str(uuid4()), str(uuid4())
    system.sql(
        "INSERT INTO events (id, event_type, source, status, payload, recipient, channel, critical, priority,"
        " created_at, error)"
        " VALUES (:id, 'why.broken', 'test', 'failed', '{}', '+4915112340055', 'sms', false, 'normal', now(),"
        " E'broke \\x1b[31m')",
        id=event,
    )
    system.sql(
        "INSERT INTO dead_letters (id, event_id, claims, event_type, reason, error, attempts, created_at)"
        " VALUES (:id, :event, 0, 'why.broken', 'fan_out_failed', 'too bad', 0, now())",
        id=letter,
        event=event,
    )
    for asked in (event, letter, "+4915112340055", " 4915112340055", "+49 1511 2340055"):
        said = succeed("why", asked, environment=env)
        assert "It was given up: fan_out_failed (too bad)." in said, asked
        assert r"stands in the dead letters: broke \u001b[31m." in said, asked
    system.sql("DELETE FROM dead_letters WHERE id = :id", id=letter)
    system.sql("DELETE FROM events WHERE id = :id", id=event)


def test_why_knows_addresses_with_a_plus_and_ids_with_a_slash(system: Running, env: dict[str, str]) -> None:
    posted = {"recipient": "why+tag@example.com", "channel": "email", "send_at": "2040-01-01T00:00:00Z"}
    event = system.event(event_type="why.plus", **posted)
    [notification] = wait_for(lambda: system.notifications(event))
    # As they were accepted once.
    system.sql("UPDATE notifications SET user_id = 'team/why' WHERE id = :id", id=notification["id"])
    for asked in ("why+tag@example.com", "why tag@EXAMPLE.com", "team/why"):
        assert f"{notification['id']}\n" in succeed("why", asked, environment=env), asked
    system.http.put(f"{system.url}/api/v1/users/why-quiet", json={"email": "q+w@example.com"}, timeout=20)
    for asked in ("why-quiet", "q+w@example.com"):
        said = succeed("why", asked, environment=env)
        assert said == "user why-quiet\n  Nothing was made for it that is still kept.\n"
    system.post("/api/v1/suppressions", {"address": "gone+w@example.com", "channel": "email", "reason": "asked us to"})
    said = succeed("why", "Gone+W@example.com", environment=env)
    assert "It was put on the suppression list: asked us to." in said


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
