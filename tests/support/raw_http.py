"""Requests written byte by byte, to an API with short deadlines."""

import json
import socket
from http.client import HTTPResponse
from io import BufferedReader
from typing import Any, Self

from tests.support.running import Running

#: Quick to watch.
SETTINGS = {
    "NOTIFIER_AUTH": "required",
    "NOTIFIER_HEAD_TIMEOUT": "2",
    "NOTIFIER_BODY_TIMEOUT": "5",
    "NOTIFIER_IDLE_TIMEOUT": "3",
    "NOTIFIER_BODY_MEMORY": str(16 * 1024 * 1024),
    "NOTIFIER_CONNECTIONS_PER_ADDRESS": "20",
}


class File(BufferedReader):
    """The answers on one connection, read one after the other."""

    def close(self) -> None:
        """Stay open: HTTPResponse closes what it has read from."""

    def makefile(self, _: str) -> Self:
        """Return itself, as a socket would a file."""
        return self


class Raw:
    """A connection on which a test says what it likes."""

    def __init__(self, api: Running, *, source: str = "127.0.0.1", timeout: float = 8) -> None:
        self.socket = socket.create_connection(("127.0.0.1", api.port), timeout, source_address=(source, 0))
        self._file: File | None = None

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
        self._file = self._file or File(self.socket.makefile("rb", buffering=0))
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


def event(**more: Any) -> bytes:
    return json.dumps({"event_type": "x", **more}).encode()
