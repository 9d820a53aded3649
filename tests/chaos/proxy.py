"""A TCP proxy that misbehaves when it is told to: refuses, drops, delays, goes silent, cuts within a message.

All proxies and receivers share one event loop in a thread of its own (`Loop`).
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Self

_CHUNK: Final = 64 * 1024
HOST: Final = "127.0.0.1"


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # A connection that is reset is what we are here for: nothing to report.
        self.loop.set_exception_handler(lambda *_: None)
        self._thread = threading.Thread(target=self.loop.run_forever, name="wires", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)


@dataclass(eq=False)
class _Pair:
    """A client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: bool = False
    #: The server's next answer is thrown away, and the connection with it.
    cut_answer: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        for writer in (self.client, self.server):
            with contextlib.suppress(Exception):
                writer.transport.abort()


class Proxy:
    """Stands in front of one server. Its methods may be called from any thread."""

    def __init__(self, loop: Loop, port: int, rng: random.Random) -> None:
        """`port`: the server's."""
        self._loop = loop
        self._target = port
        self._rng = rng
        self._pairs: set[_Pair] = set()
        #: Whether new connections are refused.
        self.refusing = False
        #: Whether connections that are made from now on go silent at once.
        self.mute = False
        #: Seconds that each message waits, in both directions.
        self.delay = 0.0
        #: The share of messages that are cut in their middle, and the connection with them.
        self.cut_share = 0.0
        #: The share of the statements with this text whose answers are cut.
        self.cut_answers_of: tuple[tuple[bytes, ...], float] = ((), 0.0)
        self._watches: list[tuple[bytes, Callable[[], None]]] = []
        #: How often it cut something.
        self.cuts = 0
        self._server: asyncio.Server = loop.run(self._serve())
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, HOST, 0, limit=_CHUNK, backlog=512)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._pairs)

    def drop(self) -> None:
        """Reset all connections."""
        self._loop.loop.call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        for pair in list(self._pairs):
            pair.abort()

    def silence(self) -> None:
        """Let the connections that there are carry nothing any more. They stay open, and stay silent for good."""
        for pair in list(self._pairs):
            pair.silent = True

    def forget_silent(self) -> None:
        """Reset the connections that are silent."""
        self._loop.loop.call_soon_threadsafe(lambda: [pair.abort() for pair in list(self._pairs) if pair.silent])

    def when_sent(self, what: bytes, act: Callable[[], None]) -> None:
        """Call `act` once, in the loop's thread, when a client has sent something with these bytes."""
        self._watches.append((what, act))

    def behave(self) -> None:
        """Do as a wire does, from now on. Connections that are silent stay so."""
        self.refusing = self.mute = False
        self.delay = self.cut_share = 0.0
        self.cut_answers_of = ((), 0.0)
        self._watches.clear()

    async def _connected(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.refusing:
            client.transport.abort()
            return
        try:
            answers, server = await asyncio.open_connection(HOST, self._target, limit=_CHUNK)
        except OSError:
            client.transport.abort()
            return
        pair = _Pair(client, server, silent=self.mute)
        self._pairs.add(pair)
        pair.tasks = [
            asyncio.ensure_future(self._pump(pair, reader, server, up=True)),
            asyncio.ensure_future(self._pump(pair, answers, client, up=False)),
        ]
        try:
            await asyncio.wait(pair.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for task in pair.tasks:
                task.cancel()
            for writer in (client, server):
                with contextlib.suppress(Exception):
                    writer.close()

    async def _pump(self, pair: _Pair, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        """Carry what comes from one side to the other, until one of them ends or we cut."""
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                while pair.silent:  # for good; `_drop` and `forget_silent` end it
                    await asyncio.sleep(0.2)
                if up:
                    self._look_at(pair, data)
                elif pair.cut_answer:
                    self.cuts += 1
                    pair.abort()
                    return
                if self.cut_share and self._rng.random() < self.cut_share:
                    self.cuts += 1
                    sink.write(data[: len(data) // 2])
                    await sink.drain()
                    pair.abort()
                    return
                sink.write(data)
                await sink.drain()

    def _look_at(self, pair: _Pair, data: bytes) -> None:
        """See whether a message is one that something is to happen at."""
        statements, share = self.cut_answers_of
        if any(each in data for each in statements) and self._rng.random() < share:
            pair.cut_answer = True
        for watch in [each for each in self._watches if each[0] in data]:
            self._watches.remove(watch)
            # The server is to have it first.
            asyncio.get_running_loop().call_soon(watch[1])
