"""Visibility in answers: addresses to who may read, and credentials to nobody who does not ask for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from api.app import create_app
from api.description import operations
from config.settings import read_settings
from config.wiring import Wiring
from deploy.commands.cli import cli
from tests.conftest import QUICK
from tests.support.bodies import ASKED, READING
from tests.support.planted import (
    ADDRESS,
    BROWSER,
    CHAT,
    EMAIL,
    EXPO,
    HEADERS,
    HOOK,
    PHONE,
    PUSH,
    SECRET,
    UNKNOWN_CHAT,
    URL,
    USER,
    Planted,
    plant,
)


@pytest.fixture
def planted(database_url: str) -> Iterator[Planted]:
    """An API within this process that asks for keys; nothing else runs."""
    wires = Wiring(read_settings({**QUICK, "DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    yield plant(create_app(wires).test_client(), wires)
    wires.template_process.close()
    wires.engine.dispose()


#: They hand out all of a person's data: that is what they are for.
HANDING_OUT: Final = {"exportUser", "exportPerson"}
#: Operations that end what other tests need.
LAST: Final = ("deleteDeadLetter", "deleteSubscription", "deleteUser", "deleteRoute", "liftSuppressionById")


def _described(planted: Planted) -> list[tuple[str, str, dict[str, Any]]]:
    """Every operation that wants a key: method, path, description."""
    document: dict[str, Any] = planted.client.get("/openapi.json").get_json()
    found = [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in {"get", "put", "post", "patch", "delete"} and "x-required-scope" in operation
    ]
    assert len(found) == sum("x-required-scope" in each for each in operations(document)) > 50
    return sorted(found, key=lambda each: each[2]["operationId"] in LAST)


def test_no_answer_to_a_key_that_may_not_read_shows_an_address(planted: Planted) -> None:
    tried = set()
    for method, path, operation in _described(planted):
        name, scope = operation["operationId"], operation["x-required-scope"]
        if scope == "read" or name in HANDING_OUT:
            continue
        body, status = ASKED[name]  # a new operation is added there
        for _ in range(2 if method == "post" else 1):  # what is repeated is answered from what is kept
            answer = planted.ask(scope, method, planted.path(path), body)
            for mark in (ADDRESS, SECRET, PHONE):
                assert mark not in answer.text + str(answer.headers), f"{name}: {answer.text}"
            if name not in tried:
                assert answer.status_code == status, f"{name}: {answer.status_code} {answer.text}"
            tried.add(name)
    assert tried == set(ASKED)


def test_what_the_request_gave_itself_comes_back(planted: Planted) -> None:
    message = {"recipient": "Bob@EXAMPLE.com", "channel": "email", "body": "x", "cancellation_key": "mine"}
    [made] = planted.ask("send", "POST", "/api/v1/notifications", message).get_json()["items"]
    assert (made["recipient"], made["cancellation_key"]) == ("Bob@example.com", "mine")
    [to_user] = planted.ask(
        "send", "POST", "/api/v1/notifications", {"user_id": USER, "channel": "email", "body": "x"}
    ).get_json()["items"]
    assert (to_user["recipient"], to_user["user_id"], to_user["channel"]) == (None, USER, "email")
    assert to_user["status"] == "queued"
    # Another request, which gave an id alone.
    cancelled = planted.ask("send", "POST", f"/api/v1/notifications/{to_user['id']}/cancel").get_json()
    assert (cancelled["recipient"], cancelled["status"], cancelled["explanation"]) == (None, "cancelled", None)
    person = {"email": "bob@example.com", "push_tokens": ["tok-1"], "webhook_url": "https://bob.example.com/"}
    put = planted.ask("users", "PUT", "/api/v1/users/bob", person).get_json()
    assert {name: put[name] for name in person} == person
    # A key that may read sees the same in full.
    found = planted.ask("read,send", "POST", f"/api/v1/notifications/{to_user['id']}/cancel").get_json()
    assert (found["recipient"], found["explanation"]) == (EMAIL, "It was cancelled before it was sent.")


def _readings(planted: Planted) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Every operation that a key with `read` or `admin` reads by: id, method, path, description."""
    for method, path, operation in _described(planted):
        name = operation["operationId"]
        if operation["x-required-scope"] == "read" or name in HANDING_OUT:
            yield name, method, path, operation


