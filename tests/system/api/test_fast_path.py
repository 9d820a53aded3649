"""The fast path of an event: without a thread and Flask, and with the same answers as theirs."""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import requests
from sqlalchemy import text

from deploy.ports import free_port
from notifier.security import api_keys
from notifier.security.permits import Permit
from tests.support.raw_http import SETTINGS, Raw
from tests.support.running import Running, wait_for

PATH: Final = "/api/v1/events"
#: More than is read on the loop: with so much space around it, a body goes to Flask.
PADDING: Final = 20_000


@pytest.fixture(scope="module")
def one_thread(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API with a single thread for all that goes to Flask."""
    system = new_system(**SETTINGS)
    system.port = free_port()
    system.start(only=[system.add_api(system.port, "--threads", "1")])
    yield system
    system.stop()


def _posted(api: Running, body: str | bytes, key: str, *, path: str = PATH, **headers: str) -> requests.Response:
    raw = body if isinstance(body, bytes) else body.encode()
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", **headers}
    return requests.post(f"http://127.0.0.1:{api.port}{path}", data=raw, headers=head, timeout=20)


def _event(**more: Any) -> dict[str, Any]:
    return {"event_type": "fast.tried", "recipient": "https://example.org/x", "channel": "webhook", **more}


def _shape(answer: requests.Response) -> tuple[Any, ...]:
    """Return what two answers to the same request have in common."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"Date", "X-Request-Id"}}
    headers.pop("Content-Length")
    body = answer.json()
    for name in ("id", "created_at", "request_id", "instance"):
        body.pop(name, None)
    if "Location" in headers:
        assert headers.pop("Location") == f"{PATH}/{answer.json()['id']}"
    assert answer.headers["X-Request-Id"]
    return answer.status_code, headers, body


REQUESTS: Final[dict[str, tuple[Any, dict[str, str]]]] = {
    "plain": (_event(payload={"n": 1}), {}),
    "for a user": ({"event_type": "fast.user", "user_id": "u1", "channel": "email"}, {}),
    "of its type alone": ({"event_type": "fast.type"}, {}),
    "with another word for its type": ({"type": "fast.type", "payload": {}}, {}),
    "key in the body": (_event(idempotency_key="KEY"), {}),
    "key in a header": (_event(), {"Idempotency-Key": "KEY"}),
    "key in both": (_event(idempotency_key="KEY"), {"Idempotency-Key": "KEY"}),
    "two keys": (_event(idempotency_key="KEY"), {"Idempotency-Key": "other"}),
    "empty key": (_event(), {"Idempotency-Key": ""}),
    "charset": (_event(), {"Content-Type": "application/json; charset=utf-8"}),
    "no JSON type": (_event(), {"Content-Type": "text/plain"}),
    "request id": (_event(), {"X-Request-Id": "of-the-caller"}),
    "bad request id": (_event(), {"X-Request-Id": "a b"}),
    "trace": (_event(), {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}),
    "credentials": (_event(recipient="https://user:secret@example.org/x"), {}),
    "template": (_event(channel="email", recipient="a@example.org", template="unknown"), {}),
    "later": (_event(send_at="2099-01-01T00:00:00Z"), {}),
    "unknown member": (_event(colour="red"), {}),
    "bad type": ({"event_type": "a b"}, {}),
    "our type": ({"event_type": "notification.sent"}, {}),
    "no type": ({}, {}),
    "bad address": (_event(recipient="nowhere"), {}),
    "no object": ([], {}),
    "critical": (_event(critical=True), {}),
    "deep": (_event(payload=json.loads('{"a":' * 33 + "1" + "}" * 33)), {}),
    "number": (_event(payload={"a": 2**64}), {}),
    "another site": (_event(), {"Origin": "https://example.com", "Sec-Fetch-Site": "cross-site"}),
}


@pytest.mark.parametrize("path", [PATH, "/events"])
@pytest.mark.parametrize("case", REQUESTS)
def test_both_ways_give_the_same_answer(api: Running, key: str, case: str, path: str) -> None:
    document, headers = REQUESTS[case]
    ways = []
    for padding in ("", " " * PADDING):
        own = uuid.uuid4().hex
        body = json.dumps(document).replace("KEY", own) + padding
        named = {name: value.replace("KEY", own) for name, value in headers.items()}
        first, again = (_posted(api, body, key, path=path, **named) for _ in range(2))
        ways.append((_shape(first), _shape(again)))
    assert ways[0] == ways[1]


@pytest.mark.parametrize(
    "body",
    [
        *(b"{]", b"7", b'{"event_type": "a", "event_type": "b"}', b'{"event_type": "a", "payload": {"a": 1, "a": 2}}'),
        *(b'{"event_type": "\xff"}', b'{"event_type": "a", "payload": {"a": NaN}}', b'{"event_type": "a\\u0000"}'),
    ],
)
def test_what_is_no_good_json_is_refused_alike(api: Running, key: str, body: bytes) -> None:
    answers = [_posted(api, raw, key) for raw in (body, body + b" " * PADDING)]
    assert _shape(answers[0]) == _shape(answers[1])
    assert answers[0].status_code in {400, 422}


def test_another_body_with_a_key_is_refused_alike(api: Running, key: str) -> None:
    own = uuid.uuid4().hex
    assert _posted(api, json.dumps(_event(idempotency_key=own)), key).status_code == 202
    other = json.dumps(_event(idempotency_key=own, payload={"other": True}))
    answers = [_posted(api, raw, key, **{"X-Request-Id": "r-1"}) for raw in (other, other + " " * PADDING)]
    assert _shape(answers[0]) == _shape(answers[1])
    assert answers[0].status_code == 422
    assert {each.headers["X-Request-Id"] for each in answers} == {"r-1"}


def test_what_a_key_may_not_do_is_refused_alike(api: Running) -> None:
    bound = api_keys.create(api.engine, "bound", ["send"], permit=Permit(channels=frozenset({"email"})))
    reader = api_keys.create(api.engine, "reader", ["read"])
    for name in (bound, reader, "ntf_" + "x" * 43, "no key"):
        answers = [_posted(api, json.dumps(_event()) + padding, name) for padding in ("", "", " " * PADDING)]
        assert len({str(_shape(each)) for each in answers}) == 1
        assert answers[0].status_code in {401, 403}


def test_both_ways_write_the_same_rows(api: Running, key: str) -> None:
    document = _event(payload={"n": 1}, user_id="u1", category="news", priority="high", cancellation_key="c")
    rows = []
    for padding in ("", " " * PADDING):
        headers = {"X-Request-Id": "rows", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
        event_id = _posted(api, json.dumps(document) + padding, key, **headers).json()["id"]
        with api.engine.connect() as connection:
            found = [
                connection.execute(text(f"SELECT * FROM {table} WHERE {column} = :id"), {"id": event_id})
                .mappings()
                .one()
                for table, column in (("events", "id"), ("notifications", "event_id"))
            ]
        times = ("id", "origin_id", "event_id", "created_at", "due_at", "day")
        rows.append([{name: value for name, value in row.items() if name not in times} for row in found])
    assert rows[0] == rows[1]


def test_both_ways_write_the_same_line(api: Running, key: str) -> None:
    lines = []
    for padding in ("", " " * PADDING):
        request_id = uuid.uuid4().hex
        assert _posted(api, json.dumps(_event()) + padding, key, **{"X-Request-Id": request_id}).status_code == 202
        line = wait_for(lambda: next((each for each in api.api.output().splitlines() if request_id in each), None))  # noqa: B023 -- waited for here
        lines.append(sorted(word.partition("=")[0] for word in line.split() if "=" in word))
    assert lines[0] == lines[1]


def test_a_plain_event_needs_no_thread(one_thread: Running) -> None:
    key = api_keys.create(one_thread.engine, "caller", ["send", "read"])
    assert _posted(one_thread, json.dumps(_event()), key).status_code == 202  # the key is known by now
    with one_thread.engine.connect() as connection:
        connection.execute(text("LOCK TABLE templates IN ACCESS EXCLUSIVE MODE"))
        held = threading.Thread(
            target=_posted,
            args=(one_thread, json.dumps(_event(channel="email", recipient="a@b.de", template="t")), key),
        )
        held.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_for(lambda: one_thread.sql(waiting)[0][0], what="the thread to wait")
        for _ in range(20):
            assert _posted(one_thread, json.dumps(_event()), key).status_code == 202
        assert held.is_alive()
        connection.rollback()
    held.join()


@pytest.mark.parametrize("padding", ["", " " * PADDING])
def test_while_postgres_hangs_callers_are_told_in_time(api: Running, key: str, padding: str) -> None:
    with api.engine.connect() as connection:
        connection.execute(text("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE"))
        began = time.monotonic()
        answers: list[requests.Response] = []
        callers = [
            threading.Thread(
                target=lambda: answers.append(
                    _posted(api, json.dumps(_event(idempotency_key=uuid.uuid4().hex)) + padding, key)
                )
            )
            for _ in range(4)
        ]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        assert time.monotonic() - began < 10
        connection.rollback()
    assert {each.status_code for each in answers} == {503}
    assert {each.headers["Retry-After"] for each in answers}
    assert {each.headers["Content-Type"] for each in answers} == {"application/problem+json"}
    wait_for(lambda: _posted(api, json.dumps(_event()), key).status_code == 202)


def test_requests_that_follow_on_one_connection_are_answered_in_order(api: Running, key: str) -> None:
    ids = [uuid.uuid4().hex for _ in range(40)]
    with Raw(api) as raw:
        for number, each in enumerate(ids):
            body = json.dumps(_event(payload={"n": number})).encode()
            padded = body + b" " * (PADDING if number % 7 == 0 else 0)
            raw.post(PATH, len(padded), f"X-Request-Id: {each}", key=key).send(padded)
        answers = [raw.answer() for _ in ids]
    assert [status for status, _, _ in answers] == [202] * len(ids)
    assert [headers["x-request-id"] for _, headers, _ in answers] == ids


def test_an_event_whose_caller_left_is_accepted_all_the_same(api: Running, key: str) -> None:
    own = uuid.uuid4().hex
    with api.engine.connect() as connection:
        connection.execute(text("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE"))
        with Raw(api) as raw:
            body = json.dumps(_event(idempotency_key=own)).encode()
            raw.post(PATH, len(body), key=key).send(body)
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            wait_for(lambda: api.sql(waiting)[0][0], what="the writer to wait")
        connection.rollback()
    wait_for(lambda: _posted(api, json.dumps(_event(idempotency_key=own)), key).json()["duplicate"])


@pytest.mark.parametrize(
    "host", ["a..b", "a" * 64 + ".example", "localhost:99999999", "localhost", "[::1]:80", "127.0.0.1:8000"]
)
def test_a_host_is_judged_alike(api: Running, key: str, host: str) -> None:
    body = json.dumps(_event())
    answers = [_posted(api, raw, key, Host=host) for raw in (body, body + " " * PADDING)]
    assert answers[0].status_code == answers[1].status_code


def test_a_refusal_is_logged_with_the_whole_wait(api: Running, key: str) -> None:
    with api.engine.connect() as connection:
        connection.execute(text("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE"))
        request_id = uuid.uuid4().hex
        began = time.monotonic()
        body = json.dumps(_event(idempotency_key=request_id))
        assert _posted(api, body, key, **{"X-Request-Id": request_id}).status_code == 503
        waited = time.monotonic() - began
        connection.rollback()
    found = wait_for(
        lambda: re.search(rf"request .*ms=([0-9.]+).*{request_id}|{request_id}.*ms=([0-9.]+)", api.api.output())
    )
    assert float(found[1] or found[2]) / 1000 > waited - 0.5


def test_names_that_stand_twice_a_thousand_times_hold_nobody_up(api: Running, key: str) -> None:
    doubled = '{"":0,"":0},' * 400
    body = '{"event_type": "a", "payload": {"a": ' + "[" * 900 + doubled + "0" + "]" * 900 + "}}"
    began = time.monotonic()
    assert {_posted(api, body, key).status_code for _ in range(20)} == {422}
    assert time.monotonic() - began < 10
