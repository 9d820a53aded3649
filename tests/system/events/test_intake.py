"""Intake: what is accepted, what is refused, and how it is said."""

import json
import socket
from typing import Any
from uuid import UUID

import pytest

from tests.support.intake import raw, refused
from tests.support.running import Running


def test_an_event_needs_only_its_type(system: Running) -> None:
    answer = system.post("/api/v1/events", {"event_type": "USER_SIGNUP"})
    assert answer.status_code == 202
    body = answer.json()
    assert UUID(body["id"]).version == 7
    assert body["event_type"] == "USER_SIGNUP"
    assert body["status"] == "accepted"
    assert body["duplicate"] is False
    assert body["created_at"].endswith("Z")
    assert answer.headers["Location"] == f"/api/v1/events/{body['id']}"
    event = system.get(answer.headers["Location"]).json()
    assert event["payload"] == {}
    assert event["source"] == "anonymous"
    assert event["created_at"] == body["created_at"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"event_type": ""}, "event_type"),
        ({"event_type": "has space"}, "event_type"),
        ({"event_type": "x" * 129}, "event_type"),
        ({"event_type": "x\n"}, "event_type"),
        ({"event_type": ".x"}, "event_type"),
        ({"event_type": 5}, "event_type"),
        ({"event_type": None}, "event_type"),
        ({"payload": None}, "payload"),
        ({"payload": []}, "payload"),
        ({"payload": "text"}, "payload"),
        ({"channel": "fax", "recipient": "x"}, "channel"),
        ({"channel": "email"}, "recipient"),
        ({"recipient": "a@example.com"}, "channel"),
        ({"channel": "email", "recipient": "nobody"}, "recipient"),
        ({"channel": "sms", "recipient": "0151"}, "recipient"),
        ({"channel": "webhook", "recipient": "ftp://example.com"}, "recipient"),
        ({"priority": "urgent"}, "priority"),
        ({"critical": "yes"}, "critical"),
        ({"critical": 1}, "critical"),
        ({"send_at": "2026-11-21T09:00:00"}, "send_at"),
        ({"send_at": "tomorrow"}, "send_at"),
        ({"send_at": "2026-02-30T09:00:00Z"}, "send_at"),
        ({"send_at": "0001-01-01T00:00:00+23:59"}, "send_at"),
        ({"send_at": "2026-11-21"}, "send_at"),
        ({"send_at": 5}, "send_at"),
        ({"occurred_at": "2026-11-21 09:00:00Z"}, "occurred_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:00"}, "expires_at"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 256}, "user_id"),
        ({"user_id": "nul\0"}, "user_id"),
        ({"user_id": "with/slash"}, "user_id"),
        ({"user_id": ".."}, "user_id"),
        ({"category": "has space"}, "category"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_field_is_named(system: Running, fields: dict[str, Any], field: str) -> None:
    problem = refused(system.post("/api/v1/events", {"event_type": "x", **fields}), 422)
    assert field in problem["errors"]
    assert all(isinstance(message, str) for message in problem["errors"][field])


@pytest.mark.parametrize(
    "payload",
    [
        '{"a": "\\u0000"}',
        '{"\\u0000": 1}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"a": 18446744073709551616}',
        '{"a": -9223372036854775809}',
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": ' + "[" * 32 + "]" * 32 + "}",
        '{"a": ' * 40 + "1" + "}" * 40,
        '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}",
    ],
)
def test_a_payload_that_cannot_be_kept_is_refused(system: Running, payload: str) -> None:
    problem = refused(raw(system, f'{{"event_type": "x", "payload": {payload}}}'), 422)
    assert "payload" in problem["errors"]


@pytest.mark.parametrize(
    "payload",
    [
        '{"a": 18446744073709551615, "b": -9223372036854775808}',
        '{"a": ' + "[" * 31 + "]" * 31 + "}",
        '{"a": "\\ud83d\\ude00 😀 \\u0001"}',
        '{"a": 1.0, "b": 1.10, "c": 1E400e}'.replace("E400e", "E300"),
        '{ "spaced" :  [ 1 , 2 ] }',
        '{"": ""}',
    ],
)
def test_a_payload_comes_out_as_it_went_in(system: Running, payload: str) -> None:
    answer = raw(system, f'{{"event_type": "x", "payload": {payload}}}')
    assert answer.status_code == 202, answer.text
    assert f'"payload":{payload}' in system.get(answer.headers["Location"]).text