def test_no_answer_shows_a_credential(planted: Planted) -> None:
    read = 0
    for name, method, path, _ in _readings(planted):
        for each in _paths(planted, path):
            answer = planted.ask("read,admin", method, each, READING.get(name))
            assert answer.status_code in {200, 404, 409, 422}, f"{name}: {answer.status_code} {answer.text}"
            assert SECRET not in answer.text + str(answer.headers), f"{name}: {answer.text}"
            read += answer.status_code == 200
    assert read > 40
    page = planted.ask("read", "GET", "/api/v1/notifications").get_json()["items"]
    masked = {
        *("slack://***", "custom://***", "https://hooks.slack.com/***", "ExponentPushToken[***]", EMAIL, PHONE, PUSH),
        f"https://***@{ADDRESS}.example.com/hook?token=***&page=2",
        f'{{"endpoint":"https://{ADDRESS}.example.com/***","keys":"***"}}',
    }
    assert {each["recipient"] for each in page} == masked
    user = planted.ask("read", "GET", f"/api/v1/users/{USER}").text
    assert '"attributes":{"n":1.10,"link":"https://***@example.com/"}' in user.replace(" ", "")


def _paths(planted: Planted, pattern: str) -> Iterator[str]:
    """The paths of a pattern, one for each notification where it is about one."""
    if "{notification_id}" not in pattern:
        yield planted.path(pattern)
        return
    for (notification_id,) in planted.sql("SELECT id FROM notifications"):
        yield pattern.replace("{notification_id}", str(notification_id))


def test_whoever_administers_may_see_credentials_and_is_on_record(planted: Planted) -> None:
    seen, reads = "", 0
    for name, method, path, operation in _readings(planted):
        takes_it = any(each["name"] == "reveal" for each in operation.get("parameters", ()))
        if not takes_it:
            answer = planted.ask("read,admin", method, planted.path(path), READING.get(name), "?reveal=1")
            assert answer.status_code == 422, name
            continue
        for each in _paths(planted, path):
            for asked in ("read", "read,send,users"):
                refused = planted.ask(asked, method, each, query="?reveal=1")
                assert refused.status_code == 403, name
                assert SECRET not in refused.text
            seen += planted.ask("read,admin", method, each, query="?reveal=1").text
            reads += 1
            assert SECRET not in planted.ask("read,admin", method, each, query="?reveal=0").text
            assert planted.ask("read,admin", method, each, query="?reveal=please").status_code == 422
    for credential in (URL, CHAT, UNKNOWN_CHAT, HOOK, EXPO, *HEADERS.values()):
        assert credential in seen.replace("\\/", "/"), credential
    recorded = planted.sql("SELECT actor, target, action FROM audit WHERE action LIKE 'reveal%' AND outcome = '200'")
    assert {actor for actor, *_ in recorded} == {"only-read-admin"}
    assert {"reveal: GET /api/v1/users", "reveal: GET /api/v1/users/{user_id}"} <= {action for *_, action in recorded}
    assert reads > 40
    [(targets,)] = planted.sql("SELECT string_agg(concat(action, target), ' ') FROM audit")
    assert ADDRESS not in targets
    assert SECRET not in targets


def test_a_list_is_filtered_by_the_whole_address(planted: Planted) -> None:
    for recipient in (URL, CHAT, UNKNOWN_CHAT, HOOK, EXPO, BROWSER, EMAIL, PHONE):
        for path, name in (("notifications", "recipient"), ("users", "address")):
            answer = planted.client.get(
                f"/api/v1/{path}", query_string={name: recipient}, headers=planted.bearer("read")
            )
            expected = 0 if path == "users" and recipient in {UNKNOWN_CHAT, HOOK} else 1
            assert len(answer.get_json()["items"]) == expected, (path, recipient)


