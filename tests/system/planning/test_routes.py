"""Routes: what an event type means for people, over HTTP and from a file."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.conftest import QUICK, clean_environment
from tests.support.commands import succeed
from tests.support.paths import ROOT
from tests.support.running import Running, made_of, wait_for

TO_USER = {"user_id": "payload.user_id"}
#: The field that is complained of, and values of its member that it is complained for.
WRONG_VALUES: dict[str, list[Any]] = {
    "event_type": [None, "", "*.paid", "order.*.late", "a b"],
    "to": [None, "payload.user_id"],
    "to.user_id": [{"user_id": value} for value in ("a[", "", 5, None, "nofunc(a)", "(" * 3000 + "a" + ")" * 3000)],
    "to.channel": [{"recipient": "b"}, {"user_id": "a", "channel": "sms"}, {"recipient": "b", "channel": "fax"}],
    "to.name": [{"user_id": "a", "name": "b"}],
    "filter": ["a =", 5, ""],
    "channels": [[], "sms", ["sms", "sms"]],
    "channels.0": [["fax"], [None]],
    "strategy": ["second", None],
    "template": ["nowhere", "a b"],
    "category": ["a b", "x" * 65],
    "critical": ["yes", 1],
    "priority": ["urgent"],
    "target_date": ["]", "2030-01-01T00:00:00Z"],
    "lead_time": ["seven days", [], ["P1D", 7]],
    "enabled": [1, "true", None],
    "colour": ["red"],
}


def put(system: Running, name: str, **fields: Any) -> requests.Response:
    return system.http.put(f"{system.url}/api/v1/routes/{name}", json=fields, timeout=20)


def route(system: Running, name: str, **fields: Any) -> dict[str, Any]:
    """A route that must be accepted; it tells `payload.user_id` unless told otherwise."""
    answer = put(system, name, **{"to": TO_USER, **fields})
    assert answer.ok, answer.text
    written: dict[str, Any] = answer.json()
    return written


def user(system: Running, user_id: str, **fields: Any) -> None:
    assert system.http.put(f"{system.url}/api/v1/users/{user_id}", json=fields, timeout=20).ok


def test_a_route_is_written_read_listed_and_deleted(system: Running) -> None:
    path = "/api/v1/routes/crud"
    definition: dict[str, Any] = {"event_type": "crud.*", "to": TO_USER, "filter": "payload.total > `100`"}
    definition |= {"channels": ["sms", "email"], "strategy": "first", "category": "orders", "critical": True}
    definition |= {"priority": "low", "target_date": "payload.due", "lead_time": ["P7D", "P1D"], "enabled": False}
    answer = put(system, "crud", **definition)
    assert answer.status_code == 201, answer.text
    written = answer.json()
    assert {name: written[name] for name in definition} == definition
    assert written["name"] == "crud"
    assert system.get(path).json() == written

    again = put(system, "crud", **definition)
    assert (again.status_code, again.json()["updated_at"]) == (200, written["updated_at"])
    # A PUT replaces all of it.
    other = put(system, "crud", event_type="crud.other", to={"recipient": "payload.email", "channel": "email"})
    assert other.status_code == 200
    changed = other.json()
    assert (changed["filter"], changed["channels"], changed["enabled"]) == (None, None, True)
    assert changed["created_at"] == written["created_at"]
    assert changed["updated_at"] > written["updated_at"]

    route(system, "crud-newer", event_type="crud.newer")
    names = [each["name"] for each in system.get("/api/v1/routes", params={"limit": 200}).json()["items"]]
    assert names.index("crud-newer") < names.index("crud")
    assert system.get("/api/v1/routes", params={"limit": 1}).json()["next_cursor"]

    assert system.http.delete(system.url + path, timeout=20).status_code == 204
    assert system.http.delete(system.url + path, timeout=20).status_code == 404
    assert system.get(path).status_code == 404


@pytest.mark.parametrize(
    ("pattern", "event_type", "applies"),
    [
        ("pattern1.paid", "pattern1.paid.late", False),
        ("pattern2.*", "pattern2.paid.late", True),
        ("pattern3.*", "pattern30.paid", False),
        ("*", "pattern4", True),
    ],
)
def test_patterns(system: Running, pattern: str, event_type: str, applies: bool) -> None:
    name = f"pattern-{event_type}"
    # The filter keeps the route for everything away from other tests' events.
    route(system, name, event_type=pattern, filter=f"payload.marker == '{event_type}'")
    made = made_of(system, event_type, {"user_id": "u_pattern", "marker": event_type})
    assert [each["route"] for each in made] == [name] * applies
    system.http.delete(f"{system.url}/api/v1/routes/{name}", timeout=20)


def test_a_route_tells_a_user_over_each_channel(system: Running) -> None:
    user(system, "u_each", email="each@example.com", phone="+4915112345101", push_tokens=["each-1", "each-2"])
    route(system, "each", event_type="each.event", category="news")
    made = made_of(system, "each.event", {"user_id": "u_each"})
    seen = sorted((each["channel"], each["recipient"]) for each in made)
    assert seen == [("email", "each@example.com"), ("push", "each-1"), ("push", "each-2"), ("sms", "+4915112345101")]
    assert {(each["user_id"], each["route"], each["category"]) for each in made} == {("u_each", "each", "news")}


def test_a_list_is_one_notification_each_however_often_fan_out_runs(system: Running) -> None:
    for user_id in ("u_list_1", "u_list_2", "20441"):
        user(system, user_id, phone=f"+49151123452{len(user_id)}{user_id[-1]}")
    route(system, "list", event_type="list.event", to={"user_id": "payload.people[?active].id"})
    people = [{"id": each, "active": True} for each in ("u_list_1", "u_list_2", "u_list_1", 20441)]
    payload = {"people": [*people, {"id": "u_list_3", "active": False}]}
    event_id = system.event(event_type="list.event", payload=payload)
    before: set[str] = set()
    for _ in range(3):
        wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
        made = system.notifications(event_id)
        assert sorted(each["user_id"] for each in made) == ["20441", "u_list_1", "u_list_2"]
        assert {each["id"] for each in made} == (before or {each["id"] for each in made})
        before = {each["id"] for each in made}
        system.sql("UPDATE events SET status = 'accepted', due_at = now() WHERE id = :id", id=event_id)
    wait_for(lambda: all(each["status"] == "sent" for each in system.notifications(event_id)))
    assert len(system.sql("SELECT 1 FROM outbox WHERE notification_id = ANY(CAST(:ids AS uuid[]))", ids=[*before])) == 3


@pytest.mark.parametrize(
    ("fields", "payload", "reason"),
    [
        ({}, {}, "no_address"),
        ({}, {"user_id": {"id": 1}}, "invalid_address"),
        ({}, {"user_id": "u_nobody_knows"}, "no_address"),
        ({}, {"user_id": "with/slash"}, "invalid_address"),
        ({"to": {"recipient": "payload.to", "channel": "email"}}, {"to": "not an address"}, "invalid_address"),
        ({"target_date": "payload.due"}, {"user_id": "u_routed_nowhere", "due": "tomorrow"}, "invalid_target_date"),
    ],
)
def test_what_a_route_cannot_send_says_why(
    system: Running, fields: dict[str, Any], payload: dict[str, Any], reason: str
) -> None:
    route(system, "refused", event_type="refused.event", **fields)
    [made] = made_of(system, "refused.event", payload)
    assert (made["status"], made["reason"], made["route"]) == ("skipped", reason, "refused")
    explanation = system.notification(made["id"])["explanation"]
    assert "refused" in explanation or "address" in explanation


@pytest.mark.parametrize("to", [TO_USER, {"recipient": "payload.user_id", "channel": "email"}])
def test_a_path_that_finds_an_empty_list_makes_nothing(system: Running, to: dict[str, str]) -> None:
    route(system, "empty", event_type="empty.event", to=to)
    assert made_of(system, "empty.event", {"user_id": []}) == []
    filtered = {name: path.replace("payload.user_id", "payload.user_id[?active]") for name, path in to.items()}
    route(system, "empty", event_type="empty.event", to=filtered)
    assert made_of(system, "empty.event", {"user_id": [{"active": False}]}) == []
    # None is not an empty list: something was to be there.
    [nobody] = made_of(system, "empty.event", {})
    assert nobody["reason"] == "no_address"


def test_a_route_says_more_than_its_event(system: Running) -> None:
    user(system, "u_more", email="more@example.com", phone="+4915112345104", timezone="Europe/Berlin")
    template = {"channel": "email", "subject": "routed", "text": "{{ payload.due }}"}
    assert system.http.put(f"{system.url}/api/v1/templates/routed", json=template, timeout=20).ok
    target = datetime.now(UTC) + timedelta(days=30)
    said = {"channels": ["email"], "template": "routed", "category": "password", "critical": True}
    route(system, "more", event_type="more.*", target_date="payload.due", lead_time=["PT240H", "PT24H"], **said)
    payload = {"user_id": "u_more", "due": target.isoformat()}
    made = made_of(system, "more.event", payload, category="other", priority="low", cancellation_key="more-1")
    assert sorted(each["lead_time"] for each in made) == ["PT240H", "PT24H"]
    for each in made:
        due = target - timedelta(hours=int(each["lead_time"][2:-1]))
        assert abs(datetime.fromisoformat(each["due_at"]) - due) < timedelta(milliseconds=1)
        assert each["template"] == {"name": "routed", "version": 1}
        said = (each["status"], each["channel"], each["category"], each["critical"], each["priority"])
        assert said == ("scheduled", "email", "password", True, "high")
        assert each["cancellation_key"] == "more-1"


def test_strategy_first_uses_the_first_channel_that_there_is(system: Running) -> None:
    user(system, "u_first", phone="+4915112345106", email="first-route@example.com")
    route(system, "first", event_type="first.event", channels=["push", "sms", "email"], strategy="first")
    made = made_of(system, "first.event", {"user_id": "u_first"})
    by_channel = {each["channel"]: each for each in made}
    assert set(by_channel) == {"push", "sms"}
    assert (by_channel["push"]["status"], by_channel["push"]["reason"]) == ("skipped", "no_address")
    assert by_channel["sms"]["follows"] == by_channel["push"]["id"]


@pytest.mark.parametrize(
    ("filter_", "applies"),
    [
        ("payload.total > `100`", True),
        ("payload.total > `500`", False),
        ("event_type == 'filter.event' && critical", False),
        # It does not fit what the event holds: it does not apply, and nobody else suffers.
        ("contains(payload.name, payload.total)", False),
    ],
)
def test_a_filter_and_a_switch(system: Running, filter_: str, applies: bool) -> None:
    route(system, "filtered", event_type="filter.event", filter=filter_)
    route(system, "unfiltered", event_type="filter.event", filter="payload")
    route(system, "disabled", event_type="filter.event", enabled=False)
    made = made_of(system, "filter.event", {"user_id": "u_filter", "total": 250, "name": "Ada"})
    assert sorted(each["route"] for each in made) == ["filtered"] * applies + ["unfiltered"]


@pytest.mark.parametrize("fields", [{"user_id": "u_told"}, {"recipient": "told@example.com", "channel": "email"}])
def test_routes_do_not_apply_where_the_event_names_somebody(system: Running, fields: dict[str, str]) -> None:
    route(system, "addressed", event_type="addressed.event")
    [made] = made_of(system, "addressed.event", {"user_id": "u_other"}, **fields)
    assert (made["route"], made["user_id"]) == (None, fields.get("user_id"))


def test_several_routes_for_one_event_and_several_addresses_for_one(system: Running) -> None:
    user(system, "u_several", phone="+4915112345108")
    route(system, "several-buyer", event_type="several.*")
    to = {"recipient": "payload.desks[].mail", "channel": "email"}
    route(system, "several-desks", event_type="several.event", to=to)
    desks = [{"mail": "desk-1@example.com"}, {"mail": "desk-2@example.com"}]
    made = made_of(system, "several.event", {"user_id": "u_several", "desks": desks})
    assert sorted((each["route"], each["user_id"], each["recipient"]) for each in made) == [
        ("several-buyer", "u_several", "+4915112345108"),
        ("several-desks", None, "desk-1@example.com"),
        ("several-desks", None, "desk-2@example.com"),
    ]


@pytest.mark.parametrize(
    ("error", "value"),
    [(error, value) for error, values in WRONG_VALUES.items() for value in values],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_said_by_field_and_writes_nothing(system: Running, error: str, value: Any) -> None:
    answer = put(system, "wrong", **{"event_type": "wrong.event", "to": TO_USER, error.partition(".")[0]: value})
    assert answer.status_code == 422, answer.text
    assert list(answer.json()["errors"]) == [error]
    assert system.get("/api/v1/routes/wrong").status_code == 404


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 129, "all", "email", "webhook"])
def test_a_name_must_be_one(system: Running, name: str) -> None:
    answer = put(system, name, event_type="x", to=TO_USER)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["name"])


FILE = """\
routes:
  password-expiring:
    event_type: password.expiring
    to: {user_id: payload.user_id}
    target_date: payload.expires_at
    lead_time: [P7D, P1D]
  welcome:  # in their language
    event_type: user.*
    to:
      recipient: payload.email
      channel: email
    filter: payload.name == '✉ Ada'
    enabled: false
