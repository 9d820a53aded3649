"""The audit log: a line for every act of an operator and of a key of scope admin, and nothing personal in any."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from sqlalchemy import Engine

from deploy.commands.cli import cli
from notifier import audit, keys, migrations
from tests.conftest import OWNER, QUICK, as_login, clean_environment
from tests.running import Running
from tests.test_commands import manage, succeed

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
    key = keys.create(guarded.engine, name, ["admin", "read", "send"])

    def run(method: str, path: str, **options: Any) -> tuple[int, list[tuple[Any, ...]]]:
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "r-1", **options.pop("headers", {})}
        answer = guarded.http.request(method, guarded.url + path, headers=headers, timeout=20, **options)
        found = audit.lines(guarded.engine, actor=name)
        return answer.status_code, [(line.action, line.target, line.outcome, line.request_id) for line in found]

    return run


Act = Callable[..., tuple[int, list[tuple[Any, ...]]]]


def test_an_act_leaves_a_line(guarded: Running, act: Act) -> None:
    before = datetime.now(UTC)
    status, lines = act("PUT", "/api/v1/holds/sms", headers={"X-Request-ID": "req-7.1"})
    assert (status, lines) == (201, [("PUT /api/v1/holds/{target}", "target=sms", "201", "req-7.1")])
    [line] = audit.lines(guarded.engine, since=before - timedelta(seconds=5), limit=1)
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
    user = f"user_id={audit.fingerprint('secret-user')}"
    assert [line[:3] for line in lines] == [
        ("DELETE /api/v1/users/{user_id}", user, "204"),
        ("DELETE /api/v1/suppressions", None, "204"),
        ("POST /api/v1/suppressions", None, "201"),
        ("PUT /api/v1/users/{user_id}", user, "201"),
    ]
    kept = " ".join(str(value) for row in guarded.sql("SELECT * FROM audit") for value in row)
    assert "secret" not in kept


def test_who_was_erased_or_exported_is_in_it_by_a_fingerprint(act: Act) -> None:
    person = {"address": "Secret-Ada@example.com", "channel": "email"}
    known = f"channel=email address={audit.fingerprint('secret-ada@example.com')}"
    for path, status in (("erasures", 202), ("exports", 200)):
        answered, lines = act("POST", f"/api/v1/{path}", json=person)
        assert (answered, lines[0][:3]) == (status, (f"POST /api/v1/{path}", known, str(status)))
    user = f"user_id={audit.fingerprint('secret-user')}"
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


def test_what_a_key_may_not_do_it_has_not_done(guarded: Running) -> None:
    key = keys.create(guarded.engine, "may-not", ["read", "send"])
    before = guarded.sql("SELECT count(*) FROM audit")
    for headers in ({"Authorization": f"Bearer {key}"}, {}):
        answer = guarded.http.put(f"{guarded.url}/api/v1/holds/sms", headers=headers, timeout=20)
        assert answer.status_code in {401, 403}
    assert guarded.sql("SELECT count(*) FROM audit") == before


def test_an_act_is_done_where_its_line_cannot_be_written(guarded: Running) -> None:
    key = keys.create(guarded.engine, "no-line", ["admin"])
    guarded.sql("ALTER TABLE audit RENAME TO audit_elsewhere")
    try:
        headers = {"Authorization": f"Bearer {key}"}
        answer = guarded.http.put(f"{guarded.url}/api/v1/holds/chat", headers=headers, timeout=20)
    finally:
        guarded.sql("ALTER TABLE audit_elsewhere RENAME TO audit")
    assert answer.status_code == 201
    [logged] = [line for line in guarded.api.output().splitlines() if "audit_not_written" in line]
    for part in ('"level":"error"', '"actor":"no-line"', '"target":"target=chat"', '"outcome":"201"'):
        assert part in logged


# --- from the shell


@pytest.fixture
def shell(database_url: str) -> dict[str, str]:
    """The environment of somebody's shell, with a fresh database."""
    urls = {"DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:9/0"}
    return {**clean_environment(), **QUICK, **urls, "LOGNAME": "grace"}


def _lines(engine: Engine) -> list[tuple[Any, ...]]:
    return [(line.actor, line.action, line.target, line.outcome) for line in audit.lines(engine)]


def test_commands_leave_lines(engine: Engine, shell: dict[str, str], tmp_path: Path) -> None:
    routes = tmp_path / "secret-folder" / "routes.yaml"
    routes.parent.mkdir()
    routes.write_text("routes: {}\n")
    for command in (
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
        "rekey",
        "migrate",
        "api-keys revoke billing",
    ):
        succeed(*command.split(), environment=shell)
    for command in ("api-keys revoke billing", f"replay {LETTER}"):
        assert manage(*command.split(), environment=shell).returncode == 1
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
            ("users.erase", f"about={audit.fingerprint('secret-ada@example.com')}", "done"),
            ("rekey", None, "done"),
            ("api-keys.revoke", "name=billing", "done"),
            ("api-keys.revoke", "name=billing", "failed: No key in use is named 'billing'."),
            ("replay", f"event_ids={LETTER}", f"failed: There is no event {LETTER}."),
        ]
    ]
    listed = succeed("audit", "--limit", "3", environment=shell)
    assert "failed: " in listed
    assert "api-keys.create" not in listed
    assert "There are more: --limit shows more than 3." in listed
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
    "users.export",
    "why",
    "bounces",  # as vendors' callbacks
    *("alive", "api", "audit", "beat", "doctor", "flower", "listen", "outbox", "status", "up", "worker"),
    *("api-keys.list", "dlq.list", "dlq.show", "providers.list", "providers.status", "providers.test", "routes.export"),
}
ACTS = {
    *("api-keys.create", "api-keys.revoke", "api-keys.rotate", "dlq.purge", "dlq.requeue", "hold", "migrate"),
    "users.erase",
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
