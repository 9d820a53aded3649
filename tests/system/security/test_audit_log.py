"""The audit log: a line for every act of an operator and of a key of scope admin, and nothing personal in any."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
import requests
from sqlalchemy import Engine, text

from api.refusal_log import Refusal, RefusalLog
from deploy.commands.cli import cli
from notifier import migrations
from notifier.security import api_keys
from notifier.security.audit_log import AuditLog, Verdict
from notifier.security.secret_box import Vault, new_key
from notifier.security.signing_keys import is_sealed
from notifier.vocabulary.errors import NotifierError
from tests.conftest import OWNER, QUICK, as_login, clean_environment
from tests.support.commands import in_turn, manage, succeed
from tests.support.running import Running, wait_for


def log_of(engine: Engine, *secret_keys: str) -> AuditLog:
    """The audit log in a database."""
    return AuditLog(engine, Vault(secret_keys))


def log_in(system: Running) -> AuditLog:
    """The audit log of a system, read with its key."""
    return AuditLog(system.engine, system.vault)


LETTER = "01a1fc47-52fc-7015-a681-4dd01035c71e"


@pytest.fixture(scope="module")
def guarded(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API that asks for keys; nothing else runs."""
    system = new_system(NOTIFIER_AUTH="required", NOTIFIER_LOG_FORMAT="json")
    system.start(only=[system.api])
    yield system
    system.stop()


