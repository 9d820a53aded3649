"""Threads that serve: they run the application on requests that have been read, and hand answers back to the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from api.serving.messages import Environ

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

log = structlog.get_logger()

#: An answer up to here is made whole before any of it is sent, so that no thread waits for who reads it.
_AT_ONCE: Final = 8 * 1024 * 1024
_NO_BODY: Final = b""


class Reader(Protocol):
    """Where an answer goes. All methods may be called from any thread."""

    def begin(self, status: int, headers: list[tuple[str, str]], body: bytes, *, is_whole: bool) -> None:
        """Send an answer, or its beginning."""

    def go_on(self, piece: bytes) -> bool:
        """Send more; waits until there is room. False where nobody reads it any more."""

    def end(self) -> None:
        """Nothing more follows."""

    def break_off(self) -> None:
        """Nothing more follows, and something is missing."""


#: Where an environ has when its request was complete, on the monotonic clock.
ARRIVED: Final = "notifier.arrived"
#: The environ's key for the address at the other end of the connection: the client, or a proxy in front.
PEER: Final = "notifier.peer"


class Threads:
    """A fixed number of threads, and what waits for one."""

    def __init__(self, count: int) -> None:
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"serve-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, job: Callable[[], None]) -> None:
        """Have a thread do a job, once one is free."""
        self._waiting.put(job)

    def stop(self) -> None:
        """End the threads, each after what it has in hand."""
        for _ in self._threads:
            self._waiting.put(None)

    def _work(self) -> None:
        while True:
            job = self._waiting.get()
            if job is None:
                return
            try:
                job()
            except BaseException as error:  # without this thread, one request fewer could be served
                log.exception("request_failed", error=type(error).__name__)
            del job  # which may hold a body


class _Started:
    """WSGI's start_response, and what it was told."""

    __slots__ = ("headers", "status")

    def __init__(self) -> None:
        self.status, self.headers = 500, list[tuple[str, str]]()

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:  # noqa: ANN401 -- WSGI's signature
        self.status, self.headers = int(status[:3]), headers
        return _no_writing


def _no_writing(_: bytes) -> None:
    raise NotImplementedError("WSGI's write() is not offered")


def send(app: WSGIApplication, environ: Environ, reader: Reader) -> None:
    """Run an application on a request, and send what it answers."""
    started = _Started()
    try:
        pieces = app(environ, started)
    except BaseException as error:  # one that the application has not made an answer of
        log.exception("request_failed", error=type(error).__name__)
        reader.break_off()
        return
    _send(started.status, started.headers, pieces, reader, wants_body=environ["REQUEST_METHOD"] != "HEAD")


def _send(
    status: int, headers: list[tuple[str, str]], pieces: Iterable[bytes], reader: Reader, *, wants_body: bool
) -> None:
    """Send an answer: at once as long as it is not too large, else piece by piece."""
    made: list[bytes] = []
    length, has_begun = 0, False
    try:
        for piece in pieces:
            if not wants_body:
                break
            made.append(piece)
            length += len(piece)
            if length < _AT_ONCE:
                continue
            if not has_begun:
                reader.begin(status, headers, b"".join(made), is_whole=False)
                has_begun = True
            elif not reader.go_on(b"".join(made)):
                return
            made.clear()
            length = _AT_ONCE - 65_536
    except ConnectionError as error:
        log.warning("answer_broken_off", error=str(error))
        reader.break_off()
        return
    except BaseException as error:
        log.exception("request_failed", error=type(error).__name__)
        reader.break_off()
        return
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
    if not has_begun:
        reader.begin(status, headers, made[0] if len(made) == 1 else b"".join(made), is_whole=True)
    elif reader.go_on(b"".join(made)):
        reader.end()
