"""Users: written, read, listed and erased; reached over each channel they have, wherever they moved."""

import json
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.vocabulary.masking import masked
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import FINISHED, Running, wait_for

USERS = "/api/v1/users"
NOTHING = {
    "email": None,
    "phone": None,
    "push_tokens": [],
    "webhook_url": None,
    "chat_url": None,
    "timezone": None,
    "locale": None,
    "attributes": {},
}


def path(user_id: str) -> str:
    return f"{USERS}/{quote(user_id, safe='')}"


def put(system: Running, user_id: str, /, **fields: Any) -> requests.Response:
    return system.http.put(system.url + path(user_id), json=fields, timeout=20)


def delete(system: Running, user_id: str) -> requests.Response:
    return system.http.delete(system.url + path(user_id), timeout=20)


def by_channel(system: Running, event_id: str) -> dict[str, list[dict[str, Any]]]:
    """An event's notifications by channel, once all are finished."""

    def look() -> list[dict[str, Any]] | None:
        event = system.get(f"/api/v1/events/{event_id}").json()
        done = event["status"] == "processed" and all(n["status"] in FINISHED for n in event["notifications"])
        return event["notifications"] if done else None

    found: dict[str, list[dict[str, Any]]] = {}
    for notification in wait_for(look):
        found.setdefault(notification["channel"], []).append(notification)
    return found


# Written and read.


def test_a_user_is_made_replaced_and_deleted(system: Running) -> None:
    given = {
        "email": "Crud@Example.COM",
        "phone": "+49 151 2345 0001",
        "push_tokens": ["crud-1", "crud-2"],
        "webhook_url": "https://example.com/hook?x=1",
        "chat_url": "slack://TOKEN/CHANNEL",
        "timezone": "Europe/Berlin",
        "locale": "pt-br",
        "attributes": {"name": "Ada", "nested": {"list": [1, 2.5, None, True]}},
    }
    made = put(system, "crud", **given)
    assert made.status_code == 201, made.text
    user = made.json()
    kept = {**given, "email": "Crud@example.com", "phone": "+4915123450001", "locale": "pt-BR"}
    assert {name: user[name] for name in kept} == kept | {"chat_url": "slack://***"}
    revealed = system.get(path("crud"), params={"reveal": 1}).json()
    assert {name: revealed[name] for name in kept} == kept
    assert user["user_id"] == "crud"
    assert user["created_at"].endswith("Z")
    assert system.get(path("crud")).json() == user

    replaced = put(system, "crud", email="crud@example.com")
    assert replaced.status_code == 200
    later = replaced.json()
    assert {name: later[name] for name in NOTHING} == {**NOTHING, "email": "crud@example.com"}
    assert later["created_at"] == user["created_at"]
    assert later["updated_at"] > user["updated_at"]

    assert delete(system, "crud").status_code == 204
    for answer in (system.get(path("crud")), delete(system, "crud"), system.get(path("crud") + "/preferences")):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    assert put(system, "crud").status_code == 201


def test_every_field_is_optional(system: Running) -> None:
    assert put(system, "empty").status_code == 201
    user = system.get(path("empty")).json()
    assert {name: user[name] for name in NOTHING} == NOTHING
    assert put(system, "empty", **NOTHING).status_code == 200


def test_preferences_survive_a_replacement_and_not_a_deletion(system: Running) -> None:
    put(system, "keeps", email="keeps@example.com")
    wishes = {"channels": {"sms": False}, "categories": {"news": {"*": False}}, "quiet_hours": []}
    url = system.url + path("keeps") + "/preferences"
    assert system.http.put(url, json=wishes, timeout=20).json() == wishes
    put(system, "keeps", email="keeps-2@example.com")
    assert system.http.get(url, timeout=20).json() == wishes
    delete(system, "keeps")
    put(system, "keeps", email="keeps@example.com")
    assert system.http.get(url, timeout=20).json() == {"channels": {}, "categories": {}, "quiet_hours": []}