SHOWN: Final = ["https://***@example.com/", "https://example.com/?token=***", "https://hooks.slack.com/***"]


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        *(("PUT", "users/u-2", {"webhook_url": url}, "webhook_url") for url in SHOWN),
        ("PUT", "users/u-2", {"chat_url": "slack://***"}, "chat_url"),
        ("PUT", "users/u-2", {"push_tokens": ["a", "ExponentPushToken[***]"]}, "push_tokens.1"),
        ("PUT", "users/u-2", {"attributes": {"a": [{"b": SHOWN[0]}]}}, "attributes"),
        ("PATCH", "subscriptions/{subscription_id}", {"url": SHOWN[0]}, "url"),
        ("PATCH", "subscriptions/{subscription_id}", {"headers": {"X-Tenant": "***"}}, "headers.X-Tenant"),
        ("POST", "suppressions", {"channel": "chat", "address": "slack://***"}, "address"),
        ("POST", "notifications", {"channel": "webhook", "recipient": SHOWN[1], "body": "x"}, "recipient"),
        ("POST", "events", {"event_type": "a", "channel": "chat", "recipient": "slack://***"}, "recipient"),
        ("PUT", "templates/t-1", {"channel": "email", "text": f"See {SHOWN[0]}."}, "text"),
        (
            "PUT",
            "routes/r-1",
            {"event_type": "a", "to": {"recipient": "'slack://***'", "channel": "chat"}},
            "to.recipient",
        ),
    ],
)
def test_what_was_shown_masked_is_not_taken_for_an_address(
    planted: Planted, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    answer = planted.ask("read,admin,send", method, planted.path(f"/api/v1/{path}"), body)
    assert answer.status_code == 422, answer.text
    assert list(answer.get_json()["errors"]) == [field]
    assert "***" in str(answer.get_json()["errors"])


def _commands(planted: Planted) -> dict[str, list[list[str]]]:
    """Commands that show what is stored, by whether they take --reveal."""
    ids = [str(notification_id) for (notification_id,) in planted.sql("SELECT id FROM notifications")]
    asked = [*ids, USER, EMAIL, URL, CHAT, UNKNOWN_CHAT, EXPO, BROWSER, str(planted.ids["event_id"])]
    letter = str(planted.ids["letter_id"])
    taking = [["users", "export", USER], ["dlq", "list"], ["dlq", "show", letter], ["outbox"], ["routes", "export"]]
    taking += [["outbox", "--recipient", UNKNOWN_CHAT], *(["why", each] for each in asked)]
    addresses = [("chat", CHAT), ("webhook", URL), ("push", EXPO), ("email", EMAIL), ("chat", UNKNOWN_CHAT)]
    plain = [["providers", "status"], *(["providers", "status", *each] for each in addresses)]
    plain += [["audit"], ["api-keys", "list"], ["status"], ["dlq", "acts"]]
    plain += [["dlq", "groups", "--by", "error", "--by", "provider"]]
    return {"taking": taking, "plain": plain}


def test_no_command_shows_a_credential_unless_it_is_asked_to(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("config.wiring.wiring", lambda: planted.wires)
    commands, shown = _commands(planted), ""
    for arguments in (*commands["taking"], *commands["plain"]):
        done = CliRunner().invoke(cli, arguments)
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
        assert SECRET not in done.output, f"{arguments}: {done.output}"
        shown += done.output
    assert EMAIL in shown
    assert "slack://***" in shown
    assert planted.sql("SELECT count(*) FROM audit WHERE actor LIKE 'shell:%' AND target LIKE '%reveal%'") == [(0,)]
    revealed = "".join(CliRunner().invoke(cli, [*each, "--reveal"]).output for each in commands["taking"])
    for credential in (URL, CHAT, UNKNOWN_CHAT, EXPO, HOOK):
        assert credential in revealed, credential
    recorded = planted.sql("SELECT action, outcome, target FROM audit WHERE actor LIKE 'shell:%'")
    recorded = [each for each in recorded if "reveal=yes" in str(each.target)]
    actions = {"users.export", "dlq.list", "dlq.show", "outbox", "routes.export", "why"}
    assert {each.action for each in recorded} == actions
    assert {each.outcome for each in recorded} == {"done"}
    assert ADDRESS not in str(recorded)
    assert SECRET not in str(recorded)
    # A file that was exported with a mask in it is not loaded: the route would reach nobody.
    file = tmp_path / "routes.yaml"
    file.write_text(CliRunner().invoke(cli, ["routes", "export"]).output)
    loaded = CliRunner().invoke(cli, ["routes", "load", str(file)])
    assert loaded.exit_code == 1
    assert "***" in loaded.output
