"""FaultyApi: an HTTP server between a client and an API, which answers, delays and cuts as a test says."""

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import requests

#: Headers that concern one connection alone.
_OF_THE_CONNECTION = {
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "accept-encoding",
    "content-encoding",
}


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        """Its idempotency key."""
        return self.headers.get("idempotency-key")

    @property
    def json(self) -> Any:
        """Its body, parsed."""
        return json.loads(self.body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):  # the client, or a step, has closed it
            self.close_connection = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.server.api.step_for(asked)(self, asked)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: "FaultyApi"


Step = Callable[[_Handler, Asked], None]


def answer(status: int, document: Any = None, **headers: str) -> Step:
    """Answer with a status, a problem unless a document is given, and headers, written `Retry_After="1"`."""
    problem = {"type": "/problems/test", "title": "A test", "status": status, "detail": "As the test says."}

    def step(handler: _Handler, asked: Asked) -> None:
        del asked
        body = (
            document if isinstance(document, bytes) else json.dumps(problem if document is None else document).encode()
        )
        _write(handler, status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    return step


def cut(handler: _Handler, asked: Asked) -> None:
    """Read the request, and hang up."""
    del asked
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def pass_on(handler: _Handler, asked: Asked) -> None:
    """Have the API answer."""
    found = handler.server.api.ask(asked)
    headers = {name: value for name, value in found.headers.items() if name.lower() not in _OF_THE_CONNECTION}
    _write(handler, found.status_code, headers, found.content)


def lose_answer(handler: _Handler, asked: Asked) -> None:
    """Have the API do it, and hang up instead of telling."""
    assert handler.server.api.ask(asked).ok
    cut(handler, asked)


def lose_half(handler: _Handler, asked: Asked) -> None:
    """Have the API do it, and hang up in the middle of the answer."""
    found = handler.server.api.ask(asked)
    handler.send_response(found.status_code)
    handler.send_header("Content-Length", str(len(found.content)))
    handler.end_headers()
    handler.wfile.write(found.content[: len(found.content) // 2])
    handler.wfile.flush()
    cut(handler, asked)


def hold(until: threading.Event, then: Step = cut) -> Step:
    """Leave the request without an answer until then."""

    def step(handler: _Handler, asked: Asked) -> None:
        until.wait(60)
        then(handler, asked)

    return step


def _write(handler: _Handler, status: int, headers: Mapping[str, str], body: bytes) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class FaultyApi:
    """The server. Requests take the steps of `script` one after the other, and then `otherwise`."""

    def __init__(self, target: str = "", *, otherwise: Step = pass_on) -> None:
        self.script: deque[Step] = deque()
        self.otherwise = otherwise
        self.asked: list[Asked] = []
        self.answered: list[tuple[Asked, requests.Response]] = []
        self._target = target
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def step_for(self, asked: Asked) -> Step:
        """Note a request, and return what is to be done with it."""
        with self._lock:
            self.asked.append(asked)
            return self.script.popleft() if self.script else self.otherwise

    def ask(self, asked: Asked) -> requests.Response:
        """Make the same request of the API."""
        headers = {name: value for name, value in asked.headers.items() if name not in _OF_THE_CONNECTION}
        found = requests.request(
            asked.method, self._target + asked.path, headers=headers, data=asked.body, timeout=30, allow_redirects=False
        )
        with self._lock:
            self.answered.append((asked, found))
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