@pytest.mark.parametrize(
    "user_id",
    ["x" * 255, "ü" * 255, "名前", "a b", "a+b", "a%2Fb", "mail@example.com", "1", "..a", "a?b#c", "a;b", "'--", "{}"],
)
def test_ids_are_what_callers_choose(system: Running, user_id: str) -> None:
    answer = put(system, user_id, attributes={"which": user_id})
    assert answer.status_code in {200, 201}, answer.text
    assert system.get(path(user_id)).json()["user_id"] == user_id
    assert system.get(path(user_id)).json()["attributes"] == {"which": user_id}
    assert delete(system, user_id).status_code == 204


@pytest.mark.parametrize("raw", ["x" * 256, "ü" * 256, "a%00b", "%00", "a%0Ab", "a%2Fb", "%7F"])
def test_ids_that_cannot_be_are_nobody(system: Running, raw: str) -> None:
    url = f"{system.url}{USERS}/{raw}"
    for answer in (
        system.http.put(url, json={}, timeout=20),
        system.http.get(url, timeout=20),
        system.http.delete(url, timeout=20),
        system.http.get(f"{url}/preferences", timeout=20),
        system.http.put(f"{url}/preferences", json={}, timeout=20),
    ):
        assert answer.status_code in {404, 422}, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_attributes_come_out_as_they_went_in(system: Running) -> None:
    text = (
        '{"z":9223372036854775807,"a":-9223372036854775808,"u":18446744073709551615,"f":1.5,"e":"","list":[],'
        '"text":"h\u00e9 \u2603 \U0001f600 \u202e","ключ":{"b":1,"a":null}}'
    )
    answer = system.http.put(
        system.url + path("exact"),
        data=f'{{"attributes":{text}}}'.encode(),
        headers={"content-type": "application/json"},
        timeout=20,
    )
    assert answer.status_code == 201, answer.text
    for read in (answer, system.get(path("exact"))):
        assert json.dumps(read.json()["attributes"], ensure_ascii=False) == json.dumps(
            json.loads(text), ensure_ascii=False
        )


WRONG: dict[str, list[Any]] = {
    "email": ["not an address", "a@b@c", "", "a@x.com\r\nBcc: b@x.com", f"{'x' * 65}@example.com", "a\0@x.com", 1],
    "phone": ["0151 12345678", "+49", "+4915112345678901234", "+49151CALLME", "+4915l12345678", "", 4915112345678],
    "push_tokens": ["token", ["with space"], [""], [None], ["ü"], ["x" * 2049], [f"t-{n}" for n in range(51)], None],
    "webhook_url": ["ftp://x.com/", "x.com", "http://", "http://x.com:99999/", "http://x.com/a b", "http://x/\0"],
    "chat_url": ["no scheme", "slack://a b", "slack://a\0b", ""],
    "timezone": [
        "Mars/Olympus",
        "Europe",
        "../../etc/passwd",
        "/etc/localtime",
        "",
        "x" * 300,
        "zone.tab",
        "Bérlin",
        1,
    ],
    "locale": ["german please", "", "d", "de-", "de-\u0661\u0662", "de\n", 1],
    "attributes": [
        [],
        "text",
        None,
        {"nul": "a\0b"},
        {"nul\0": 1},
        {"half": "\ud800"},
        {"n": 2**64},
        {"n": -(2**63) - 1},
    ],
    "user_id": ["in-the-path"],
    "preferences": [{}],
    "e-mail": ["typo@example.com"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_what_is_wrong_is_a_422_and_changes_nothing(system: Running, field: str, value: Any) -> None:
    put(system, "strict", email="strict@example.com")
    answer = put(system, "strict", **{"email": "changed@example.com", field: value})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["status"] == 422
    assert [name.split(".")[0] for name in problem["errors"]] == [field]
    assert all(message for messages in problem["errors"].values() for message in messages)
    assert system.get(path("strict")).json()["email"] == "strict@example.com"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("{", "application/json", 400),
        ("", "application/json", 400),
        (b"\xff", "application/json", 400),
        ('{"attributes": {"n": NaN}}', "application/json", 400),
        ('{"attributes": {"n": 1e999}}', "application/json", 422),
        ("[]", "application/json", 422),
        ("null", "application/json", 422),
        ('{"attributes": ' + '{"a":' * 40 + "1" + "}" * 40 + "}", "application/json", 422),
        ('{"attributes": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}", "application/json", 422),
        ('{"attributes": {"n": ' + "9" * 5000 + "}}", "application/json", 422),
        ('{"attributes": {"n": "' + "x" * (1 << 20) + '"}}', "application/json", 413),
        ("email=a@example.com", "application/x-www-form-urlencoded", 415),
    ],
)
def test_bodies_that_are_no_user(system: Running, body: str | bytes, content_type: str, status: int) -> None:
    url = system.url + path("no-body")
    answer = system.http.put(url, data=body, headers={"content-type": content_type}, timeout=20)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.headers.get("connection") == "close") == (status == 413)
    assert system.get(path("no-body")).status_code == 404


