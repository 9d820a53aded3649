"""Users: written, read, listed and erased; reached over each channel they have, wherever they moved."""

import json
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import Any

import pytest
import requests

from tests.support.running import Running
from tests.support.users import USERS, path, put

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


def delete(system: Running, user_id: str) -> requests.Response:
    return system.http.delete(system.url + path(user_id), timeout=20)


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
