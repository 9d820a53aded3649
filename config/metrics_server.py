"""Metrics server of workers and the exporter: a thread that serves a registry to Prometheus. The API has a route."""

import hmac
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Final, cast
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from config.allowed_hosts import AllowedHosts, is_loopback
from notifier.runtime.threads import start_lasting

#: Seconds of silence after which a client is disconnected.
_PATIENCE: Final = 10


class MetricsServer(ThreadingTCPServer):
    """Serves `/metrics` of one registry, to clients with the token if one is set; `/health` is open."""

    allow_reuse_address = True
    daemon_threads = True
    #: The thread that serves, once one does.
    _thread: threading.Thread | None = None

    def __init__(self, registry: CollectorRegistry, address: tuple[str, int], token: str | None) -> None:
        """Listen. Raises OSError if the address cannot be bound."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.registry = registry
        self.token = token
        #: Where no token keeps a browser out, and no other machine may ask (see config.allowed_hosts).
        self.knows = AllowedHosts() if token is None and is_loopback(str(self.server_address[0])) else None

    def start(self) -> None:
        """Serve from a thread that ends with the process, or when the server is closed."""
        self._thread = start_lasting("metrics", self.serve_forever)

    def server_close(self) -> None:
        """Stop serving, and listening.

        A thread that went on would wait for a descriptor that the process uses for something else by then, and would
        take a whole core for as long as that is ready to be read.
        """
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Do nothing: a client has disconnected."""
        del request, client_address


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    # Of methods that are not here; the library's own page is HTML.
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        """Answer a scrape or a health check."""
        path = urlsplit(self.path).path
        if path == "/health":
            return self._answer(HTTPStatus.OK, b"ok\n")
        if path != "/metrics":
            return self._answer(HTTPStatus.NOT_FOUND, b"Only /metrics and /health are here.\n")
        server = cast(MetricsServer, self.server)
        if server.knows is not None and not server.knows.serves(self.headers.get("Host")):
            return self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"This server does not go by the name in Host.\n")
        if server.token is not None and not brings(self.headers.get("Authorization", ""), server.token):
            return self._answer(HTTPStatus.UNAUTHORIZED, b"Send NOTIFIER_METRICS_TOKEN as a bearer token.\n")
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        return self._answer(HTTPStatus.OK, encode(server.registry), content_type)

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 -- the library's signature
        """Log nothing: a request comes every few seconds."""


def brings(header: str, token: str) -> bool:
    """Return whether an `Authorization` header has the bearer token. Compares in constant time."""
    kind, _, given = header.partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