def test_a_connection_is_of_use_after_a_body_that_nobody_wanted(system: Running) -> None:
    """The head comes first, and the rest when the answer is long made."""
    address = system.url.removeprefix("http://").split(":")
    head = f"PUT {path('unwanted')} HTTP/1.1\r\nhost: localhost\r\n"
    head += "content-type: text/plain\r\ncontent-length: 70000\r\n\r\n"
    with socket.create_connection((address[0], int(address[1])), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(head.encode())
            for part in (b"x" * 1000, b"x" * 69_000):
                connection.sendall(part)
                select.select([], [], [], 0.05)  # the pause is the point
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, answer.getheader("connection")) == (415, None)
            answer.read()


def test_one_of_many_at_once_makes_the_user(system: Running) -> None:
    def write(number: int) -> int:
        return requests.put(system.url + path("at-once"), json={"attributes": {"n": number}}, timeout=20).status_code

    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(write, range(16)))
    assert sorted(codes) == [200] * 15 + [201]


# Listed.


def test_the_list_is_newest_first_and_stable(system: Running) -> None:
    ids = [f"listed-{n}" for n in range(5)]
    for user_id in ids:
        put(system, user_id)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while not set(ids) <= set(seen):
        page = system.get(USERS, params={"limit": 2, **cursor}).json()
        assert 1 <= len(page["items"]) <= 2
        seen += [user["user_id"] for user in page["items"]]
        put(system, f"later-{len(seen)}")
        put(system, "listed-3", attributes={"written": "again"})
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [user_id for user_id in seen if user_id in ids] == ids[::-1]
    assert len(seen) == len(set(seen))
    assert not any(user_id.startswith("later-") for user_id in seen)


def test_the_last_page_has_no_next(system: Running) -> None:
    put(system, "on-a-page")
    page = system.get(USERS, params={"limit": 200}).json()
    while page["next_cursor"] is not None:
        page = system.get(USERS, params={"limit": 200, "cursor": page["next_cursor"]}).json()
    assert page["items"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=-1", "limit=many", "limit=", "cursor=x", "cursor=%C3%A9", "offset=3"]
)
def test_a_wrong_query_is_a_422(system: Running, query: str) -> None:
    answer = system.get(f"{USERS}?{query}")
    assert answer.status_code == 422, answer.text
    assert list(answer.json()["errors"]) == [query.partition("=")[0]]


# Reached.


def test_a_user_hears_over_each_channel_they_have(system: Running, smtp: SmtpReceiver, http: HttpReceiver) -> None:
    put(
        system,
        "everywhere",
        email="everywhere@example.com",
        phone="+4915123450002",
        push_tokens=["everywhere-1", "everywhere-2"],
        webhook_url=http.url("/everywhere"),
        chat_url="slack://everywhere/1",
    )
    made = by_channel(system, system.event(user_id="everywhere", payload={"n": 1}))
    counts = {channel: len(rows) for channel, rows in made.items()}
    assert counts == {"email": 1, "sms": 1, "push": 2, "webhook": 1, "chat": 1}
    for rows in made.values():
        for row in rows:
            assert row["user_id"] == "everywhere"
            assert row["status"] == ("delivered" if row["channel"] == "webhook" else "sent")
    assert len(smtp.mails_to("everywhere@example.com")) == 1
    assert len(http.received("/everywhere")) == 1
    kept = system.sql(
        "SELECT channel, recipient FROM outbox WHERE notification_id = ANY(CAST(:ids AS uuid[]))",
        ids=[row["id"] for rows in made.values() for row in rows],
    )
    assert sorted((channel, system.seals.opened(recipient)) for channel, recipient in kept) == [
        ("chat", "slack://everywhere/1"),
        ("push", "everywhere-1"),
        ("push", "everywhere-2"),
        ("sms", "+4915123450002"),
    ]