"""

#: A billion of them: aliases of aliases.
LAUGHS = "routes:\n  bomb:\n    event_type: x\n    to: {user_id: a}\n    lead_time:\n    - &l0 [x]\n" + "".join(
    f"    - &l{n + 1} [{', '.join([f'*l{n}'] * 10)}]\n" for n in range(9)
)
#: Files that are wrong, and what is said of them.
WRONG: list[tuple[str | bytes, str]] = [
    ("routes:\n  a: [\n", r"line 3: not YAML: .+"),
    ("routes:\n\ta: 1\n", r"line 2: not YAML: .+"),
    ("", r"line 1: .*routes.*"),
    ("route: {}", r"line 1: .*routes.*"),
    ("routes:\n  a: 5\n", r"line 2: a is not a route"),
    ("routes:\n  7: {}\n", r"line 2: 7 is no name"),
    ("routes:\n  ? [" + "x, " * 2000 + "x]\n  : {}\n", r"line 2: .+"),
    (FILE + "  welcome: {}\n", r"line 14: welcome stands there twice"),
    (
        FILE + '  half:\n    event_type: x\n    to: {user_id: "\\ud800"}\n',
        r"line 16: A text may not contain half of a surrogate pair\.",
    ),
    (FILE.replace("    enabled", "    event_type: x\n    enabled"), r"line 13: event_type stands there twice"),
    (FILE.replace("lead_time", "leadtime"), r"line 6: password-expiring\.leadtime: Unknown field\."),
    (FILE.replace("user_id:", "userid:"), r"line 4: password-expiring\.to\..+"),
    (FILE.replace("payload.email", "payload["), r"line 10: welcome\.to\.recipient: Not a JMESPath expression.+"),
    (FILE.replace("[P7D, P1D]", "[P7D, tomorrow]"), r"line 6: password-expiring\.lead_time.*: .+"),
    (FILE.replace("enabled: false", "enabled: never"), r"line 13: welcome\.enabled: Not a valid boolean\."),
    (FILE + "    template: nowhere\n", r"line 14: welcome\.template: There is no such template\."),
    (FILE.replace("  welcome:", "  email:"), r"line 7: email\.name: .+"),
    (FILE.replace("    event_type: user.*\n", ""), r"line 7: welcome\.event_type: .+"),
    # Hostile ones.
    ("routes: !!python/object/apply:os.system ['id']\n", r"line 1: not YAML: .+"),
    ("routes: &a\n  b: *a\n", r"(line \d+: )?.+"),
    (
        "a: &a [x,x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
        r".+",
    ),
    ("routes:\n  a: " + "[" * 5000 + "\n", r"(line \d+: )?.+"),
    ("routes: {a: " + "{b: " * 5000 + "\n", r"(line \d+: )?.+"),
    (b"routes:\n  a\xff: {}\n", r"(line \d+: )?.+"),
    (b"routes:\n  a\x00: {}\n", r"(line \d+: )?.+(\n.+)*"),
    (LAUGHS, r"line 5: bomb\.lead_time.*: .+"),
]

#: Runs commands one after the other in one process, since each start takes a second, and prints what became of them.
SHELL = """
import contextlib, io, json, sys, traceback
from deploy.commands.cli import cli
done = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli(arguments)
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = traceback.format_exc()
    done.append((code, out.getvalue(), err.getvalue()))