@pytest.fixture
def act(guarded: Running, request: pytest.FixtureRequest) -> Callable[..., tuple[int, list[tuple[Any, ...]]]]:
    """Does something with a key of a name of its own; gives the status, and what the log has of that key."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")
    key = api_keys.create(guarded.engine, name, ["admin", "read", "send"])

    def run(method: str, path: str, **options: Any) -> tuple[int, list[tuple[Any, ...]]]:
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "r-1", **options.pop("headers", {})}
        answer = guarded.http.request(method, guarded.url + path, headers=headers, timeout=20, **options)
        found = log_in(guarded).lines(actor=name)
        return answer.status_code, [(line.action, line.target, line.outcome, line.request_id) for line in found]

    return run


Act = Callable[..., tuple[int, list[tuple[Any, ...]]]]


def test_an_act_leaves_a_line(guarded: Running, act: Act) -> None:
    before = datetime.now(UTC)
    status, lines = act("PUT", "/api/v1/holds/sms", headers={"X-Request-ID": "req-7.1"})
    assert (status, lines) == (201, [("PUT /api/v1/holds/{target}", "target=sms", "201", "req-7.1")])
    [line] = log_in(guarded).lines(since=before - timedelta(seconds=5), limit=1)
    assert abs(line.at - before) < timedelta(minutes=1)
    status, lines = act("DELETE", "/api/v1/holds/sms", headers={"X-Request-ID": "ada@example.com"})
    assert lines[0][:3] == ("DELETE /api/v1/holds/{target}", "target=sms", "204")
    assert UUID(lines[0][3]).version == 7, "one that could be an address is not taken over"


def test_nothing_personal_is_in_it(guarded: Running, act: Act) -> None:
    body = {"email": "secret-ada@example.com", "attributes": {"note": "secret-note"}}
    act("PUT", "/api/v1/users/secret-user", json=body)
    act("POST", "/api/v1/suppressions", json={"address": "secret@example.com", "channel": "email", "reason": "x"})
    act("DELETE", "/api/v1/suppressions?address=secret@example.com&channel=email")
    _, lines = act("DELETE", "/api/v1/users/secret-user")
    user = f"user_id={log_in(guarded).fingerprint('secret-user')}"
    assert [line[:3] for line in lines] == [
        ("DELETE /api/v1/users/{user_id}", user, "204"),
        ("DELETE /api/v1/suppressions", None, "204"),
        ("POST /api/v1/suppressions", None, "201"),
        ("PUT /api/v1/users/{user_id}", user, "201"),
    ]
    kept = " ".join(str(value) for row in guarded.sql("SELECT * FROM audit") for value in row)
    assert "secret" not in kept


def test_who_was_erased_or_exported_is_in_it_by_a_fingerprint(guarded: Running, act: Act) -> None:
    person = {"address": "Secret-Ada@example.com", "channel": "email"}
    known = f"channel=email address={log_in(guarded).fingerprint('secret-ada@example.com')}"
    for path, status in (("erasures", 202), ("exports", 200)):
        answered, lines = act("POST", f"/api/v1/{path}", json=person)
        assert (answered, lines[0][:3]) == (status, (f"POST /api/v1/{path}", known, str(status)))
    user = f"user_id={log_in(guarded).fingerprint('secret-user')}"
    assert act("POST", "/api/v1/erasures", json={"user_id": "secret-user"})[1][0][1] == user


def test_what_comes_of_it_is_in_it(act: Act) -> None:
    assert act("DELETE", f"/api/v1/dead-letters/{LETTER}") == (
        404,
        [("DELETE /api/v1/dead-letters/{letter_id}", f"letter_id={LETTER}", "404", "r-1")],
    )
    _, lines = act("PUT", "/api/v1/routes/wrong", json={"nothing": "valid"})
    assert lines[0] == ("PUT /api/v1/routes/{route_name}", "route_name=wrong", "422", "r-1")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/holds", None),
        ("POST", "/api/v1/events", {"event_type": "x"}),
        ("POST", "/api/v1/preferences/check", {"user_id": "x", "category": "x", "channel": "sms"}),
        ("POST", "/api/v1/templates/x/preview", {}),
        ("OPTIONS", "/api/v1/holds/sms", None),
        ("PUT", "/api/v1/no-such-thing", {}),
    ],
)
def test_what_changes_nothing_of_ours_is_not_in_it(act: Act, method: str, path: str, body: dict[str, Any]) -> None:
    assert act(method, path, json=body)[1] == []


def test_what_is_refused_is_on_record_with_its_key_and_address(guarded: Running) -> None:
    key = api_keys.create(guarded.engine, "may-not", ["read", "send"])
    for _ in range(3):
        answer = _with(guarded, key).put(f"{guarded.url}/api/v1/holds/sms", timeout=20)
        assert answer.status_code == 403
    [line] = wait_for(lambda: log_in(guarded).lines(actor="may-not"))
    assert (line.action, line.outcome, line.target) == ("PUT /api/v1/holds/{target}", "403", None)
    assert line.peer == "127.0.0.1"
    [logged, *_] = [line for line in guarded.api.output().splitlines() if '"status":403' in line]
    assert '"source":"may-not"' in logged
    assert '"lacks":"admin"' in logged


def _with(system: Running, key: str) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {key}"
    return session


def test_a_key_that_is_none_any_more_is_named_and_one_that_never_was_is_not(guarded: Running) -> None:
    revoked = api_keys.create(guarded.engine, "was-one", ["read"])
    api_keys.revoke(guarded.engine, "was-one")
    for key in (revoked, "ntf_" + "x" * 43, "wrong"):
        answer = _with(guarded, key).get(f"{guarded.url}/api/v1/holds", timeout=20)
        assert answer.status_code == 401
    before = guarded.sql("SELECT count(*) FROM audit")
    assert guarded.get("/api/v1/holds").status_code == 401, "without any key nobody has tried to sign in"
    assert guarded.sql("SELECT count(*) FROM audit") == before
    [line] = wait_for(lambda: log_in(guarded).lines(actor="was-one"))
    assert (line.action, line.outcome) == ("sign-in", "401 revoked")
    [unknown] = wait_for(lambda: log_in(guarded).lines(actor="(unknown)"))
    assert (unknown.action, unknown.outcome, unknown.peer) == ("sign-in", "401", "127.0.0.1")
    assert revoked not in str(guarded.sql("SELECT array_agg(a::text) FROM audit a"))


def test_a_flood_of_wrong_keys_is_counted_and_fills_nothing(engine: Engine) -> None:
    log = log_of(engine)
    refusals = RefusalLog(lambda: log, soon=0.1, window=0.2)
    for number in range(2000):
        refusals.note(Refusal("sign-in", "401", peer=f"192.0.2.{number % 250}"), None)
    wait_for(lambda: sum(line.times for line in log.lines(limit=1000)) == 2000)
    lines = log.lines(limit=1000)
    assert len({line.peer for line in lines}) == 101, "a hundred addresses, and the others together"
    assert len(lines) <= 202
    late = Refusal("sign-in", "401", peer="192.0.2.249")

    def has_its_line() -> bool:
        refusals.note(late, None)
        return any(line.peer == late.peer for line in log.lines(limit=1000))

    wait_for(has_its_line, what="a new window")


def test_reading_somebodys_data_and_cancelling_are_on_record(guarded: Running, act: Act) -> None:
    act("PUT", "/api/v1/users/read-me", json={})
    user = f"user_id={log_in(guarded).fingerprint('read-me')}"
    _, lines = act("GET", "/api/v1/users/read-me/export")
    assert lines[0][:3] == ("GET /api/v1/users/{user_id}/export", user, "200")
    _, lines = act("POST", f"/api/v1/notifications/{LETTER}/cancel")
    path = "POST /api/v1/notifications/{notification_id}/cancel"
    assert lines[0][:3] == (path, f"notification_id={LETTER}", "404")
    _, lines = act("POST", "/api/v1/notifications/cancel", json={"cancellation_key": "secret-key-of-ada"})
    key = f"cancellation_key={log_in(guarded).fingerprint('secret-key-of-ada')}"
    assert lines[0][:3] == ("POST /api/v1/notifications/cancel", key, "200")


def test_the_log_is_listed_over_http_and_that_is_on_record(guarded: Running, act: Act) -> None:
    act("PUT", "/api/v1/holds/push")
    status, lines = act("GET", "/api/v1/audit?action=PUT%20/api/v1/holds/%7Btarget%7D&target=target=push&limit=1")
    assert (status, lines[0][0]) == (200, "GET /api/v1/audit")
    key = api_keys.create(guarded.engine, "lists", ["admin"])
    found = _with(guarded, key).get(f"{guarded.url}/api/v1/audit", params={"target": "target=push"}, timeout=20).json()
    [line] = found["items"]
    assert line["peer"] == "127.0.0.1"
    assert line["number"] > 0
    assert "hash" not in line
    read = api_keys.create(guarded.engine, "may-read", ["read"])
    assert _with(guarded, read).get(f"{guarded.url}/api/v1/audit", timeout=20).status_code == 403


# --- the chain


def verdict_of(log: AuditLog, expected: str | None = None) -> Verdict:
    """Return the verdict of a walk along the chain."""
    *_, verdict = log.verify(expected)
    assert isinstance(verdict, Verdict)
    return verdict


@pytest.fixture
def chained(engine: Engine) -> AuditLog:
    """A log of five lines whose key is encrypted."""
    log = log_of(engine, new_key())
    for number in range(5):
        log.record("grace", f"act-{number}", None, "done", at=datetime.now(UTC), peer="192.0.2.1")
    return log


def test_a_log_that_nobody_touched_is_as_it_was_written(engine: Engine, chained: AuditLog) -> None:
    verdict = verdict_of(chained)
    assert (verdict.chained, verdict.unchained, verdict.fault) == (5, 0, None)
    assert verdict_of(chained, verdict.newest).fault is None
    assert "expected" in str(verdict_of(chained, "00" * 32).fault)
    with engine.connect() as connection:
        [kept] = connection.scalars(text("SELECT secret FROM signing_keys WHERE purpose = 'audit'"))
    assert is_sealed(bytes(kept)), "who has the database has not the key"


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET outcome = 'failed' WHERE number = 3", "line 3"),
        ("UPDATE audit SET at = at + interval '1 second' WHERE number = 3", "line 3"),
        ("UPDATE audit SET times = 7 WHERE number = 5", "line 5"),
        ("DELETE FROM audit WHERE number = 2", "line 2 is missing"),
        ("DELETE FROM audit WHERE number = 5", "the newest lines are missing"),
        ("DELETE FROM audit WHERE number = 1", "line 1 is missing"),
        ("UPDATE audit SET number = 9 WHERE number = 4", "line 4 is missing"),
        ("INSERT INTO audit (id, at, actor, action, outcome, number, hash)"
         " SELECT gen_random_uuid(), at, 'eve', action, outcome, 6, hash FROM audit WHERE number = 5", "line 6"),
        ("INSERT INTO audit (id, at, actor, action, outcome, number, hash)"
         " SELECT gen_random_uuid(), at, 'eve', action, outcome, number, hash FROM audit WHERE number = 5", ""),
        ("WITH gone AS (DELETE FROM audit WHERE number <= 2)"
         " UPDATE audit_chain SET deleted_number = 2, deleted_hash = (SELECT hash FROM audit WHERE number = 2)",
         "beginning was moved"),
    ],
)  # fmt: skip
def test_what_is_changed_added_or_taken_out_is_named(
    engine: Engine, chained: AuditLog, statement: str, fault: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))
    found = verdict_of(chained).fault
    assert found is not None
    assert fault in found


def test_the_newest_lines_cut_off_with_the_end_are_missed_by_who_knows_a_later_hash(
    engine: Engine, chained: AuditLog
) -> None:
    newest = verdict_of(chained).newest
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE number > 3"))
        connection.execute(text("UPDATE audit_chain SET number = 3, hash = (SELECT hash FROM audit WHERE number = 3)"))
    assert "expected" in str(verdict_of(chained, newest).fault)


def test_processes_that_write_at_once_make_one_chain(engine: Engine, chained: AuditLog) -> None:
    def write(name: int) -> None:
        for _ in range(10):
            chained.record(f"w{name}", "act", None, "done", at=datetime.now(UTC))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert verdict_of(chained) == Verdict(45, 0, verdict_of(chained).newest)


def test_old_lines_go_and_the_rest_can_still_be_verified(engine: Engine, chained: AuditLog) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO audit (id, at, actor, action, outcome) VALUES (:id, now(), 'old', 'x', 'done')"),
            {"id": LETTER},
        )
    assert verdict_of(chained).unchained == 1, "one that the release before wrote"
    newest, third = verdict_of(chained).newest, chained.lines(limit=5)[::-1][2]
    assert chained.count_expired(third.at) == 2
    assert chained.expire(third.at) == 2
    assert chained.expire(third.at) == 0
    assert verdict_of(chained) == Verdict(3, 1, newest)
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert chained.expire(later) == 4
    assert verdict_of(chained, newest) == Verdict(0, 0, newest)
    chained.record("grace", "again", None, "done", at=datetime.now(UTC))
    assert verdict_of(chained, newest).chained == 1


def test_without_the_secret_key_a_line_is_written_outside_of_the_chain(engine: Engine, chained: AuditLog) -> None:
    without = log_of(engine)
    without.record("shell:grace", "migrate", None, "done", at=datetime.now(UTC))
    assert (verdict_of(chained).chained, verdict_of(chained).unchained) == (5, 1)
    assert without.fingerprint("ada") == "hmac:unreadable-key"
    with pytest.raises(NotifierError):
        verdict_of(without)


def test_an_act_is_done_where_its_line_cannot_be_written(guarded: Running) -> None:
    key = api_keys.create(guarded.engine, "no-line", ["admin"])
    guarded.sql("ALTER TABLE audit RENAME TO audit_elsewhere")
    try:
        headers = {"Authorization": f"Bearer {key}"}
        answer = guarded.http.put(f"{guarded.url}/api/v1/holds/chat", headers=headers, timeout=20)
    finally:
        guarded.sql("ALTER TABLE audit_elsewhere RENAME TO audit")
    assert answer.status_code == 201
    # The line of an act before this one may come as late.
    lines = [line for line in guarded.api.output().splitlines() if "audit_not_written" in line]
    [logged] = [line for line in lines if '"actor":"no-line"' in line]
    for part in ('"level":"error"', '"target":"target=chat"', '"outcome":"201"'):
        assert part in logged


# --- from the shell


@pytest.fixture
def shell(database_url: str) -> dict[str, str]:
    """The environment of somebody's shell, with a fresh database."""
    urls = {"DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:9/0"}
    return {**clean_environment(), **QUICK, **urls, "LOGNAME": "grace"}


