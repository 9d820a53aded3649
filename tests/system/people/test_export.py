"""Export of a person: handed out whole, and erased whole."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from notifier.people import export, suppressions, users
from notifier.people.erasure import erase_user
from notifier.security.secret_box import Vault
from notifier.vocabulary.addresses import hash_of
from notifier.vocabulary.ids import derived_id, new_id
from notifier.vocabulary.states import Channel
from tests.conftest import clean_environment
from tests.support.commands import manage
from tests.support.people import ADA, event, insert, notification
from tests.support.running import Running


@pytest.fixture
def ada(engine: Engine) -> dict[str, Any]:
    """Ada, with something of everything; and somebody else. Gives the ids of what is Ada's."""
    users.put(engine, "ada", ADA, b'{"amount": 1.10}')
    users.put(engine, "bob", {**ADA, "email": "bob@example.com", "phone": None, "push_tokens": []}, b"{}")
    users.set_preferences(engine, "ada", {"channels": {"sms": False}, "categories": {}, "quiet_hours": []})
    suppressions.add(engine, {"channel": "email", "address": "ADA@example.com", "reason": "stop", "until": None})
    suppressions.add(engine, {"channel": "push", "address": "two", "reason": "manual", "until": None})
    suppressions.add(engine, {"channel": "email", "address": "bob@example.com", "reason": "stop", "until": None})
    opt_out = {"address_hash": hash_of(Channel.SMS, "+4915112345678"), "category": "news"}
    insert(engine, "opt_outs", channel="sms", created_at=datetime.now(UTC), **opt_out)
    own, both = event(engine, "ada", '{"b": 1.10, "a": "ä"}'), event(engine, None)
    shared, private = new_id(), new_id()
    for each in (shared, private):
        insert(engine, "attachments", id=each, name="bill.pdf", content_type="application/pdf", content=b"12345")
    row = notification(engine, "ada", event_id=own, content=json.dumps({"body": "x", "attachments": [str(private)]}))
    second = notification(engine, "ada", event_id=both, content=json.dumps({"attachments": [str(shared)]}))
    content = json.dumps({"attachments": [str(shared)]})
    theirs = notification(engine, "bob", event_id=both, content=content, recipient="bob@example.com")
    for each in (row, theirs):
        # Below the notification's own id, in the same millisecond.
        attempt = {"id": type(each)(int=each.int >> 80 << 80), "notification_id": each, "error": f"refused: {each}"}
        insert(engine, "attempts", **attempt, number=1, outcome="permanent")
        insert(engine, "dead_letters", id=new_id(), notification_id=each, claims=1, reason="x", attempts=1,
               error=f"refused: {each}", created_at=datetime.now(UTC))  # fmt: skip
        recipient = "ada@example.com" if each == row else "bob@example.com"
        message = {"channel": "email", "recipient": recipient, "text": "x"}
        insert(engine, "outbox", notification_id=each, **message)
        insert(engine, "dedup_keys", channel="email", address=f"{each}", key="k", notification_id=each,
               until=datetime.now(UTC))  # fmt: skip
        times = dict.fromkeys(("happened_at", "due_at", "keep_until"), datetime.now(UTC) + timedelta(hours=1))
        insert(engine, "receipts", id=new_id(), notification_id=each, provider="p", kind="bounced",
               error=f"no mailbox: {each}", **times)  # fmt: skip
    return {"rows": [str(row), str(second)], "event": str(own), "private": private, "shared": shared, "theirs": theirs}


def exported(engine: Engine, user_id: str) -> dict[str, Any]:
    pieces = export.export(engine, user_id)
    assert pieces is not None
    document: dict[str, Any] = json.loads(b"".join(pieces))
    return document


