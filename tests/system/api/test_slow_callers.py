"""Callers that are slow, endless or many: they hold nobody up, and cost no more than they are granted."""

import contextlib
import json
import socket
import time

import psutil
import pytest
import requests

from notifier.security import api_keys
from tests.support.raw_http import Raw, event
from tests.support.running import Running, wait_for


def _answers_at_once(api: Running, key: str) -> None:
    """Check that others are served on connections of their own."""
    for method, path, expected in (("GET", "/health", 200), ("GET", "/ready", 200), ("POST", "/api/v1/events", 202)):
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        answer = (
            requests.request(method, api.url + path, data=event(), headers=headers, timeout=10)
            if method == "POST"
            else requests.get(api.url + path, timeout=10)
        )
        assert answer.status_code == expected, answer.text
        assert time.monotonic() - began < 3, f"{method} {path} was held up"


def _rss(api: Running) -> int:
    process = psutil.Process(api.api.pid or 0)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


# --- unfinished bodies


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize(
    "path", ["/api/v1/events", "/api/v1/events/batch", "/nowhere", "/u/x", "/health", "/api/v1/receipts/twilio"]
)
def test_unfinished_bodies_hold_nobody_up(api: Running, key: str, path: str, with_key: bool) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(100):
            raw = stack.enter_context(Raw(api))
            if number % 2:
                raw.post(path, 900, key=key if with_key else None).send(b"{")
            else:
                raw.post(path, None, key=key if with_key else None).send(b"5\r\n{")
        _answers_at_once(api, key)


def test_five_hundred_connections_that_never_finish_hold_nobody_up(api: Running, key: str) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(500):
            raw = stack.enter_context(Raw(api))
            if number % 3 == 0:
                raw.post("/api/v1/events", 100_000, key=key)
            elif number % 3 == 1:
                raw.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow:")
        _answers_at_once(api, key)


@pytest.mark.parametrize(
    ("method", "path", "length", "headers", "scopes", "status"),
    [
        ("POST", "/api/v1/events", 1000, (), None, 401),
        ("POST", "/api/v1/events", None, (), None, 401),
        ("POST", "/api/v1/events", 1000, ("Authorization: Bearer ntf_wrong",), None, 401),
        ("PUT", "/api/v1/users/u_1", 1000, (), ["send"], 403),
        ("POST", "/nowhere", 1000, (), ["send"], 404),
        ("POST", "/nowhere", None, (), None, 404),
        ("PUT", "/api/v1/events", 1000, (), ["send"], 405),
        ("POST", "/api/v1/events", 256 * 1024 + 1, (), ["send"], 413),
        ("POST", "/api/v1/events/batch", 8 * 1024 * 1024 + 1, (), ["send"], 413),
        ("POST", "/api/v1/receipts/twilio", 1024 * 1024 + 1, (), None, 413),
        ("POST", "/u/x", 20_000, (), None, 413),
        ("GET", "/health", 100_000, (), None, 413),
        ("GET", "/api/v1/events", 100_000, (), ["read"], 413),
        ("POST", "/api/v1/events", 1000, ("Content-Type: text/plain",), ["send"], 415),
        ("POST", "/api/v1/events", 256 * 1024 + 1, (), None, 401),
    ],
)
def test_a_head_that_is_refused_is_answered_before_its_body_comes(
    api: Running,
    method: str,
    path: str,
    length: int | None,
    headers: tuple[str, ...],
    scopes: list[str] | None,
    status: int,
) -> None:
    key = api_keys.create(api.engine, f"k-{time.monotonic_ns()}", scopes) if scopes else None
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    more = headers if any("Content-Type" in each for each in headers) else ("Content-Type: application/json", *headers)
    with Raw(api, timeout=2) as raw:
        answered, said, body = raw.head(method, path, framing, *more, key=key).answer(method)
        assert answered == status, body
        assert said["content-type"] == "application/problem+json"
        assert said["x-request-id"]
        # A little that is missing is waited for, so that the connection is of further use.
        assert said.get("connection") == ("close" if status == 413 or length is None else None)
        assert json.loads(body)["status"] == status
        raw.socket.settimeout(4)
        assert raw.ends()