#: The second of two members is harmless, the first is what another parser may take.
HIDDEN = (r'"\ud800"', "1e999", "9" * 400, "[" * 60 + "]" * 60, "1")


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/events", '{"event_type": "x", "payload": {"a": HIDDEN, "a": 1}}', "payload.a"),
        ("POST", "/events", '{"event_type": "x", "payload": {"b": [{"a": HIDDEN, "a": 1}]}}', "payload.b.0.a"),
        ("POST", "/events", '{"event_type": "x", "payload": HIDDEN, "payload": {}}', "payload"),
        ("POST", "/events/batch", '{"events": HIDDEN, "events": [{"event_type": "x"}]}', "events"),
        ("POST", "/events/batch", '{"events": [{"event_type": "x"}], "ev\\u0065nts": [{"event_type": "x"}]}', "events"),
        ("POST", "/notifications", '{"user_id": "u", "template": "t", "data": {"a": HIDDEN, "a": 1}}', "data.a"),
        ("PUT", "/users/u_doubled", '{"attributes": {"a": HIDDEN, "a": 1}}', "attributes.a"),
        ("PUT", "/users/u_doubled/preferences", '{"channels": {"sms": HIDDEN, "sms": true}}', "channels.sms"),
        ("PUT", "/routes/doubled", '{"event_type": "x", "to": {"user_id": HIDDEN, "user_id": "a"}}', "to.user_id"),
        ("PUT", "/templates/doubled", '{"channel": "sms", "text": HIDDEN, "text": "x"}', "text"),
        ("POST", "/templates/doubled/preview", '{"data": {"a": HIDDEN, "a": 1}}', "data.a"),
        ("POST", "/subscriptions", '{"headers": {"x-a": HIDDEN, "x-a": "b"}}', "headers.x-a"),
        ("POST", "/suppressions", '{"channel": "sms", "address": HIDDEN, "address": "+4915112345678"}', "address"),
        ("POST", "/dead-letters/requeue", '{"all": HIDDEN, "all": true}', "all"),
    ],
)
def test_a_name_that_stands_twice_is_refused_wherever_it_is(
    system: Running, method: str, path: str, body: str, field: str, hidden: str
) -> None:
    data = body.replace("HIDDEN", hidden)
    url = f"{system.url}/api/v1{path}"
    answer = system.http.request(method, url, data=data, headers={"content-type": "application/json"}, timeout=30)
    assert refused(answer, 422)["errors"] == {field: ["This name stands there more than once."]}


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_a_doubled_name_in_a_batch_costs_its_item_alone(system: Running, kind: str, hidden: str) -> None:
    good, bad = '{"event_type": "x"}', f'{{"event_type": "x", "payload": {{"a": {hidden}, "a": 1}}}}'
    items = [good, bad, good]
    body = "\n".join(items) if kind.endswith("ndjson") else f' {{ "events" : [{",".join(items)}] }} '
    answer = raw(system, body, "/api/v1/events/batch", kind).json()
    assert [item.get("errors") for item in answer["items"]] == [
        None,
        {"payload.a": ["This name stands there more than once."]},
        None,
    ]
    assert answer["accepted"] == 2


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "nonsense",
        '{"event_type": "x",}',
        '{"payload": {"a": NaN}}',
        '{"payload": {"a": Infinity}}',
        b"\xff\xfe",
        b'{"a": "\xed\xa0\x80"}',
    ],
)
def test_what_is_not_json_is_a_400(system: Running, body: str | bytes) -> None:
    refused(raw(system, body), 400)