json.dump(done, sys.stdout)
"""


def shell(database_url: str, *commands: list[str]) -> list[tuple[int | str | None, str, str]]:
    """(exit code or traceback, stdout, stderr) of each of these `manage.py routes` commands; they may delete routes."""
    done = subprocess.run(
        [sys.executable, "-c", SHELL],
        env={**clean_environment(), **QUICK, "DATABASE_URL": database_url},
        cwd=ROOT,
        input=json.dumps([["routes", *command] for command in commands]),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return [(code or 0, out, err) for code, out, err in json.loads(done.stdout)]


def test_a_file_is_loaded_once_and_comes_out_as_it_went_in(database_url: str, tmp_path: Path) -> None:
    file, exported, fewer, none = (str(tmp_path / name) for name in ("file", "exported", "fewer", "none"))
    Path(file).write_text(FILE)
    Path(fewer).write_text(FILE.partition("  welcome")[0].replace("P7D, ", ""))
    Path(none).write_text("routes: {}")
    both_unchanged = ["unchanged: password-expiring", "unchanged: welcome"]
    story: list[tuple[list[str], list[str]]] = [
        (["load", file, "--dry-run"], ["would be added: password-expiring", "would be added: welcome"]),
        (["export"], ["routes: {}"]),
        (["load", file], ["added: password-expiring", "added: welcome"]),
        (["load", file, "--prune"], both_unchanged),
        (["export", exported], [f"Wrote 2 routes to {exported}."]),
        (["load", exported, "--prune"], both_unchanged),
        (["load", fewer, "--dry-run"], ["would be changed: password-expiring"]),
        (["load", file], both_unchanged),
        (["load", fewer], ["changed: password-expiring"]),
        (["load", fewer, "--prune", "--dry-run"], ["unchanged: password-expiring", "would be deleted: welcome"]),
        (["load", exported], ["changed: password-expiring", "unchanged: welcome"]),
        (["load", fewer, "--prune"], ["changed: password-expiring", "deleted: welcome"]),
        (["load", none], []),
        (["load", none, "--prune"], ["deleted: password-expiring"]),
        (["export"], ["routes: {}"]),
    ]
    done = shell(database_url, *(command for command, _ in story))
    for (command, said), (code, out, err) in zip(story, done, strict=True):
        assert (code, out.splitlines(), err) == (0, said, ""), command
    assert yaml.safe_load(Path(exported).read_text()) == yaml.safe_load(FILE)


def test_routes_from_a_file_are_those_of_the_api(system: Running, tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("routes: {from-file: {event_type: file.event, to: {user_id: payload.user_id}, priority: low}}")
    assert succeed("routes", "load", str(file), environment=system.environment) == "added: from-file\n"
    written = system.get("/api/v1/routes/from-file").json()
    assert (written["event_type"], written["to"], written["strategy"]) == ("file.event", TO_USER, "all")
    put(system, "from-file", **{name: written[name] for name in ("event_type", "to", "priority")})
    assert succeed("routes", "load", str(file), environment=system.environment) == "unchanged: from-file\n"
    [made] = made_of(system, "file.event", {"user_id": "u_routed_nowhere"})
    assert made["route"] == "from-file"


@pytest.fixture(scope="module")
def verdicts(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, str, str]]:
    """Return what is said of each wrong file; and at the end, of what there is after all of them."""
    folder = tmp_path_factory.mktemp("wrong")
    for number, (content, _) in enumerate(WRONG):
        (folder / str(number)).write_bytes(content.encode() if isinstance(content, str) else content)
    loads = [["load", str(folder / str(number)), "--prune"] for number in range(len(WRONG))]
    url = new_database()
    (folder / "good").write_text("routes: {kept: {event_type: x, to: {user_id: a}}}")
    return shell(url, ["load", str(folder / "good")], *loads, ["load", str(folder / "good"), "--prune"])


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda number: str(WRONG[number][0])[-30:])
def test_a_wrong_file_says_where(verdicts: list[tuple[Any, str, str]], number: int) -> None:
    code, out, err = verdicts[1 + number]
    assert (code, out) == (1, "")
    assert re.fullmatch(f"Error: {WRONG[number][1]}\n", err), err[-2000:]
    assert len(err) < 2000


def test_wrong_files_change_nothing(verdicts: list[tuple[Any, str, str]]) -> None:
    assert (verdicts[0][1], verdicts[-1][1]) == ("added: kept\n", "unchanged: kept\n")
