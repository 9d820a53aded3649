"""The server of one process: it listens, keeps the clock of all connections, and ends with what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from api.serving import bounds as b
from api.serving.bounds import Addresses, BodyBudget, Bounds
from api.serving.connection import Connection, State
from api.serving.messages import Environ, base_environ, canned
from api.serving.workers import ARRIVED, Reader, Threads, send

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

#: How often the clock of all connections is looked at, in seconds.
_TICK: Final = 0.25
#: Seconds for requests under way when the process is told to end.
_GRACE: Final = 10.0
#: Connections that make room at once where there are too many: they are looked for among all.
_SHED: Final = 16

#: The paths by which others see whether this process is well, and the threads that are kept for them.
_WATCHED_AT: Final = frozenset({"/health", "/ready"})
_WATCHED: Final = 4
#: Threads for short jobs.
_SHORT_JOBS: Final = 2

_TOO_MANY: Final = canned(429, "Too many connections from this address.", retry_after=2)
_FULL: Final = canned(503, "Too many connections.", retry_after=2)


class Admission(Protocol):
    """Says from a request's head whether its body is wanted."""

    def at_once(self, environ: Environ, length: int) -> int | None:
        """Return the most bytes that it may have, where that takes no time to know."""

    def check(self, environ: Environ, reader: Reader) -> tuple[int, bool] | None:
        """Return the most bytes that it may have, and whether it is a stranger's; or answer the request."""

    def refuse(self, environ: Environ, status: int, detail: str, reader: Reader) -> None:
        """Answer that the body was not taken."""


class FastPath(Protocol):
    """Serves some requests on the loop, without a thread."""

    def take(self, environ: Environ, body: bytes, connection: Connection) -> bool:
        """Begin to serve a request. False where a thread is to serve it."""

    def sweep(self, now: float) -> None:
        """End what has taken too long."""


class Server:
    """The parts that the connections of one process share."""

    def __init__(
        self,
        app: WSGIApplication,
        admission: Admission,
        bounds: Bounds,
        *,
        threads: int,
        fast_path: FastPath | None = None,
    ) -> None:
        self.app, self.admission, self.bounds = app, admission, bounds
        self._fast_path = fast_path
        self.addresses, self.budget = Addresses(bounds), BodyBudget(bounds.body_bytes)
        self.threads = Threads(threads)
        #: For what takes no time: it is done also while all other threads wait for Postgres.
        self.short_jobs = Threads(_SHORT_JOBS)
        #: For those who ask how it is: they hear it also while all other threads wait for Postgres.
        self._watched_by = Threads(_WATCHED)
        self.base: Environ = {}
        self.now = time.monotonic
        self.is_stopping = False
        self._connections: OrderedDict[Connection, None] = OrderedDict()
        #: Until when each caller that does not read must have read, and how much waits.
        self._unread: OrderedDict[Connection, tuple[float, int]] = OrderedDict()
        self._unread_bytes = 0

    # --- connections

    def enter(self, connection: Connection, peer: str) -> bool:
        """Take a connection in. False where it was refused."""
        name = self.addresses.enter(peer)
        if name is None:
            connection.refuse_connection(_TOO_MANY)
            return False
        if len(self._connections) >= self.bounds.connections and not self._shed():
            self.addresses.leave(name)
            connection.refuse_connection(_FULL)
            return False
        connection.name = name
        self._connections[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            del self._connections[connection]
            if connection.name is not None:
                self.addresses.leave(connection.name)
        self.is_read(connection)

    def _shed(self) -> bool:
        """End those connections for which nothing has been done longest; whether there were any."""
        idle = [each for each in self._connections if each.state <= State.HEAD]
        for oldest in heapq.nsmallest(_SHED, idle, key=lambda each: each.since):
            oldest.shed()
            self.leave(oldest)
        return bool(idle)

    def is_unread(self, connection: Connection, size: int) -> None:
        """Note that an answer waits for its caller. The longest waiting ones are given up first."""
        until = self.now() + b.ANSWER_SECONDS + size / b.ANSWER_RATE
        self._unread[connection] = (until, size)
        self._unread_bytes += size
        while self._unread_bytes > b.UNREAD_ANSWERS and len(self._unread) > 1:
            oldest = next(iter(self._unread))
            self.is_read(oldest)
            oldest.shed()

    def is_read(self, connection: Connection) -> None:
        """Note that an answer is read, or given up."""
        _, size = self._unread.pop(connection, (0.0, 0))
        self._unread_bytes -= size

    def unread_until(self, connection: Connection) -> float:
        """When a caller must have read its answer."""
        return self._unread.get(connection, (0.0, 0))[0]

    # --- threads

    def serve(self, environ: Environ, body: bytes, connection: Connection) -> None:
        """Serve a request: at once where it is a plain one, else by a thread."""
        environ[ARRIVED] = self.now()
        if self._fast_path is not None and self._fast_path.take(environ, body, connection):
            return
        threads = self._watched_by if environ["PATH_INFO"] in _WATCHED_AT else self.threads
        threads.run(lambda: send(self.app, environ, connection))

    def call(self, callback: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401 -- the callback's own
        """Have the loop call something, from a thread."""
        with contextlib.suppress(RuntimeError):  # it is closed: the process ends
            self._loop.call_soon_threadsafe(callback, *arguments)

    # --- the process

    async def run(self, listener: socket.socket, *, parent: int | None = None) -> None:
        """Serve until SIGTERM or SIGINT, and then until what is under way is done.

        `parent`: a pipe whose end says that the process is gone that others of us were started by.
        """
        self._loop = asyncio.get_running_loop()
        name = listener.getsockname()
        self.base = base_environ((name[0], name[1]), multiprocess=parent is not None)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stopped.set)
        if parent is not None:
            self._loop.add_reader(parent, stopped.set)
        accepting = await self._loop.create_server(lambda: Connection(self), sock=listener, backlog=2048)
        clock = self._loop.create_task(self._keep_time())
        await stopped.wait()
        if parent is not None:
            self._loop.remove_reader(parent)
        accepting.close()
        self.is_stopping = True
        until = self.now() + _GRACE
        while self._connections and self.now() < until:
            for connection in list(self._connections):
                connection.stop()
            await asyncio.sleep(0.02)
        clock.cancel()
        for connection in list(self._connections):
            connection.shed()
        self.threads.stop()
        self._watched_by.stop()
        self.short_jobs.stop()

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self.now()
            for connection in list(self._connections):
                connection.sweep(now)
            if self._fast_path is not None:
                self._fast_path.sweep(now)