def test_all_of_a_person_is_there_and_nothing_of_others(engine: Engine, ada: dict[str, Any]) -> None:
    pieces = list(export.export(engine, "ada") or [])
    assert any(b'{"b": 1.10, "a": "\xc3\xa4"}' in piece for piece in pieces)  # as it was posted
    found = json.loads(b"".join(pieces))
    assert (found["user"]["phone"], found["user"]["preferences"]["channels"]) == ("+4915112345678", {"sms": False})
    assert {each["address"] for each in found["suppressions"]} == {"ADA@example.com", "two"}
    assert [each["category"] for each in found["opt_outs"]] == ["news"]
    assert [each["id"] for each in found["notifications"]] == ada["rows"]
    first = found["notifications"][0]
    assert [each["number"] for each in first["attempt_log"]] == [1]
    assert [each["reason"] for each in first["dead_letters"]] == ["x"]
    assert first["attachments"] == [
        {"id": str(ada["private"]), "name": "bill.pdf", "content_type": "application/pdf", "bytes": 5}
    ]
    assert [each["id"] for each in found["events"]] == [ada["event"]]
    for name in ("outbox", "dedup_keys"):
        assert [each["notification_id"] for each in found[name]] == [ada["rows"][0]], name
    assert datetime.fromisoformat(first["created_at"]).utcoffset() == timedelta(0)
    assert export.export(engine, "nobody") is None
    assert str(ada["theirs"]) not in json.dumps(found)


def test_a_person_with_many_rows_is_read_page_by_page(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    users.put(engine, "ada", ADA, b"{}")
    ids = sorted(derived_id(1_760_000_000_000 + n * 10_000_000, n) for n in range(60))
    for each in ids:
        notification(engine, "ada", id=each)
    monkeypatch.setattr(export, "_PAGE", 7)
    monkeypatch.setattr(export, "_IDS", 20)
    assert [each["id"] for each in exported(engine, "ada")["notifications"]] == [str(each) for each in ids]


def test_nothing_is_held_while_somebody_reads_slowly(engine: Engine, ada: dict[str, Any]) -> None:
    for piece in export.export(engine, "ada") or []:
        with engine.connect() as connection:
            others = text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
            )
            assert connection.scalar(others) == 0, piece
    del ada


def test_over_http_and_from_the_shell(system: Running, tmp_path: Path) -> None:
    system.http.put(
        f"{system.url}/api/v1/users/exp-1", json={"email": "exp@example.com"}, timeout=20
    ).raise_for_status()
    answer = system.get("/api/v1/users/exp-1/export")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["user"]["email"] == "exp@example.com"
    assert system.get("/api/v1/users/exp-2/export").status_code == 404
    file = tmp_path / "export.json"
    environment = {**clean_environment(), "DATABASE_URL": system.environment["DATABASE_URL"]}

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        return manage("users", "export", *map(str, arguments), environment=environment)

    assert json.loads(run("exp-1").stdout)["user"]["user_id"] == "exp-1"
    assert run("exp-1", "--output", file).returncode == 0
    assert json.loads(file.read_bytes())["user"]["user_id"] == "exp-1"
    missing = run("exp-2", "--output", tmp_path / "none.json")
    assert missing.returncode == 1
    assert "There is no such user." in missing.stderr
    assert not (tmp_path / "none.json").exists()


def test_erasing_leaves_nothing_of_a_person_but_what_leaves_them_alone(engine: Engine, ada: dict[str, Any]) -> None:
    assert erase_user(engine, Vault(()), "ada")
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT id FROM attachments"))) == []
        for table, column in (("attempts", "error"), ("dead_letters", "error"), ("receipts", "error")):
            errors = connection.execute(text(f"SELECT notification_id, {column} FROM {table}")).all()
            by_row = {str(row): error for row, error in errors}
            assert by_row[ada["rows"][0]] in {"refused", "no mailbox"}, table
            assert str(ada["theirs"]) in by_row[str(ada["theirs"])], table
        for table in ("outbox", "dedup_keys"):
            assert list(connection.scalars(text(f"SELECT notification_id FROM {table}"))) == [ada["theirs"]], table
        assert connection.scalar(text("SELECT count(*) FROM suppressions")) == 3
        assert connection.scalar(text("SELECT count(*) FROM opt_outs")) == 1
    assert export.export(engine, "ada") is None
    erase_user(engine, Vault(()), "bob")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM attachments")) == 0
