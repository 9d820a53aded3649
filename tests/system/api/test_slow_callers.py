"""Callers that are slow, endless or many: they hold nobody up, and cost no more than they are granted."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from io import BufferedReader
from typing import Any, Self

import psutil
import pytest
import requests

from deploy.ports import free_port
from notifier.security import api_keys
from tests.support.running import Running, wait_for

#: Quick to watch.
SETTINGS = {
    "NOTIFIER_AUTH": "required",
    "NOTIFIER_HEAD_TIMEOUT": "2",
    "NOTIFIER_BODY_TIMEOUT": "5",
    "NOTIFIER_IDLE_TIMEOUT": "3",
    "NOTIFIER_BODY_MEMORY": str(16 * 1024 * 1024),
    "NOTIFIER_CONNECTIONS_PER_ADDRESS": "20",
}


@pytest.fixture(scope="module")
def api(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API that asks for keys; nothing else runs."""
    system = new_system(**SETTINGS)
    system.start(only=[system.api])
    yield system
    system.stop()


@pytest.fixture(scope="module")
def key(api: Running) -> str:
    """A key for everything but administration, which the API has seen."""
    key = api_keys.create(api.engine, "caller", ["send", "read"])
    assert api.get("/api/v1/events", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    return key


class _File(BufferedReader):
    """What one connection says, read on by one answer after the other."""

    def close(self) -> None:
        """Stay open: HTTPResponse closes what it has read from."""

    def makefile(self, _: str) -> Self:
        """Return itself, as a socket would a file."""
        return self


class Raw:
    """A connection on which a test says what it likes."""

    def __init__(self, api: Running, *, source: str = "127.0.0.1", timeout: float = 8) -> None:
        self.socket = socket.create_connection(("127.0.0.1", api.port), timeout, source_address=(source, 0))
        self._file: _File | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_file()
        self.socket.close()

    def _forget_file(self) -> None:
        if self._file is not None:
            self._file.raw.close()
        self._file = None

    def head(self, method: str, path: str, *headers: str, key: str | None = None) -> Self:
        """Send a head."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        if key:
            lines.append(f"Authorization: Bearer {key}")
        return self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    def post(self, path: str, length: int | None, *headers: str, key: str | None = None) -> Self:
        """Send the head of a POST of JSON; in chunks where there is no length."""
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        return self.head("POST", path, "Content-Type: application/json", framing, *headers, key=key)

    def send(self, data: bytes) -> Self:
        """Send some bytes."""
        self.socket.sendall(data)
        return self

    def chunk(self, data: bytes) -> Self:
        """Send a chunk."""
        return self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def answer(self, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        """Read one answer."""
        self._file = self._file or _File(self.socket.makefile("rb", buffering=0))
        response = HTTPResponse(self._file, method=method)  # type: ignore[arg-type]  # a file where a socket is declared
        try:
            response.begin()
            body = response.read()
        except TimeoutError:
            self._forget_file()
            raise
        return response.status, {name.lower(): value for name, value in response.getheaders()}, body

    def ends(self) -> bool:
        """Whether the other side has closed the connection, once it says something."""
        try:
            return (self._file.read(1) if self._file else self.socket.recv(1)) == b""
        except ConnectionError:
            return True


def _event(**more: Any) -> bytes:
    return json.dumps({"event_type": "x", **more}).encode()


def _answers_at_once(api: Running, key: str) -> None:
    """Check that others are served on connections of their own."""
    for method, path, expected in (("GET", "/health", 200), ("GET", "/ready", 200), ("POST", "/api/v1/events", 202)):
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        answer = (
            requests.request(method, api.url + path, data=_event(), headers=headers, timeout=10)
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
    # What was let through by its head is not counted again with its body.
    wait_for(lambda: _posted_in_two(api, key) == 202, 10)


def _posted_in_two(api: Running, key: str) -> int:
    body = _event()
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
        text = _event(payload={"x": ""}) if fine == 202 else b'{"events":[]}'
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
    body = _event(payload={"text": "x" * 4000})
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
        for _ in range(120):
            raw = stack.enter_context(Raw(api))
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.send(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        wait_for(lambda: raw.socket.recv(1), 10, "the last of them to be answered")
        _answers_at_once(api, key)
        assert _rss(api) - before < 120 * 1024 * 1024


# --- HTTP


@pytest.mark.parametrize("key_is_good", [True, False])
def test_who_asks_whether_to_go_on_is_told(api: Running, key: str, key_is_good: bool) -> None:
    body = _event()
    with Raw(api) as raw:
        raw.post("/api/v1/events", len(body), "Expect: 100-continue", key=key if key_is_good else None)
        first = raw.socket.recv(25)
        if key_is_good:
            assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert raw.send(body).answer()[0] == 202
        else:
            assert first.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /health HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_or_might_be_two_is_refused(api: Running, request_: bytes, status: int) -> None:
    with Raw(api) as raw:
        answered, headers, body = raw.send(request_).answer()
        assert answered == status, body
        assert headers["content-type"] == "application/problem+json"
        assert headers["connection"] == "close"
        assert raw.ends()


@pytest.mark.parametrize("key_is_good", [True, False])
@pytest.mark.parametrize("length", [9, 100, 200_000, None])
def test_a_body_that_ends_before_its_length_is_a_400_and_no_event(
    api: Running, key: str, length: int | None, key_is_good: bool
) -> None:
    count = "SELECT count(*) FROM events"
    before = api.sql(count)
    body = _event() + b" " * 80_000 if length == 200_000 else _event()[: (length or 100) - 1]
    with Raw(api) as raw:
        raw.post("/api/v1/events", length, key=key if key_is_good else None)
        if length is None:
            raw.chunk(body)
        else:
            raw.send(body)
        raw.socket.shutdown(socket.SHUT_WR)
        status, headers, problem = raw.answer()
        assert status == (400 if key_is_good else 401), problem
        assert headers["content-type"] == "application/problem+json"
        assert raw.ends()
    assert api.sql(count) == before


def test_a_body_that_ends_early_behind_other_requests_is_a_400_after_their_answers(api: Running, key: str) -> None:
    posted = _event()
    with Raw(api) as raw:
        for _ in range(3):
            raw.post("/api/v1/events", len(posted), key=key).send(posted)
        raw.post("/api/v1/events", len(posted) + 1, key=key).send(posted)
        raw.socket.shutdown(socket.SHUT_WR)
        assert [raw.answer()[0] for _ in range(4)] == [202, 202, 202, 400]
        assert raw.ends()


def test_requests_are_answered_in_their_order_on_one_connection(api: Running, key: str) -> None:
    posted = _event()
    with Raw(api) as raw:
        for _ in range(30):
            raw.post("/api/v1/events", len(posted), key=key).send(posted)
            raw.head("HEAD", "/health").head("GET", "/nowhere")
            raw.post("/api/v1/events", None, key=key).chunk(posted).send(b"0\r\n\r\n")
        for _ in range(30):
            assert raw.answer()[0] == 202
            status, headers, body = raw.answer("HEAD")
            assert (status, headers["content-length"], body) == (200, "16", b"")
            assert raw.answer("GET")[0] == 404
            assert raw.answer()[0] == 202


def test_a_connection_goes_on_after_an_error_with_a_small_body(api: Running) -> None:
    with Raw(api) as raw:
        for _ in range(3):
            status, headers, _ = raw.send(
                b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
            ).answer()
            assert (status, headers.get("connection")) == (401, None)


@pytest.mark.parametrize("head", [b"BREW /health", b"brew /health", b"M-SEARCH2 /health"])
def test_a_method_that_nobody_knows_is_not_allowed(api: Running, head: bytes) -> None:
    with Raw(api) as raw:
        for _ in range(2):
            raw.send(head + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            status, headers, _ = raw.answer("BREW")
            assert (status, headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert raw.head("GET", "/health").answer("GET")[0] == 200


def test_older_clients_are_answered_as_they_ask(api: Running) -> None:
    with Raw(api) as raw:
        status, headers, _ = raw.send(b"GET /health HTTP/1.0\r\n\r\n").answer("GET")
        assert (status, headers["connection"]) == (200, "close")
        assert raw.ends()
    with Raw(api) as raw:
        for _ in range(2):
            raw.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, headers, _ = raw.answer("GET")
            assert (status, headers["connection"]) == (200, "keep-alive")
    with Raw(api) as raw:
        raw.head("GET", "/health", "Connection: Upgrade", "Upgrade: h2c")
        assert raw.answer("GET")[0] == 200
    with Raw(api) as raw:
        raw.send(b"GET http://elsewhere/health?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answer("GET")[0] == 200


def test_who_has_said_all_may_close_that_side(api: Running) -> None:
    with Raw(api) as raw:
        raw.head("GET", "/ready")
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.answer("GET")[0] == 200
        assert raw.ends()


# --- the process


def test_what_is_under_way_is_finished_when_the_api_ends(api: Running, key: str) -> None:
    child = api.add_api(port := free_port())
    api.start(only=[child])
    body = _event()
    with socket.create_connection(("127.0.0.1", port), 10) as slow, socket.create_connection(("127.0.0.1", port)):
        head = "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Authorization: Bearer {key}\r\n".encode())
        slow.sendall(f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert slow.recv(25).startswith(b"HTTP/1.1 100 ")
        os.kill(child.pid or 0, signal.SIGTERM)
        wait_for(lambda: _refuses(port), 5, "no more connections")
        slow.sendall(body)
        response = HTTPResponse(slow)
        response.begin()
        assert response.status == 202
        assert response.getheader("Connection") == "close"
        assert response.read()
    wait_for(lambda: not child.alive(), 5, "the API to end")
    assert child.exit_code == 0
    api.children.remove(child)


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def test_a_process_that_is_lost_is_started_again(api: Running) -> None:
    port = free_port()
    child = api.add("api-two", "api", "--port", str(port), "--processes", "2")
    child.launch()
    try:

        def served() -> set[int]:
            with contextlib.suppress(requests.RequestException):
                requests.get(f"http://127.0.0.1:{port}/health", timeout=2).raise_for_status()
                return {each.pid for each in psutil.Process(child.pid or 0).children()}
            return set()

        first = wait_for(lambda: len(found := served()) == 2 and found, 30, "two processes")
        lost = min(first)
        os.kill(lost, signal.SIGKILL)
        wait_for(lambda: len(found := served()) == 2 and lost not in found, 30, "another in its place")
        # They end with the one that watches them, however it ends.
        os.kill(child.pid or 0, signal.SIGKILL)
        wait_for(lambda: _refuses(port), 15, "all of them to end")
    finally:
        child.stop()
        api.children.remove(child)
