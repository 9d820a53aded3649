"""A middleman: an HTTP proxy before an API, in which a test acts between a request and its answer."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import requests


@dataclass
class Said:
    """An answer."""

    #: 0 breaks the connection.
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def nothing(body: bytes, said: Said) -> None:
    """Do nothing before an answer is passed on."""
    del body, said


class Middleman:
    """Passes on what it gets, and the answers, unless it is told otherwise."""

    def __init__(self, api: str, port: int = 0) -> None:
        """`api`: the URL that it passes requests on to; `port`: where it listens, if that matters."""
        middleman = self
        #: Gives the answer to a body in place of the API; None passes it on.
        self.instead: Callable[[bytes], Said | None] = lambda _: None
        #: Is called with a body and its answer, before that is passed on.
        self.before_answer: Callable[[bytes, Said], None] = nothing
        #: The bodies that were passed on.
        self.passed: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                said = middleman.instead(body) or middleman._pass_on(api + self.path, body, self.headers)
                middleman.before_answer(body, said)
                if not said.status:
                    self.close_connection = True
                    return
                self.send_response(said.status)
                for name, value in {**said.headers, "content-length": str(len(said.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said.body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Who asked may have been killed meanwhile."""

        self._server = Server(("127.0.0.1", port), Handler)

    def _pass_on(self, url: str, body: bytes, headers: Mapping[str, str]) -> Said:
        self.passed.append(body)
        kept = {name: headers[name] for name in ("content-type", "authorization") if headers.get(name)}
        answer = requests.post(url, data=body, headers=kept, timeout=30)
        return Said(answer.status_code, answer.content, {"content-type": answer.headers["content-type"]})

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
