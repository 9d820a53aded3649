"""Messages of HTTP/1.1: a request as WSGI's environ, an answer as bytes."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from io import BytesIO
from typing import IO, Any, Final
from urllib.parse import unquote_to_bytes

import httptools
import orjson
from werkzeug.wsgi import FileWrapper

from api.problem_types import of_status
from api.problems import MEDIA_TYPE

Environ = dict[str, Any]

_WITHOUT_PREFIX: Final = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
#: Headers of one connection, which mean nothing behind it; the length is that of what was read.
_DROPPED: Final = frozenset({b"transfer-encoding", b"content-length", b"expect", b"connection", b"keep-alive"})
#: Names as environs have them. Callers may make up any number of others.
_NAMES: dict[bytes, str] = {}
_MOST_NAMES: Final = 500

_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
CLOSE: Final = "close"
#: Statuses that have no body, and say no length.
_BARE: Final = frozenset({204, 304})


class Malformed(Exception):
    """A head that is not HTTP, or that might mean one thing here and another to a proxy."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(slots=True)
class Incoming:
    """A request as it comes in."""

    url: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    method: str = ""
    version: str = "1.1"
    keeps_alive: bool = False
    #: The length of the body, as its head says; -1 where it comes in chunks.
    length: int = 0
    expects_continue: bool = False
    body: list[bytes] = field(default_factory=list)
    #: Bytes of it that have come, and those of them that take memory.
    received: int = 0
    held: int = 0
    is_whole: bool = False
    #: Bytes that came since the head, its own framing among them.
    on_the_wire: int = 0
    #: The most bytes that its body may have; -1 as long as nobody has said.
    limit: int = -1
    environ: Environ = field(default_factory=dict)
    is_stranger: bool = True
    is_refused: bool = False

    def complete_head(self, parser: httptools.HttpRequestParser) -> None:
        """Note what the head says of its message. Raises Malformed."""
        self.method = self.method or parser.get_method().decode("latin-1")
        self.version = parser.get_http_version()
        self.keeps_alive = parser.should_keep_alive()
        if self.version not in {"1.0", "1.1"}:
            raise Malformed(400, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        lengths = [value for name, value in self.headers if name == b"content-length"]
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings:
            if lengths or len(codings) > 1 or codings[0].strip().lower() != b"chunked" or self.version == "1.0":
                raise Malformed(400, "A body is either chunked or has a Content-Length, and comes in no other coding.")
            self.length = -1
        elif lengths:
            if len(lengths) > 1 or not lengths[0].isdigit():
                raise Malformed(400, "Send one Content-Length.")
            self.length = int(lengths[0])
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise Malformed(400, "Send one Host.")
        self.expects_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )


def environ_of(request: Incoming, base: Environ) -> Environ:
    """Return a request's environ, still without its body. `base`: the connection's part of it. Raises Malformed."""
    environ = base.copy()
    url = request.url
    if not url.startswith(b"/"):
        url = _origin_form(url)
    path, _, query = url.partition(b"?")
    if b"%" in path:
        path = unquote_to_bytes(path)
    environ["REQUEST_METHOD"] = request.method
    environ["SERVER_PROTOCOL"] = f"HTTP/{request.version}"
    environ["PATH_INFO"] = path.decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    for name, value in request.headers:
        key = _NAMES.get(name) or _name(name)
        if key:
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


def _origin_form(url: bytes) -> bytes:
    if url == b"*":
        return b"/*"
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserError:
        raise Malformed(400, "The request's target is no URL.") from None
    return (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")


def _name(name: bytes) -> str:
    """Return a header's name in an environ; nothing where it has no place there."""
    # Where X_Forwarded_For is taken for X-Forwarded-For, a caller speaks as the proxy.
    if name in _DROPPED or b"_" in name:
        return ""
    key = _WITHOUT_PREFIX.get(name) or "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_NAMES) < _MOST_NAMES:
        _NAMES[name] = key
    return key


def give_body(environ: Environ, body: bytes) -> None:
    """Give an environ the body that was read."""
    environ["wsgi.input"] = BytesIO(body)
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))


def _pieces_of(file: IO[bytes], _: int) -> FileWrapper:
    """Return a file in few pieces, most in one: each costs a turn, and their sum a copy."""
    return FileWrapper(file, 4 * 1024 * 1024)


def base_environ(server: tuple[str, int], *, multiprocess: bool) -> Environ:
    """Return the members that all WSGI environs share."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": _pieces_of,
    }


class DateLine:
    """The line that says when an answer was made, written once a second."""

    def __init__(self) -> None:
        self._second, self._line = 0, ""

    @property
    def line(self) -> str:
        """Return the line, with its end."""
        now = int(time.time())
        if now != self._second:
            self._second, self._line = now, f"Date: {formatdate(now, usegmt=True)}\r\n"
        return self._line


DATE: Final = DateLine()


def head_of(status: int, headers: list[tuple[str, str]], *, length: int | None, connection: str) -> bytes:
    """The head of an answer.

    `length`: that of its body, where it is known; else it comes in chunks, or ends with the connection where that is to
    `close`.
    """
    parts = [_LINES.get(status) or f"HTTP/1.1 {status} \r\n", DATE.line]
    has_length = False
    for name, value in headers:
        lower = name.lower()
        if lower == "connection":
            continue
        has_length = has_length or lower == "content-length"
        parts.append(f"{name}: {value}\r\n")
    if length is None and connection != CLOSE and not has_length:
        parts.append("Transfer-Encoding: chunked\r\n")
    elif length is not None and not has_length and status not in _BARE:
        parts.append(f"Content-Length: {length}\r\n")
    parts.append(f"Connection: {connection}\r\n\r\n" if connection else "\r\n")
    return "".join(parts).encode("latin-1", "replace")


def canned(status: int, detail: str, *, retry_after: int | None = None) -> bytes:
    """Return a whole answer that closes the connection, made without the application."""
    kind = of_status(status)
    body = orjson.dumps(
        {"type": kind.path, "title": kind.summary, "status": status, "detail": detail}, option=orjson.OPT_APPEND_NEWLINE
    )
    headers = [("Content-Type", MEDIA_TYPE)]
    if retry_after is not None:
        headers.append(("Retry-After", str(retry_after)))
    return head_of(status, headers, length=len(body), connection=CLOSE) + body
