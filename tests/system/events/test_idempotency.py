"""Idempotency keys: exactly as the contract says, also under concurrency."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from deploy.ports import free_port
from tests.support.running import Running, wait_for


@pytest.fixture
def key() -> str:
    return f"key-{uuid.uuid4()}"


def test_the_same_body_again_gives_the_same_event(system: Running, key: str) -> None:
    body = {"event_type": "order.paid", "payload": {"a": 1, "b": 2}, "idempotency_key": key}
    first = system.post("/api/v1/events", body)
    again = system.post(
        "/api/v1/events", {"idempotency_key": key, "payload": {"b": 2, "a": 1}, "event_type": "order.paid"}
    )
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["duplicate"] is False
    assert "Idempotency-Replayed" not in first.headers
    assert again.json() == {**first.json(), "duplicate": True}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]


def test_another_body_is_refused_and_changes_nothing(system: Running, key: str) -> None:
    system.post("/api/v1/events", {"event_type": "order.paid", "idempotency_key": key})
    other = system.post("/api/v1/events", {"event_type": "order.lost", "idempotency_key": key})
    assert other.status_code == 422
    assert other.headers["content-type"] == "application/problem+json"
    assert "idempotency_key" in other.json()["errors"]
    assert len(system.sql("SELECT 1 FROM events WHERE idempotency_key = :key", key=key)) == 1


def test_the_header_is_the_key_too(system: Running, key: str) -> None:
    header = {"Idempotency-Key": key}
    first = system.post("/api/v1/events", {"event_type": "x"}, headers=header)
    by_body = system.post("/api/v1/events", {"event_type": "x", "idempotency_key": key})
    both = system.post("/api/v1/events", {"event_type": "x", "idempotency_key": key}, headers=header)
    assert by_body.json()["id"] == both.json()["id"] == first.json()["id"]
    differ = system.post("/api/v1/events", {"event_type": "x", "idempotency_key": "other"}, headers=header)
    assert differ.status_code == 422
    assert "idempotency_key" in differ.json()["errors"]


@pytest.mark.parametrize("length", [0, 256])
def test_a_key_has_1_to_255_characters(system: Running, length: int) -> None:
    assert system.post("/api/v1/events", {"event_type": "x", "idempotency_key": "k" * length}).status_code == 422
    assert (
        system.post("/api/v1/events", {"event_type": "x"}, headers={"Idempotency-Key": "k" * length}).status_code == 422
    )


def test_a_request_that_fails_validation_burns_no_key(system: Running, key: str) -> None:
    assert system.post("/api/v1/events", {"event_type": "no spaces", "idempotency_key": key}).status_code == 422
    assert system.post("/api/v1/events", {"event_type": "x", "idempotency_key": key}).json()["duplicate"] is False


def test_a_key_can_be_used_again_when_it_has_expired(system: Running, key: str) -> None:
    first = system.event(idempotency_key=key)
    system.sql("UPDATE idempotency_keys SET expires_at = now() WHERE key = :key", key=key)
    assert system.event(event_type="other.type", idempotency_key=key) != first


def test_events_and_notifications_do_not_share_a_key(system: Running, key: str) -> None:
    system.post("/api/v1/events", {"event_type": "x", "idempotency_key": key})
    body = {"channel": "sms", "recipient": "+4915112345678", "body": "hi", "idempotency_key": key}
    assert system.post("/api/v1/notifications", body).status_code == 422


def test_a_notification_is_made_once(system: Running, key: str) -> None:
    body = {"channel": "sms", "recipient": "+4915112345678", "body": "hi", "idempotency_key": key}
    first, again = system.post("/api/v1/notifications", body), system.post("/api/v1/notifications", body)
    assert [item["id"] for item in first.json()["items"]] == [item["id"] for item in again.json()["items"]]
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_key_twice_in_a_batch_counts_as_one(system: Running, key: str) -> None:
    same = {"event_type": "x", "idempotency_key": key}
    answer = system.post("/api/v1/events/batch", {"events": [same, same, {**same, "payload": {"other": True}}]})
    counted = answer.json()
    assert (counted["accepted"], counted["duplicates"], counted["rejected"]) == (1, 1, 1)
    assert [item["status"] for item in counted["items"]] == ["accepted", "duplicate", 422]
    assert counted["items"][2]["type"] == "/problems/idempotency-key-reused"
    assert counted["items"][0]["id"] == counted["items"][1]["id"]
    assert "idempotency_key" in counted["items"][2]["errors"]


def test_fifty_at_once_across_two_processes_make_one_event(breakable: Running) -> None:
    system = breakable
    port = free_port()
    second = system.add_api(port)
    system.start(only=[second])
    urls = [f"{system.url}/api/v1/events", f"http://127.0.0.1:{port}/api/v1/events"]

    def post(number: int, key: str) -> dict[str, Any]:
        body = {
            "event_type": "race",
            "recipient": "+4915112345651",
            "channel": "sms",
            "idempotency_key": key,
        }
        answer = requests.post(urls[number % 2], json=body, timeout=30)
        assert answer.status_code == 202, answer.text
        parsed: dict[str, Any] = answer.json()
        return parsed

    with ThreadPoolExecutor(50) as pool:
        for attempt in range(5):
            answers = list(pool.map(lambda n, key=f"race-{attempt}": post(n, key), range(50)))
            assert len({answer["id"] for answer in answers}) == 1
            assert sum(not answer["duplicate"] for answer in answers) == 1
    assert system.sql("SELECT count(*) FROM events WHERE event_type = 'race'")[0][0] == 5
    sent = "SELECT count(*) FROM outbox WHERE recipient = '+4915112345651'"
    wait_for(lambda: system.sql(sent)[0][0] == 5)


def test_many_keys_in_any_order_across_two_processes_do_not_deadlock(breakable: Running) -> None:
    system = breakable
    port = free_port()
    system.start(only=[system.add_api(port)])
    keys = [f"shared-{number}" for number in range(200)]

    def post(number: int) -> requests.Response:
        ordered = keys if number % 4 < 2 else keys[::-1]
        url = system.url if number % 2 else f"http://127.0.0.1:{port}"
        events = [{"event_type": "shared", "idempotency_key": key} for key in ordered]
        return requests.post(f"{url}/api/v1/events/batch", json={"events": events}, timeout=60)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(post, range(32)))
    assert {answer.status_code for answer in answers} == {202}
    assert sum(answer.json()["accepted"] for answer in answers) == 200
    assert sum(answer.json()["duplicates"] for answer in answers) == 31 * 200
    assert system.sql("SELECT count(*) FROM events WHERE event_type = 'shared'")[0][0] == 200