def test_a_key_s_limit_is_answered_before_the_body_comes(api: Running) -> None:
    key = api_keys.create(api.engine, "limited", ["send"], rate=1)

    statuses = []
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(Raw(api, timeout=0.2)).post("/api/v1/events", 1000, key=key) for _ in range(8)]
        for raw in raws:
            with contextlib.suppress(TimeoutError):
                statuses.append(raw.answer()[0])
    # The others wait for their bodies.
    assert set(statuses) == {429}
    # A request that was let through by its head is not counted again with its body.
    wait_for(lambda: _posted_in_two(api, key) == 202, 10)


def _posted_in_two(api: Running, key: str) -> int:
    body = event()
    with Raw(api) as raw:
        raw.post("/api/v1/events", len(body), key=key)
        time.sleep(0.05)
        return raw.send(body).answer()[0]


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/api/v1/events", "/u/x", "/api/v1/receipts/twilio", "/docs"])
@pytest.mark.parametrize("with_key", [True, False])
def test_an_endless_body_is_refused_and_costs_nothing(api: Running, key: str, path: str, with_key: bool) -> None:
    before, piece, sent = _rss(api), b"x" * 65_536, 0
    with Raw(api) as raw:
        raw.post(path, None, key=key if with_key else None)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 64 * 1024 * 1024:
                raw.chunk(piece)
                sent += len(piece)
        assert sent < 32 * 1024 * 1024  # much of it is in the buffers of two sockets
        with contextlib.suppress(ConnectionError):
            assert raw.answer()[0] in {401, 404, 405, 413}
    assert _rss(api) - before < 24 * 1024 * 1024


@pytest.mark.parametrize("around", [b"1;x=" + b"y" * 60_000 + b"\r\nx\r\n", b"0\r\nX: " + b"y" * 200_000])
def test_what_stands_around_a_body_is_bound_too(api: Running, key: str, around: bytes) -> None:
    before, sent = _rss(api), 0
    with Raw(api) as raw:
        raw.post("/api/v1/events", None, key=key)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 64 * 1024 * 1024:
                piece = around if not sent or around.startswith(b"1") else b"y" * 65_536
                raw.send(piece)
                sent += len(piece)
    assert sent < 32 * 1024 * 1024  # much of it is in the buffers of two sockets
    assert _rss(api) - before < 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("path", "limit", "fine"),
    [
        ("/api/v1/events", 256 * 1024, 202),
        ("/api/v1/events/batch", 8 * 1024 * 1024, 422),
        ("/u/x", 16 * 1024, 404),
        ("/api/v1/receipts/nobody", 1024 * 1024, 404),
    ],
)
@pytest.mark.parametrize("is_chunked", [True, False])
def test_each_route_has_its_limit_however_the_body_comes(
    api: Running, key: str, path: str, limit: int, fine: int, is_chunked: bool
) -> None:
    def post(size: int) -> int:
        text = event(payload={"x": ""}) if fine == 202 else b'{"events":[]}'
        body = text.replace(b'""', b'"' + b"x" * (size - len(text)) + b'"') if fine == 202 else text.ljust(size)
        with Raw(api, timeout=15) as raw:
            raw.post(path, None if is_chunked else size, key=key)
            with contextlib.suppress(ConnectionError):
                for at in range(0, size, 50_000):
                    piece = body[at : at + 50_000]
                    raw.chunk(piece) if is_chunked else raw.send(piece)
                raw.send(b"0\r\n\r\n" if is_chunked else b"")
            return raw.answer()[0]

    assert post(limit) == fine
    assert post(limit + 1) == 413


def test_a_bodiless_post_may_have_an_empty_body(api: Running) -> None:
    key = api_keys.create(api.engine, "canceller", ["send"])
    path = "/api/v1/notifications/01a1fc47-52fc-7015-a681-4dd01035c71e/cancel"
    for body in (b"", b"{}"):
        with Raw(api) as raw:
            assert raw.post(path, len(body), key=key).send(body).answer()[0] == 404
    with Raw(api) as raw:
        assert raw.post(path, 5000, key=key).answer()[0] == 413


# --- time