def test_a_channel_that_was_asked_for_is_the_only_one(system: Running) -> None:
    put(system, "some-channels", phone="+4915123450003", chat_url="slack://some/1")
    assert list(by_channel(system, system.event(user_id="some-channels", channel="chat"))) == ["chat"]
    [skipped] = by_channel(system, system.event(user_id="some-channels", channel="email"))["email"]
    assert (skipped["status"], skipped["reason"]) == ("skipped", "no_address")


def test_a_token_given_twice_is_one_device(system: Running) -> None:
    put(system, "one-device", push_tokens=["one-device", "one-device"])
    body = {"user_id": "one-device", "channel": "push", "body": "x"}
    [made] = system.post("/api/v1/notifications", body).json()["items"]
    assert made["recipient"] == "one-device"


def test_a_user_without_addresses_is_skipped(system: Running) -> None:
    put(system, "unreachable", timezone="Europe/Berlin")
    [[skipped]] = by_channel(system, system.event(user_id="unreachable")).values()
    assert (skipped["status"], skipped["reason"], skipped["channel"]) == ("skipped", "no_address", None)
    assert system.notification(skipped["id"])["explanation"]


# Moved.


def now(system: Running, event_id: str) -> None:
    """Let what waits of an event be due."""
    system.sql("UPDATE notifications SET due_at = now() WHERE event_id = :id AND due_at IS NOT NULL", id=event_id)


@pytest.mark.parametrize(
    ("channel", "field", "old", "new"),
    [
        ("email", "email", "moves@example.com", "moved@example.com"),
        ("email", "email", "Case@example.com", "case@example.com"),
        ("sms", "phone", "+4915123450004", "+4915123450005"),
        ("chat", "chat_url", "slack://moves/1", "slack://moved/1"),
        ("webhook", "webhook_url", "/moves", "/moved"),
    ],
)
def test_what_waits_goes_to_the_new_address(
    system: Running, smtp: SmtpReceiver, http: HttpReceiver, channel: str, field: str, old: str, new: str
) -> None:
    if channel == "webhook":
        old, new = http.url(old), http.url(new)
    user_id = f"moves-{field}-{old[:4]}"
    put(system, user_id, **{field: old})
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    event_id = system.event(user_id=user_id, channel=channel, send_at=later)
    [waiting] = wait_for(lambda: system.notifications(event_id))
    assert (waiting["recipient"], waiting["status"]) == (masked(old), "scheduled")
    put(system, user_id, **{field: new})
    now(system, event_id)
    notification = system.finished(event_id)
    assert (notification["recipient"], notification["status"]) == (
        masked(new),
        "delivered" if channel == "webhook" else "sent",
    )
    if channel == "email":
        assert (len(smtp.mails_to(old)), len(smtp.mails_to(new))) == (0, 1)
    elif channel == "webhook":
        assert (http.received("/moves"), len(http.received("/moved"))) == ([], 1)
    else:
        [row] = system.sql("SELECT recipient FROM outbox WHERE notification_id = :id", id=notification["id"])
        assert system.seals.opened(row.recipient) == new


def test_what_failed_for_now_is_retried_at_the_new_address(system: Running, smtp: SmtpReceiver) -> None:
    smtp.refuse("full@example.com", "452 4.2.2 mailbox full")
    put(system, "retries", email="full@example.com")
    event_id = system.event(user_id="retries", channel="email")
    wait_for(lambda: [n for n in system.notifications(event_id) if n["status"] == "retrying"])
    put(system, "retries", email="empty@example.com")
    assert system.finished(event_id)["recipient"] == "empty@example.com"
    assert len(smtp.mails_to("empty@example.com")) == 1


def test_what_waits_for_an_address_that_is_gone_is_skipped(system: Running) -> None:
    put(system, "loses", push_tokens=["loses-1", "loses-2"], phone="+4915123450006")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    event_id = system.event(user_id="loses", send_at=later)
    wait_for(lambda: len(system.notifications(event_id)) == 3)
    put(system, "loses", push_tokens=["loses-2", "loses-3"])
    now(system, event_id)
    made = by_channel(system, event_id)
    assert [(n["status"], n["reason"]) for n in made["sms"]] == [("skipped", "no_address")]
    # Each device has its own message: the new one does not inherit the old one's.
    push = {(n["recipient"], n["status"], n["reason"]) for n in made["push"]}
    assert push == {(None, "skipped", "no_address"), ("loses-2", "sent", None)}