def _lines(engine: Engine) -> list[tuple[Any, ...]]:
    return [(line.actor, line.action, line.target, line.outcome) for line in log_of(engine).lines()]


def test_commands_leave_lines(engine: Engine, shell: dict[str, str], tmp_path: Path) -> None:
    routes = tmp_path / "secret-folder" / "routes.yaml"
    routes.parent.mkdir()
    routes.write_text("routes: {}\n")
    commands = (
        "api-keys create --name billing --scope send --rate 5",
        "api-keys rotate billing --overlap PT1H",
        "hold email",
        "hold --list",
        "hold",
        "release email",
        "dlq requeue --all --dry-run",
        "dlq requeue --channel sms --created-after 2026-11-21T09:00:00Z",
        f"dlq purge {LETTER} --yes",
        f"routes load {routes} --prune",
        f"routes load {routes} --dry-run",
        "users erase --address Secret-Ada@example.com --yes",
        "webhook-secret https://ada:hunter2@Shop.example/hook",
        "rekey",
        "migrate",
        "api-keys revoke billing",
        # These fail.
        "api-keys revoke billing",
        f"replay {LETTER}",
    )
    ended = in_turn([command.split() for command in commands], shell)
    assert [each.code for each in ended] == [0] * (len(commands) - 2) + [1, 1], ended
    assert _lines(engine)[::-1] == [
        ("shell:grace", action, target, outcome)
        for action, target, outcome in [
            ("api-keys.create", "name=billing scope=send rate=5", "done"),
            ("api-keys.rotate", "name=billing overlap=3600s", "done"),
            ("hold", "target=email", "done"),
            ("release", "target=email", "done"),
            ("dlq.requeue", "channel=sms created_after=2026-11-21T09:00:00Z", "done"),
            ("dlq.purge", f"letter_ids={LETTER}", "done"),
            ("routes.load", "file=routes.yaml prune=yes", "done"),
            (
                "users.erase",
                f"about={log_of(engine, shell['NOTIFIER_SECRET_KEY']).fingerprint('secret-ada@example.com')}",
                "done",
            ),
            ("webhook-secret", "host=shop.example", "done"),
            ("rekey", None, "done"),
            ("api-keys.revoke", "name=billing", "done"),
            ("api-keys.revoke", "name=billing", "failed: No key in use is named 'billing'."),
            ("replay", f"event_ids={LETTER}", f"failed: There is no event {LETTER}."),
        ]
    ]
    assert "All 13 lines are as they were written." in succeed("audit", "verify", environment=shell)
    exported = [json.loads(line) for line in succeed("audit", "export", environment=shell).splitlines()]
    assert [line["number"] for line in exported] == list(range(1, 14))
    assert succeed("audit", "export", "--format", "csv", environment=shell).count("shell:grace") == 14
    listed = succeed("audit", "--limit", "5", environment=shell)
    assert listed.count("audit.export") == 2
    assert "failed: " in listed
    assert "api-keys.create" not in listed
    assert "There are more: --limit shows more than 5." in listed
    assert "api-keys.create" in succeed("audit", "--actor", "shell:grace", "--since", "PT1H", environment=shell)
    assert "no such line" in succeed("audit", "--actor", "nobody", environment=shell)