@pytest.mark.parametrize("body", ["[]", '"text"', "1", "null"])
def test_json_that_is_no_object_is_a_422(system: Running, body: str) -> None:
    refused(raw(system, body), 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_media_type_is_a_415(system: Running, kind: str) -> None:
    refused(raw(system, '{"event_type": "x"}', kind=kind), 415)


def test_a_body_of_256_kib_is_the_most(system: Running) -> None:
    frame = len('{"event_type":"x","payload":{"a":""}}')
    fits = f'{{"event_type":"x","payload":{{"a":"{"a" * (256 * 1024 - frame)}"}}}}'
    assert len(fits) == 256 * 1024
    assert raw(system, fits).status_code == 202
    refused(raw(system, fits + " "), 413)


def test_a_body_without_a_length_is_limited_too(system: Running) -> None:
    def chunks() -> Any:
        for _ in range(64):
            yield b" " * 16384

    answer = system.http.post(
        f"{system.url}/api/v1/events", data=chunks(), headers={"content-type": "application/json"}, timeout=30
    )
    refused(answer, 413)


def test_a_length_that_is_not_kept_hurts_nobody(system: Running) -> None:
    with socket.create_connection(("127.0.0.1", system.port), timeout=5) as connection:
        connection.sendall(
            b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
    assert system.get("/health").json() == {"status": "ok"}


def test_unknown_paths_and_methods_are_problems(system: Running) -> None:
    refused(system.get("/api/v1/nothing"), 404)
    refused(system.get("/api/v1/events/not-a-uuid"), 404)
    refused(system.get("/api/v1/events/01a1fc47-52fc-7015-a681-4dd01035c71e"), 404)
    answer = system.http.put(f"{system.url}/api/v1/events", timeout=5)
    refused(answer, 405)
    assert "POST" in answer.headers["Allow"]


def test_each_item_of_a_batch_is_judged_on_its_own(system: Running) -> None:
    items = [
        '{"event_type": "good.1", "payload": {"n": 1.10}}',
        '{"event_type": "bad one"}',
        '{"event_type": "x", "payload": {"a": "\\u0000"}}',
        '{"event_type": "good.2"}',
        "5",
        f'{{"event_type": "x", "payload": {{"a": "{"a" * 256 * 1024}"}}}}',
    ]
    answer = raw(system, '{"events": [' + ",".join(items) + "]}", "/api/v1/events/batch")
    body = answer.json()
    assert answer.status_code == 202, answer.text
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (2, 0, 4)
    assert [item["index"] for item in body["items"]] == [0, 1, 2, 3, 4, 5]
    assert [item["status"] for item in body["items"]] == ["accepted", 422, 422, "accepted", 422, 413]
    assert [item.get("type", "").rpartition("/")[2] for item in body["items"]] == [
        *("", "validation-failed", "validation-failed", "", "validation-failed", "body-too-large")
    ]
    assert "event_type" in body["items"][1]["errors"]
    assert "payload" in body["items"][2]["errors"]
    assert '"payload":{"n": 1.10}' in system.get(f"/api/v1/events/{body['items'][0]['id']}").text


def test_a_batch_as_ndjson(system: Running) -> None:
    lines = '{"event_type": "a"}\n\n{"event_type": "b b"}\r\n{nonsense\n{"event_type": "c"}'
    answer = raw(system, lines, "/api/v1/events/batch", "application/x-ndjson")
    body = answer.json()
    assert (body["accepted"], body["rejected"]) == (2, 2)
    assert [item["status"] for item in body["items"]] == ["accepted", 422, 400, "accepted"]


@pytest.mark.parametrize(
    "body",
    [
        '{"events": []}',
        "{}",
        '{"events": 5}',
        '{"events": [], "more": 1}',
        '{"events": [' + ",".join(['{"event_type":"x"}'] * 1001) + "]}",
    ],
)
def test_a_batch_has_1_to_1000_events(system: Running, body: str) -> None:
    refused(raw(system, body, "/api/v1/events/batch"), 422)


def test_a_batch_that_is_not_json_is_a_400(system: Running) -> None:
    refused(raw(system, '{"events": [', "/api/v1/events/batch"), 400)
    refused(raw(system, b'{"events": ["\xff"]}', "/api/v1/events/batch"), 400)


def test_a_batch_of_more_than_8_mib_is_a_413(system: Running) -> None:
    refused(raw(system, " " * (8 * 1024 * 1024 + 1), "/api/v1/events/batch"), 413)


def test_a_batch_of_a_thousand_is_accepted_whole(system: Running) -> None:
    answer = system.post("/api/v1/events/batch", {"events": [{"event_type": "thousand"} for _ in range(1000)]})
    assert answer.json()["accepted"] == 1000
    assert len({item["id"] for item in answer.json()["items"]}) == 1000


@pytest.mark.parametrize(
    "body",
    [
        {"channel": "email", "recipient": "a@example.com"},
        {"channel": "email", "recipient": "a@example.com", "body": ""},
        {"body": "to nobody"},
        {"channel": "email", "recipient": "a@example.com", "body": "x", "event_type": "x"},
        {"channel": "email", "recipient": "a@example.com", "body": "x", "subject": "s" * 999},
    ],
)
def test_a_wrong_notification_is_refused(system: Running, body: dict[str, Any]) -> None:
    refused(system.post("/api/v1/notifications", body), 422)


def test_lists_go_page_by_page_newest_first(system: Running) -> None:
    made = [system.event(event_type="paged.event", payload={"n": n}) for n in range(7)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"event_type": "paged.event", "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = system.get("/api/v1/events", params=query).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        system.event(event_type="paged.event")  # added meanwhile: must not disturb
    assert seen == made[::-1]


def test_lists_are_filtered(system: Running) -> None:
    before = system.event(event_type="filter.a", recipient="+4915112345679", channel="sms")
    system.event(event_type="filter.b", recipient="+4915112345679", channel="sms")
    created = system.get(f"/api/v1/events/{before}").json()["created_at"]
    found = system.get("/api/v1/events", params={"recipient": "+4915112345679", "event_type": "filter.a"}).json()
    assert [item["id"] for item in found["items"]] == [before]
    after = system.get("/api/v1/events", params={"event_type": "filter.a", "created_after": created}).json()
    assert after["items"] == []
    notifications = system.get("/api/v1/notifications", params={"event_type": "filter.b", "channel": "sms"}).json()
    assert len(notifications["items"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=nonsense",
        "cursor=%00",
        "status=unknown",
        "surprise=1",
        "created_after=2026-01-01",
        "event_type=a%20b",
    ],
)
@pytest.mark.parametrize("path", ["events", "notifications", "dead-letters"])
def test_query_parameters_are_validated_and_nothing_is_clamped(system: Running, path: str, query: str) -> None:
    if path == "dead-letters" and query.startswith("status"):
        query = "channel=fax"
    refused(system.get(f"/api/v1/{path}?{query}"), 422)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("GET", path)
            for path in ("events", "notifications", "dead-letters", "users", "routes", "templates", "holds")
        ),
        ("GET", "subscriptions"),
        ("GET", "suppressions"),
        ("DELETE", "suppressions"),
        ("POST", "events"),
        ("GET", "users/nobody"),
        ("PUT", "users/nobody/preferences"),
    ],
)
def test_a_query_parameter_comes_once(system: Running, method: str, path: str) -> None:
    answer = system.http.request(method, f"{system.url}/api/v1/{path}?limit=1&channel=sms&limit=1", json={}, timeout=20)
    assert refused(answer, 422)["errors"] == {"limit": ["Given more than once."]}


def test_the_description_is_served_and_valid_json(system: Running) -> None:
    description = system.get("/openapi.json").json()
    assert description["openapi"].startswith("3.0")
    assert "/api/v1/events" in description["paths"]
    assert json.dumps(description["paths"]["/api/v1/events"]["post"]["requestBody"])
    attempt = description["components"]["schemas"]["Attempt"]["properties"]
    for name in ("request_headers", "response_headers", "timing"):
        assert (attempt[name]["type"], attempt[name]["nullable"]) == ("object", True)


def test_the_docs_load_nothing_from_elsewhere(system: Running) -> None:
    page = system.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "docs.js", "favicon-32x32.png"):
        assert f"/docs/{name}" in page
        assert system.get(f"/docs/{name}").status_code == 200
    refused(system.get("/docs/../manage.py"), 404)
    refused(system.get("/docs/%2e%2e/%2e%2e/manage.py"), 404)


def test_ready_tells_the_state_of_each_part(system: Running) -> None:
    answer = system.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["sandbox"] is False
    assert {name: check["status"] for name, check in answer.json()["checks"].items()} == dict.fromkeys(
        ("postgres", "migrations", "redis", "workers", "clock"), "ok"
    )
