"""HTTP/1.1 as the server reads it: what is ambiguous is refused, and what is under way is finished."""

import contextlib
import os
import signal
import socket
from http.client import HTTPResponse

import psutil
import pytest
import requests

from deploy.ports import free_port
from tests.support.raw_http import Raw, event
from tests.support.running import Running, wait_for

# --- HTTP


@pytest.mark.parametrize("key_is_good", [True, False])
def test_who_asks_whether_to_go_on_is_told(api: Running, key: str, key_is_good: bool) -> None:
    body = event()
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
    body = event() + b" " * 80_000 if length == 200_000 else event()[: (length or 100) - 1]
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
    posted = event()
    with Raw(api) as raw:
        for _ in range(3):
            raw.post("/api/v1/events", len(posted), key=key).send(posted)
        raw.post("/api/v1/events", len(posted) + 1, key=key).send(posted)
        raw.socket.shutdown(socket.SHUT_WR)
        assert [raw.answer()[0] for _ in range(4)] == [202, 202, 202, 400]
        assert raw.ends()


def test_requests_are_answered_in_their_order_on_one_connection(api: Running, key: str) -> None:
    posted = event()
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
    body = event()
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