@pytest.mark.parametrize("address", ["ada@example.org", "+491512345678", "0151 234 56789"])
def test_no_address_comes_into_it_with_an_errors_words(engine: Engine, shell: dict[str, str], address: str) -> None:
    assert manage("api-keys", "revoke", address, environment=shell).returncode == 1
    assert manage("replay", LETTER, environment=shell).returncode == 1
    replayed, revoked = (outcome for *_, outcome in _lines(engine))
    assert address not in revoked
    assert "[address]" in revoked
    assert LETTER in replayed


def test_a_line_that_cannot_be_written_is_said(
    engine: Engine, owner_engine: Engine, database_url: str, shell: dict[str, str]
) -> None:
    migrations.downgrade(owner_engine, "0004")
    done = manage("hold", "email", environment=shell)
    assert done.returncode == 0
    assert "Held: email." in done.stdout
    assert "the audit log could not be written (ProgrammingError)" in done.stderr
    # The migration that makes the log is its first line.
    succeed("migrate", environment={**shell, "NOTIFIER_MIGRATION_DATABASE_URL": as_login(database_url, OWNER)})
    assert _lines(engine) == [("shell:grace", "migrate", None, "done")]


#: Commands that change nothing of ours, or start a process that goes on.
HARMLESS = {
    "exporter",
    "why",
    "bounces",  # as vendors' callbacks
    *("alive", "api", "audit.verify", "beat", "doctor", "flower", "listen", "outbox", "status", "up", "worker"),
    "relay",  # it posts as a service does, with that one's key
    *(
        "api-keys.list",
        "dlq.acts",
        "dlq.groups",
        "dlq.list",
        "dlq.show",
        "providers.list",
        "providers.status",
        "providers.test",
        "routes.export",
    ),
}
ACTS = {
    *("api-keys.create", "api-keys.revoke", "api-keys.rotate", "dlq.purge", "dlq.requeue", "hold", "migrate"),
    *("dlq.stop", "dlq.resume"),
    "users.erase",
    *("audit.export", "users.export"),  # they hand out data
    "webhook-secret",  # it hands out a secret
    *("purge", "reader", "recover", "rekey", "roles", "release", "replay", "routes.load"),
}


def test_every_command_is_known_to_change_something_or_not() -> None:
    def commands(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command
            if isinstance(command, click.Group):
                yield from commands(command, (*names, name))
            else:
                yield ".".join((*names, name)), command

    found = {name: hasattr(command.callback, "is_audited") for name, command in commands(cli)}
    assert {name for name, is_audited in found.items() if is_audited} == ACTS
    assert {name for name, is_audited in found.items() if not is_audited} == HARMLESS