def _segment(user_id: str) -> str:
    return quote(user_id, safe="").replace(".", "%2E")


def _request(system: Running, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """A request with exactly this path, which requests would tidy up."""
    connection = HTTPConnection("127.0.0.1", system.port, timeout=20)
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


_ODD_IDS = (
    *(
        "a/b",
        "a/",
        "/a",
        "/",
        ".",
        "..",
        "...",
        "a%2Fb",
        "%",
        "a+b",
        "a b",
        " ",
        "\t",
        "a\n",
        "?",
        "#",
        "ö",
        "日本",
        "😀",
        "a;b",
        "\\",
    ),
    *("\u2028", "\x7f", "\x85", "u" * 255, "😀" * 255, "u" * 256, "export", "preferences", "a?b=c&d"),
)
_LIKELY_TROUBLE = st.sampled_from("/.%+\\ \n?#;:@&=")
_ANY_CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def _works_everywhere_or_nowhere(system: Running, user_id: str) -> None:
    segment = _segment(user_id)
    path = f"/api/v1/users/{segment}"
    by_path = _request(system, "PUT", path, {"email": "odd@example.com"})[0] in {200, 201}
    checked = {"user_id": user_id, "channel": "email"}
    accepted = {
        "path": by_path,
        "event": _request(system, "POST", "/api/v1/events", {"event_type": "odd", "user_id": user_id})[0] == 202,
        "notification": _request(system, "POST", "/api/v1/notifications", {"user_id": user_id, "body": "x"})[0] == 202,
        "check": _request(system, "POST", "/api/v1/preferences/check", checked)[0] == 200,
        "filter": _request(system, "GET", f"/api/v1/notifications?user_id={quote(user_id, safe='')}")[0] == 200,
        "preferences": _request(system, "PUT", f"{path}/preferences", {})[0] == 200,
        "export": _request(system, "GET", f"{path}/export")[0] == 200,
        "read": _request(system, "GET", path)[0] == 200,
    }
    assert len(set(accepted.values())) == 1, accepted
    if by_path:
        assert _request(system, "GET", path)[1]["user_id"] == user_id
    assert (_request(system, "DELETE", path)[0] == 204) == by_path


@pytest.mark.parametrize("user_id", _ODD_IDS, ids=range(len(_ODD_IDS)))
def test_an_odd_user_id_works_everywhere_or_nowhere(system: Running, user_id: str) -> None:
    _works_everywhere_or_nowhere(system, user_id)


@settings(max_examples=25, deadline=None)
@given(user_id=st.text(st.one_of(_LIKELY_TROUBLE, _ANY_CHARACTER), min_size=1, max_size=6))
def test_any_user_id_works_everywhere_or_nowhere(system: Running, user_id: str) -> None:
    _works_everywhere_or_nowhere(system, user_id)


# Found.


def test_people_are_found_by_any_of_their_addresses(system: Running) -> None:
    person = {
        "email": "Ada+found@bücher.example",
        "phone": "+4915112349977",
        "push_tokens": ["found-1", "found-2"],
        "webhook_url": "https://xn--bcher-kva.example/hook",
        "chat_url": "slack://FOUND/C",
    }
    put(system, "u-found-by-address", **person).raise_for_status()
    forms = ("Ada+found@bücher.example", "Ada found@BÜCHER.example", " 4915112349977", "+49 1511 2349977", "found-2")
    for form in (*forms, "https://bücher.example/hook", "slack://FOUND/C"):
        found = system.get(USERS, params={"address": form}).json()["items"]
        assert [each["user_id"] for each in found] == ["u-found-by-address"], form
    for form in ("found-", "%", "found-3", "+4915112349978"):
        assert system.get(USERS, params={"address": form}).json()["items"] == [], form
    params = {"address": "found-1", "created_before": "2020-01-01T00:00:00Z"}
    assert system.get(USERS, params=params).json()["items"] == []
    assert system.get(USERS, params={"address": ""}).status_code == 422