def test_a_body_that_drips_is_cut_off(api: Running, key: str) -> None:
    began = time.monotonic()
    with Raw(api) as raw:
        raw.post("/api/v1/events", 5000, key=key)
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                raw.send(b"{")
                time.sleep(0.05)
        status, headers, body = raw.answer()
        assert status == 408, body
        assert 1 < time.monotonic() - began < 6
        assert json.loads(body)["type"] == "/problems/timed-out"
        assert headers["connection"] == "close"
        assert headers["x-request-id"]
        assert raw.ends()


def test_a_body_that_never_ends_is_cut_off_however_fast_it_comes(api: Running, key: str) -> None:
    began, status = time.monotonic(), 0
    with Raw(api, timeout=0.2) as raw:
        raw.post("/api/v1/events/batch", 8_000_000, key=key)
        while not status and time.monotonic() - began < 12:
            with contextlib.suppress(ConnectionError):
                raw.send(b" " * 1000)
            with contextlib.suppress(TimeoutError):
                status = raw.answer()[0]
    assert status == 408
    assert 4.5 < time.monotonic() - began < 9


def test_a_body_may_come_in_pieces(api: Running, key: str) -> None:
    body = event(payload={"text": "x" * 4000})
    with Raw(api) as raw:
        raw.post("/api/v1/events", len(body), key=key)
        for at in range(0, len(body), 1000):
            raw.send(body[at : at + 1000])
            time.sleep(0.1)
        assert raw.answer()[0] == 202
        # And the connection goes on.
        assert raw.head("GET", "/health").answer("GET")[0] == 200


def test_a_head_that_drips_is_cut_off(api: Running) -> None:
    began = time.monotonic()
    with Raw(api) as raw:
        raw.send(b"GET /health HTTP/1.1\r\nX-Slow: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                raw.send(b"x")
                time.sleep(0.05)
        assert raw.answer("GET")[0] == 408
    assert 1.5 < time.monotonic() - began < 5


@pytest.mark.parametrize("asked", [0, 1])
def test_an_idle_connection_is_closed(api: Running, asked: int) -> None:
    with Raw(api) as raw:
        for _ in range(asked):
            assert raw.head("GET", "/health").answer("GET")[0] == 200
        began = time.monotonic()
        assert raw.ends()
        assert 1 < time.monotonic() - began < 6


# --- numbers


def test_one_address_has_so_many_connections(api: Running, key: str) -> None:
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(Raw(api, source="127.0.0.2")) for _ in range(20)]
        wait_for(lambda: _health(api, "127.0.0.2") == 429, 2)
        _answers_at_once(api, key)
        open_ones[0].socket.close()
        wait_for(lambda: _health(api, "127.0.0.2") == 200, 2)


def _health(api: Running, source: str) -> int:
    with Raw(api, source=source) as raw:
        try:
            return raw.head("GET", "/health").answer("GET")[0]
        except ConnectionError:
            return 429


def test_all_bodies_together_have_so_much_memory(api: Running, key: str) -> None:
    before = _rss(api)
    piece = b" " * 1_000_000
    statuses: list[int] = []
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(Raw(api)) for _ in range(60)]
        for raw in raws:
            raw.post("/api/v1/events/batch", 8_000_000, key=key)
            with contextlib.suppress(ConnectionError):
                raw.send(piece)
        assert _rss(api) - before < 60 * 1024 * 1024
        _answers_at_once(api, key)
        for raw in raws:
            raw.socket.settimeout(0.05)
            with contextlib.suppress(TimeoutError, ConnectionError):
                status, headers, _ = raw.answer()
                statuses.append(status)
                assert status == 408 or headers["retry-after"]
    assert 503 in statuses
    # It is given back.
    wait_for(lambda: _whole_batch(api, key) == 202, 8)


def _whole_batch(api: Running, key: str) -> int:
    body = b'{"events":[{"event_type":"x"}]}'.ljust(2_000_000)
    return requests.post(
        f"{api.url}/api/v1/events/batch",
        data=body,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        timeout=10,
    ).status_code


def test_who_does_not_read_answers_holds_nobody_up_and_costs_little(api: Running, key: str) -> None:
    before = _rss(api)
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(Raw(api)) for _ in range(240)]
        for raw in raws:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.send(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        for raw in raws:
            assert raw.socket.recv(1), "it is answered"
        _answers_at_once(api, key)
        # Of 400 MB that nobody reads 64 MiB may wait, and each of 64 threads may have an answer in hand.
        assert _rss(api) - before < 200 * 1024 * 1024
