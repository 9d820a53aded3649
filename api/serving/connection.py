"""One connection: requests are read within bounds, served one after the other, and answered in their order."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, cast

import httptools

from api.serving import bounds as b
from api.serving.messages import CLOSE, Environ, Incoming, Malformed, canned, environ_of, give_body, head_of

if TYPE_CHECKING:
    from api.serving.server import Server
from api.serving.workers import PEER

_END_OF_HEAD: Final = b"\r\n\r\n"
#: Unless there are trailers, which nobody sends.
_END_OF_CHUNKS: Final = b"0\r\n\r\n"
#: As much is parsed at once while a head or chunks are read: behind their end there may be other requests.
_SLICE: Final = 4096
#: Requests that are read ahead of the one that is served. A slice is seldom more than two.
_MOST_AHEAD: Final = 64
#: The most that framing may add to a chunked body: a byte a chunk, and trailers.
_FRAMING: Final = (8, 64 * 1024)
#: As much may wait to be sent before no more is made.
_UNSENT: Final = 64 * 1024

_METHOD: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_-]{0,30}) ")
_NO_REQUEST: Final = "This is no request of HTTP/1.1."
_LONG_HEAD: Final = f"The head of a request may have {b.MAX_HEAD} bytes."
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(IntEnum):
    """The state of a connection."""

    #: Nothing of a next request has come.
    IDLE = 0
    #: A head has begun.
    HEAD = 1
    #: A thread looks at a head whose body has not come whole.
    JUDGED = 2
    #: A body is coming.
    BODY = 3
    #: A thread serves it.
    SERVED = 4
    #: The rest of a body comes that was refused, and is left away.
    DRAINING = 5
    #: The same, but of a body without end: then the connection is closed.
    LINGERING = 6
    #: The last answer is on its way.
    CLOSING = 7
    CLOSED = 8


class Connection(asyncio.Protocol):
    """One connection of a caller. Its methods are the loop's, but for those that a thread answers by."""

    __slots__ = (
        *(
            "_ahead",
            "_base",
            "_drained",
            "_has_ended",
            "_is_half_closed",
            "_is_paused",
            "_lingered",
            "_named",
            "_parser",
        ),
        *(
            "_peer",
            "_reading",
            "_request",
            "_rest",
            "_server",
            "_transport",
            "deadline",
            "name",
            "since",
            "state",
            "unread",
        ),
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._reading: Incoming | None = None
        self._request: Incoming | None = None
        self._ahead: deque[Incoming] = deque()
        self._rest = b""
        self._is_paused = self._is_half_closed = False
        #: The caller has ended its side.
        self._has_ended = False
        self._lingered = 0
        self._drained: threading.Event | None = None
        self._base: Environ = {}
        #: The method of the head that is being parsed, where the parser does not know it.
        self._named: str | None = None
        #: The name that it was counted by.
        self.name: str | None = None
        self.state = State.IDLE
        self.since = self.deadline = 0.0
        #: Bytes that wait to be read by the caller.
        self.unread = 0

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection in, or refuse it."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        if not self._server.enter(self, self._peer):
            self.state = State.CLOSED
            return
        self._base = self._server.base
        self._transport.set_write_buffer_limits(high=_UNSENT)
        self._wait(self._server.bounds.head_seconds)

    def refuse_connection(self, answer: bytes) -> None:
        """Close it with a word."""
        self._transport.write(answer)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        if self._reading is not None:
            self._release(self._reading)
        for request in self._ahead:
            self._release(request)
        self.state = State.CLOSED
        self._server.leave(self)
        if self._drained is not None:
            self._drained.set()

    def eof_received(self) -> bool:
        """Answer what has come whole, and 400 to a body that has not, to who only ends its own side; else close."""
        self._is_half_closed = self._has_ended = True
        if self.state is State.BODY and not self._is_busy():
            self._refuse_cut_short()
        return self.state in {State.SERVED, State.JUDGED}

    def pause_writing(self) -> None:
        """Note that the caller reads more slowly than we write."""
        self.unread = self._transport.get_write_buffer_size()
        self._server.is_unread(self, self.unread)

    def resume_writing(self) -> None:
        """Go on."""
        self._server.is_read(self)
        self.unread = 0
        if self._drained is not None:
            self._drained.set()
        if not self._is_busy():
            self._go_on()

    def data_received(self, data: bytes) -> None:
        """Take in what has come."""
        if self.state is State.LINGERING:
            self._lingered += len(data)
            if self._lingered > b.LINGER_BYTES:
                self._transport.abort()
        elif self._is_half_closed or self.state > State.LINGERING:
            pass
        elif self._is_busy():
            self._keep(data)
        else:
            self._feed(data)

    def _is_busy(self) -> bool:
        # Nobody who does not read gets another answer.
        return self.state in {State.JUDGED, State.SERVED} or self.unread > 0

    def _keep(self, data: bytes | memoryview) -> None:
        """Keep what comes while something else is done, and let no more come."""
        self._rest += data
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Serve what has come meanwhile, or wait."""
        if self._ahead and not self._is_busy():
            self._serve(self._ahead.popleft())
            return
        if self._rest and not self._is_busy():
            rest, self._rest = self._rest, b""
            self._feed(rest)
        if not self._is_busy() and self.state < State.LINGERING:
            if self._is_half_closed:
                if not self._refuse_cut_short():
                    self._transport.close()
            elif self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()

    # --- reading

    def _feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        view = memoryview(data)
        while at < end:
            if self._is_busy():
                self._keep(view[at:])
                return
            if self.state >= State.LINGERING:
                return
            if self.state is State.IDLE:
                self._begin_head()
            reading = self._reading
            if reading is not None and reading.limit == -1 and self._must_be_judged(reading, end - at):
                self._judge(reading)
                continue
            size = self._size_of_next(data, at)
            if not self._parse(view[at : at + size], size):
                return
            at += size
        reading = self._reading
        if reading is not None and reading.limit == -1 and reading.method and not self._is_busy():
            self._judge(reading)

    def _size_of_next(self, data: bytes, at: int) -> int:
        """Return how much can be parsed at once, so that hardly anything is parsed beyond the message at hand."""
        reading = self._reading
        if reading is not None and reading.method and reading.length >= 0:
            return min(reading.length - reading.received, len(data) - at)
        end = _END_OF_HEAD if reading is None or not reading.method else _END_OF_CHUNKS
        found = data.find(end, at, at + _SLICE)
        return found + len(end) - at if found >= 0 else min(_SLICE, len(data) - at)

    def _must_be_judged(self, reading: Incoming, at_hand: int) -> bool:
        """Return whether a head is to be looked at before more of its body is taken in."""
        if not reading.method:
            return False
        if reading.length < 0:
            return reading.received > b.SMALL_BODY - _SLICE
        return reading.length > b.SMALL_BODY or reading.length - reading.received > at_hand

    def _begin_head(self) -> None:
        self.state = State.HEAD
        self.since = self._server.now()
        self.deadline = self.since + self._server.bounds.head_seconds

    def _parse(self, piece: memoryview, size: int) -> bool:
        """Parse some more; whether the connection goes on."""
        reading = self._reading
        if reading is not None:
            reading.on_the_wire += size
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # Nothing else is spoken here, and what follows may be anything.
            self._is_half_closed = True
            return False
        except httptools.HttpParserInvalidMethodError:
            return self._parse_other_method(piece)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Malformed):
                raise
            self._refuse(canned(cause.status, cause.detail))
            return False
        except httptools.HttpParserError:
            self._refuse(canned(400, _NO_REQUEST))
            return False
        if self._reading is not reading and self._reading is not None:
            self._reading.on_the_wire += size
        reading = self._reading
        if reading is None:
            return True
        if not reading.method:
            if reading.on_the_wire > b.MAX_HEAD:
                self._refuse(canned(431, _LONG_HEAD))
                return False
        elif reading.on_the_wire > _FRAMING[0] * reading.received + _FRAMING[1]:
            self._refuse(canned(400, "There is more around this body than in it."))
            return False
        return True

    def _parse_other_method(self, piece: memoryview) -> bool:
        """Parse a head with a method that the parser does not know: the application is to say that there is none."""
        found = _METHOD.match(piece)
        if self._named is not None or found is None or not bytes(piece).endswith(_END_OF_HEAD):
            self._refuse(canned(400, _NO_REQUEST))
            return False
        self._parser, self._reading = httptools.HttpRequestParser(self), None
        self._named = found[1].decode()
        try:
            return self._parse(memoryview(b"PATCH " + piece[found.end() :]), len(piece))
        finally:
            self._named = None

    # --- the parser's calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self._ahead) >= _MOST_AHEAD:
            raise Malformed(400, "Too many requests at once; wait for answers.")
        self._reading = Incoming()

    def on_url(self, url: bytes) -> None:
        """Take in the target, or a part of it."""
        reading = cast(Incoming, self._reading)
        reading.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header. Trailers are of no use to anybody."""
        reading = cast(Incoming, self._reading)
        if not reading.method:
            if len(reading.headers) >= b.MAX_HEADERS:
                raise Malformed(431, f"A request may have {b.MAX_HEADERS} headers.")
            reading.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Note what is known of the message now."""
        reading = cast(Incoming, self._reading)
        if reading.on_the_wire > b.MAX_HEAD:
            raise Malformed(431, _LONG_HEAD)
        reading.method = self._named or ""
        reading.complete_head(self._parser)
        reading.environ = environ_of(reading, self._base)
        reading.environ[PEER] = self._peer
        reading.environ["REMOTE_ADDR"] = self._server.addresses.client(
            self._peer, reading.environ.get("HTTP_X_FORWARDED_FOR", "")
        )
        reading.on_the_wire = 0

    def on_body(self, body: bytes) -> None:
        """Take in some of the body, as far as the bounds go."""
        reading = cast(Incoming, self._reading)
        size = len(body)
        reading.received += size
        if reading.is_refused:
            return
        if 0 <= reading.limit < reading.received:
            self._refuse_by(reading, 413, f"The body is larger than {reading.limit} bytes.")
        elif not self._server.budget.take(reading.held, size, is_stranger=reading.is_stranger):
            self._refuse_by(reading, 503, "Too much is being read at once; repeat it.")
        else:
            reading.held += size
            reading.body.append(body)

    def on_message_complete(self) -> None:
        """Serve the request, once those before it are."""
        reading, self._reading = cast(Incoming, self._reading), None
        reading.is_whole = True
        if self.state is State.DRAINING:
            self._wait(self._server.bounds.idle_seconds)
        elif reading.is_refused:
            pass  # the answer is being made
        elif self._is_busy():
            self._ahead.append(reading)
        else:
            self._serve(reading)

    # --- what becomes of a request

    def _judge(self, reading: Incoming) -> None:
        """Ask whether the rest of a body is wanted: at once where that is known, else in a thread."""
        admission = self._server.admission
        limit = admission.at_once(reading.environ, reading.length)
        if limit is not None:
            self._admit(reading, limit, is_stranger=False)
            return
        self.state = State.JUDGED
        self._request = reading
        give_body(reading.environ, b"")
        if reading.length >= 0:
            reading.environ["CONTENT_LENGTH"] = str(reading.length)

        def check() -> None:
            admitted = admission.check(reading.environ, self)
            if admitted is not None:
                self._server.call(self._checked, reading, *admitted)

        self._server.threads.run(check)

    def _checked(self, reading: Incoming, limit: int, is_stranger: bool) -> None:
        if self.state is not State.JUDGED:
            return
        self._request = None
        self._admit(reading, limit, is_stranger=is_stranger)
        self._go_on()

    def _admit(self, reading: Incoming, limit: int, *, is_stranger: bool) -> None:
        reading.limit = limit
        if is_stranger != reading.is_stranger:  # as all are before that is known
            self._server.budget.give_back(reading.held, is_stranger=reading.is_stranger)
            self._server.budget.take(0, reading.held, is_stranger=is_stranger)
            reading.is_stranger = is_stranger
        self.state = State.BODY
        self.since = self._server.now()
        self.deadline = self.since + self._server.bounds.body_seconds
        if reading.received > limit:
            self._refuse_by(reading, 413, f"The body is larger than {limit} bytes.")
        elif reading.expects_continue and not reading.received:
            self._transport.write(_CONTINUE)

    def _serve(self, request: Incoming) -> None:
        self.state = State.SERVED
        self._request = request
        pieces = request.body
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        give_body(request.environ, body)
        pieces.clear()
        self._server.serve(request.environ, body, self)

    def _refuse_by(self, reading: Incoming, status: int, detail: str) -> None:
        """Have the application refuse a request whose body comes no further: it is logged and counted as all are."""
        reading.is_refused, reading.keeps_alive = True, False
        self._release(reading)
        self._request, self.state = reading, State.SERVED
        admission = self._server.admission
        self._server.threads.run(lambda: admission.refuse(reading.environ, status, detail, self))

    def _refuse_cut_short(self) -> bool:
        """Refuse the request whose body the caller ended before its end; return whether there is one."""
        reading = self._reading
        if not self._has_ended or reading is None or reading.is_refused or not reading.environ:
            return False
        expected = "the last chunk" if reading.length < 0 else f"the {reading.length} bytes of its Content-Length"
        self._refuse_by(reading, 400, f"The body ended after {reading.received} bytes, before {expected}.")
        return True

    def _refuse(self, answer: bytes) -> None:
        """Answer what is no request, after those before it."""
        if self.state is State.SERVED:  # those that were pipelined before it
            self._is_half_closed = True
            return
        if self._reading is not None:
            self._release(self._reading)
            self._reading = None
        self._transport.write(answer)
        self._linger()

    def _release(self, request: Incoming) -> None:
        self._server.budget.give_back(request.held, is_stranger=request.is_stranger)
        request.held = 0
        request.body.clear()

    def _linger(self) -> None:
        """Close, but not before the caller had a chance to read why."""
        self.state = State.LINGERING
        self.deadline = self._server.now() + b.LINGER_SECONDS
        self._rest = b""
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    # --- a thread's answers

    def begin(self, status: int, headers: list[tuple[str, str]], body: bytes, *, is_whole: bool) -> None:
        """Send an answer, or its beginning."""
        if is_whole:
            self.call_on_loop(self.answer, status, headers, body)
        else:
            self._drained = threading.Event()
            self._server.call(self._begin_answer, status, headers, body)

    def go_on(self, piece: bytes) -> bool:
        """Send more of an answer; waits until there is room. False where nobody reads it any more."""
        drained = cast(threading.Event, self._drained)
        drained.wait()
        if self.state is State.CLOSED:
            return False
        drained.clear()
        self._server.call(self._write_chunk, piece)
        return True

    def end(self) -> None:
        """End an answer that came in pieces."""
        self._server.call(self._end_answer)

    def break_off(self) -> None:
        """Break an answer off, so that nobody takes it for whole."""
        self._server.call(self._abort)

    def _abort(self) -> None:
        if self._request is not None:  # nobody needs its body any more
            self._release(self._request)
        self._transport.abort()

    def call_on_loop(self, callback: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401 -- the callback's own
        """Have the loop call something, from any thread."""
        self._server.call(callback, *arguments)

    def run_in_thread(self, job: Callable[[], None]) -> None:
        """Have a thread do a short job, whatever the threads that serve requests wait for."""
        self._server.short_jobs.run(job)

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a whole answer, from the loop."""
        request = cast(Incoming, self._request)
        self._release(request)
        if self.state is State.CLOSED:
            return
        closes = self._closes(request, headers)
        head = head_of(status, headers, length=len(body), connection=self._word(request, closes=closes))
        if not body or request.method == "HEAD":
            self._transport.write(head)
        elif len(body) < _UNSENT:
            self._transport.write(head + body)
        else:  # without a copy
            self._transport.write(head)
            self._transport.write(body)
        self._finish(request, closes=closes)

    def _closes(self, request: Incoming, headers: list[tuple[str, str]]) -> bool:
        return (
            not request.keeps_alive
            or not (request.is_whole or self._can_drain(request))
            or self._server.is_stopping
            or any(name == "Connection" and value == CLOSE for name, value in headers)
        )

    @staticmethod
    def _can_drain(request: Incoming) -> bool:
        """Return whether what is missing of a body is worth the connection. Of two answers one may be to `Expect`."""
        missing = request.length - request.received
        return request.length >= 0 and missing <= b.LINGER_BYTES and not request.expects_continue

    @staticmethod
    def _word(request: Incoming, *, closes: bool) -> str:
        return CLOSE if closes else "keep-alive" if request.version == "1.0" else ""

    def _begin_answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        request = cast(Incoming, self._request)
        self._release(request)
        if self.state is State.CLOSED:
            cast(threading.Event, self._drained).set()
            return
        request.keeps_alive = not self._closes(request, headers) and request.version == "1.1"
        self._transport.write(
            head_of(status, headers, length=None, connection=self._word(request, closes=not request.keeps_alive))
        )
        self._write_chunk(body)

    def _write_chunk(self, piece: bytes) -> None:
        if self.state is not State.CLOSED:
            request = cast(Incoming, self._request)
            if piece:
                self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if request.keeps_alive else piece)
        if not self.unread or self.state is State.CLOSED:
            cast(threading.Event, self._drained).set()

    def _end_answer(self) -> None:
        self._drained = None
        if self.state is State.CLOSED:
            return
        request = cast(Incoming, self._request)
        if request.keeps_alive:
            self._transport.write(b"0\r\n\r\n")
        self._finish(request, closes=not request.keeps_alive)

    def _finish(self, request: Incoming, *, closes: bool) -> None:
        self._request = None
        if closes and not request.is_whole:
            self._reading = None
            self._linger()
        elif not request.is_whole and not self._transport.is_closing():
            request.is_refused, request.limit = True, 0
            self.state = State.DRAINING
            self.deadline = self._server.now() + b.LINGER_SECONDS
            self._go_on()
        elif closes or self._transport.is_closing():
            self.state = State.CLOSING
            self.deadline = self._server.now() + b.ANSWER_SECONDS
            self._transport.close()
        else:
            self._wait(self._server.bounds.idle_seconds)
            if self._rest or self._ahead or self._is_paused or self._is_half_closed:
                self._go_on()

    def _wait(self, seconds: float) -> None:
        """Wait for the next request."""
        self.state = State.IDLE
        self.since = self._server.now()
        self.deadline = self.since + seconds

    # --- the clock's calls

    def sweep(self, now: float) -> None:
        """End what has taken too long."""
        if self.unread:
            if now > self._server.unread_until(self):
                self._transport.abort()
            return
        state = self.state
        if state is State.BODY:
            reading = self._reading
            if reading is not None and (now > self.deadline or self._is_slow(reading, now)):
                self._refuse_by(reading, 408, "The body did not come in time.")
        elif now > self.deadline:
            if state is State.HEAD:
                self._refuse(canned(408, "The head of the request did not come in time."))
            elif state in {State.IDLE, State.DRAINING, State.LINGERING}:
                self._close_idle()
            elif state is State.CLOSING:
                self._transport.abort()

    def _is_slow(self, reading: Incoming, now: float) -> bool:
        passed = now - self.since
        bounds = self._server.bounds
        return passed > bounds.rate_grace and reading.received < passed * bounds.body_rate

    def _close_idle(self) -> None:
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # it would wait for somebody who does not read
        else:
            self._transport.close()

    def stop(self) -> None:
        """Close it, unless something is being done for it."""
        if self.state is State.IDLE and not self._ahead:
            self._close_idle()

    def shed(self) -> None:
        """Make room for another."""
        self._transport.abort()
