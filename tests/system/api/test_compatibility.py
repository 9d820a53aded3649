"""Front doors in the words of other systems: the same answers, idempotency and refusals as the API's own."""

from typing import Any
from uuid import uuid4

import pytest

from tests.support.intake import raw, refused
from tests.support.running import Running

EVENT_DOORS = ("/events", "/api/v1/events")
SEND = {"channel": "email", "recipient": "ada@example.com", "subject": "Hello", "body": "There."}


@pytest.fixture(scope="module")
def template(system: Running) -> str:
    body = {"channel": "email", "subject": "Dear {{ data.name }}", "text": "{{ data.name }}"}
    assert system.http.put(f"{system.url}/api/v1/templates/front-door", json=body, timeout=20).ok
    user = {"email": "door@example.com", "phone": "+4915112345170", "push_tokens": ["door-1"]}
    assert system.http.put(f"{system.url}/api/v1/users/u_door", json=user, timeout=20).ok
    return "front-door"


@pytest.mark.parametrize("door", EVENT_DOORS)
@pytest.mark.parametrize("names", [["type"], ["event_type"], ["type", "event_type"]])
def test_an_event_has_its_type_under_either_name(system: Running, door: str, names: list[str]) -> None:
    answer = system.post(door, {**dict.fromkeys(names, "door.x"), "payload": {"n": 1}})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["event_type"], body["status"], body["duplicate"]) == ("door.x", "accepted", False)
    assert answer.headers["Location"] == f"/api/v1/events/{body['id']}"
    event = system.get(answer.headers["Location"]).json()
    assert (event["event_type"], event["payload"]) == ("door.x", {"n": 1})


@pytest.mark.parametrize("door", EVENT_DOORS)
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": "a", "event_type": "b"}, "type"),
        ({"type": "a", "event_type": None}, "type"),
        ({"type": None, "event_type": "a"}, "type"),
        ({"type": "a b"}, "type"),
        ({"type": 5}, "type"),
        ({"type": None}, "type"),
        ({"type": "notifier.x"}, "type"),
        ({"event_type": "a b"}, "event_type"),
        ({}, "event_type"),
        ({"type": "a", "surprise": 1}, "surprise"),
    ],
)
def test_what_is_wrong_with_a_type_stands_under_the_name_it_came_by(
    system: Running, door: str, fields: dict[str, Any], field: str
) -> None:
    assert list(refused(system.post(door, fields), 422)["errors"]) == [field]


def test_items_of_a_batch_have_their_types_under_either_name(system: Running) -> None:
    items = [{"type": "door.a"}, {"event_type": "door.b"}, {"type": "door.a", "event_type": "door.b"}, {"type": "a b"}]
    body = system.post("/api/v1/events/batch", {"events": items}).json()
    assert (body["accepted"], body["rejected"]) == (2, 2)
    assert [list(item["errors"]) for item in body["items"][2:]] == [["type"], ["type"]]


def test_one_key_makes_one_event_by_whichever_door(system: Running) -> None:
    key = str(uuid4())
    first = system.post("/api/v1/events", {"event_type": "door.key", "idempotency_key": key})
    for door in EVENT_DOORS:
        again = system.post(door, {"type": "door.key"}, headers={"Idempotency-Key": key})
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert (again.json()["duplicate"], again.headers["Idempotency-Replayed"]) == (True, "true")
        other = system.post(door, {"type": "door.other", "idempotency_key": key})
        assert "idempotency_key" in refused(other, 422)["errors"]


def test_send_notification_is_the_apis_own(system: Running) -> None:
    key = str(uuid4())
    first = system.post("/send-notification", {**SEND, "idempotency_key": key})
    assert first.status_code == 202, first.text
    [made] = first.json()["items"]
    assert (made["recipient"], made["channel"], made["event_id"]) == ("ada@example.com", "email", None)
    again = system.post("/api/v1/notifications", SEND, headers={"Idempotency-Key": key})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["items"][0]["id"] == made["id"]
    empty = system.post("/send-notification", {"channel": "email", "recipient": "ada@example.com"})
    assert "body" in refused(empty, 422)["errors"]


def test_notify_sends_a_template_to_a_user(system: Running, template: str) -> None:
    key = str(uuid4())
    body = {"userId": "u_door", "type": "EMAIL", "template": template, "data": {"name": "Ada"}}
    answer = system.post("/notify", body, headers={"Idempotency-Key": key})
    assert answer.status_code == 202, answer.text
    [made] = answer.json()["items"]
    assert (made["user_id"], made["channel"], made["recipient"]) == ("u_door", "email", "door@example.com")
    assert made["template"] == {"name": template, "version": 1}
    again = system.post("/notify", {**body, "idempotencyKey": key})
    assert (again.json()["items"][0]["id"], again.headers["Idempotency-Replayed"]) == (made["id"], "true")
    ours = {"user_id": "u_door", "channel": "email", "template": template, "data": {"name": "Ada"}}
    assert system.post("/api/v1/notifications", {**ours, "idempotency_key": key}).json()["items"][0]["id"] == made["id"]
    other = system.post("/notify", {**body, "data": {"name": "Eve"}, "idempotencyKey": key})
    assert list(refused(other, 422)["errors"]) == ["idempotencyKey"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"userId": None}, "userId"),
        ({"userId": "a/b"}, "userId"),
        ({"type": "email"}, "type"),
        ({"type": "FAX"}, "type"),
        ({"type": ["EMAIL"]}, "type"),
        ({"type": "SMS"}, "template"),
        ({"template": "nowhere"}, "template"),
        ({"data": []}, "data"),
        ({"user_id": "u_door"}, "user_id"),
        ({"channel": "sms"}, "channel"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"idempotency_key": "x"}, "idempotency_key"),
    ],
)
def test_what_is_wrong_with_notify_is_told_in_its_own_words(
    system: Running, template: str, changes: dict[str, Any], field: str
) -> None:
    body = {"userId": "u_door", "type": "EMAIL", "template": template, "data": {"name": "Ada"}}
    assert list(refused(system.post("/notify", {**body, **changes}), 422)["errors"]) == [field]


@pytest.mark.parametrize("door", ["/events", "/send-notification", "/notify"])
def test_limits_and_forms_are_the_same_by_every_door(system: Running, door: str) -> None:
    refused(raw(system, "{", door), 400)
    refused(raw(system, "{}", door, "text/plain"), 415)
    refused(raw(system, "[]", door), 422)
    refused(raw(system, b'{"data": "' + b"x" * (8 * 1024 * 1024) + b'"}', door), 413)
    described = system.get("/openapi.json").json()["paths"][door]["post"]
    assert described["x-required-scope"] == "send"
    assert described["requestBody"]["content"]["application/json"]["schema"]
