"""The fast path of an event: a plain POST of one event is answered on the server's loop, without a thread and Flask.

Flask's contexts, hooks and wrappers, and handing a request to a thread and its answer back, cost five times as much as
all that is done with the event itself. So the loop drafts a plain event (api.plain_events), submits it to the intake,
and answers once it is committed. Every other request goes to Flask: one in which something is wrong, that names a
template or a moment, whose address has credentials, that brings a key not seen within seconds, that is large, or is
traced. Both paths read, draft, write and log by the same functions, and give the same answers.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson
import structlog
from flask import Flask

from api.auth import ADMITTED, Gate
from api.browser_security import LONGEST_HOST, NO_SNIFFING, Guard
from api.event_intake import answer_to, draft_of, location_of
from api.intake import check_channels, with_key_header
from api.plain_events import plain_fields
from api.request_bodies import parse
from api.request_heads import Environ, HeadChecks
from api.request_log import BEGAN, REQUEST_ID
from api.services import services_of
from api.serving.workers import ARRIVED, Reader
from notifier.content.templates import EMPTY
from notifier.events.intake import Accepted, Answer, withdraw
from notifier.observability import metrics, tracing
from notifier.observability.request_context import RequestContext, as_request_id, as_traceparent
from notifier.security.api_keys import Caller, Scope
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.errors import NotifierError
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.masking import masked
from notifier.vocabulary.states import Channel

log = structlog.get_logger()

#: The routes of events.
_ROUTES: Final = frozenset({"/api/v1/events", "/events"})
#: The largest body that is read on the loop, in bytes: parsing it takes some tenths of a millisecond.
_LARGEST: Final = 8 * 1024
#: Hosts whose judgement is remembered.
_REMEMBERED: Final = 1024
#: The forms of a host that werkzeug takes. It refuses some others, and Flask is to say so.
_HOST: Final = re.compile(r"(?:[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)
#: An address of each channel whose first one imports a library: that takes longer than a loop may stand.
_FIRST: Final = {Channel.EMAIL: "a@example.com", Channel.SMS: "+15005550006"}
_JSON: Final = "application/json"


class Connection(Reader, Protocol):
    """The connection that a request came over, on the loop."""

    def call_on_loop(self, callback: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401 -- the callback's own
        """Have the loop call something, from any thread."""

    def run_in_thread(self, job: Callable[[], None]) -> None:
        """Have a thread do a short job, whatever the threads that serve requests wait for."""

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a whole answer, from the loop."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """A request whose event is being written."""

    environ: Environ
    connection: Connection
    route: str
    caller: Caller
    event_type: str
    cause: RequestContext
    began: float
    #: On the monotonic clock.
    until: float


class FastPath:
    """Serves plain events. All methods are the loop's."""

    def __init__(self, app: Flask, gate: Gate, guard: Guard | None, heads: HeadChecks, *, timeout: float) -> None:
        """`guard`: where no key is asked for. `timeout`: seconds from a request's arrival until it is answered."""
        self._services = services_of(app)
        settings = self._services.wiring.settings
        self._gate, self._guard, self._heads = gate, guard, heads
        self._is_traced = tracing.is_on()
        self._largest = min(_LARGEST, settings.max_event_bytes)
        self._timeout = min(timeout, settings.intake_timeout.total_seconds())
        for channel in self._services.wiring.channels & _FIRST.keys():
            normalised(channel, _FIRST[channel])
        #: In the order in which their time ends.
        self._waiting: OrderedDict[_Ticket, Future[list[Answer]]] = OrderedDict()

    def take(self, environ: Environ, body: bytes, connection: Connection) -> bool:
        """Begin to serve a request; returns False where Flask is to serve it."""
        if environ["PATH_INFO"] not in _ROUTES or environ["REQUEST_METHOD"] != "POST":
            return False
        if len(body) > self._largest or environ["QUERY_STRING"] or self._is_traced:
            return False
        caller = self._caller(environ)
        if caller is None:
            return False
        began = time.perf_counter()
        cause = RequestContext(
            as_request_id(environ.get("HTTP_X_REQUEST_ID")) or str(new_id()),
            as_traceparent(environ.get("HTTP_TRACEPARENT")),
        )
        ticket = _Ticket(
            environ, connection, environ["PATH_INFO"], caller, "", cause, began, environ[ARRIVED] + self._timeout
        )
        try:
            answers = self._submit(ticket, body)
        except Exception:  # of the event, or of ours: Flask meets it again, and answers
            return False
        if answers is None:
            return False
        self._waiting[ticket] = answers
        answers.add_done_callback(lambda done: connection.call_on_loop(self._finish, ticket, done))
        return True

    def _caller(self, environ: Environ) -> Caller | None:
        """Return the caller of a request that is sure to be let in."""
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != _JSON:
            return None
        host = environ.get("HTTP_HOST", "")
        if len(host) > LONGEST_HOST or not _is_usual(host):
            return None
        if self._guard is not None and not self._guard.lets_in(environ):
            return None
        if ADMITTED in environ:  # its head was checked and counted before
            admitted: Caller | None = environ[ADMITTED]
            return admitted
        return self._gate.known_caller(environ.get("HTTP_AUTHORIZATION", ""), Scope.SEND)

    def _submit(self, ticket: _Ticket, raw: bytes) -> Future[list[Answer]] | None:
        """Submit a plain event; None where it is none. Raises what is wrong with it."""
        here = self._services
        body = parse(raw).as_event()
        fields = plain_fields(body.document)
        if fields is None:
            return None
        check_channels(fields, here.wiring.channels)
        fields = with_key_header(fields, ticket.environ.get("HTTP_IDEMPOTENCY_KEY"))
        recipient = fields["recipient"]
        # The key that seals an address with credentials may have to be read from Postgres.
        if recipient is not None and masked(recipient) != recipient:
            return None
        ticket.event_type = fields["event_type"]
        return here.intake.submit([draft_of(here, ticket.caller, fields, body, EMPTY, ticket.cause)])

    def _finish(self, ticket: _Ticket, done: Future[list[Answer]]) -> None:
        """Answer a request whose event was written, or not."""
        if self._waiting.pop(ticket, None) is None:  # it was answered when its time ended
            return
        try:
            [answer] = done.result()
            if isinstance(answer, Accepted):
                self._answer(ticket, answer)
            else:
                self._refuse(ticket, answer)
        except Exception as error:  # of ours: the caller must not wait for ever
            log.exception("request_failed", error=type(error).__name__)
            ticket.connection.break_off()

    def _answer(self, ticket: _Ticket, answer: Accepted) -> None:
        event_id = answer.ids[0]
        headers = [("Content-Type", _JSON), ("Location", location_of(event_id))]
        if answer.duplicate:
            headers.append(("Idempotency-Replayed", "true"))
        headers += [NO_SNIFFING, (REQUEST_ID, ticket.cause.request_id or "")]
        body = orjson.dumps(answer_to(ticket.event_type, answer), option=orjson.OPT_APPEND_NEWLINE)
        took = time.perf_counter() - ticket.began
        ticket.connection.answer(202, headers, body)
        metrics.REQUEST_SECONDS.labels(ticket.route, "POST", "2xx").observe(took)
        log.info(
            "request",
            method="POST",
            route=ticket.route,
            status=202,
            ms=round(took * 1000, 1),
            source=ticket.caller.name,
            event_id=str(event_id),
            event_type=ticket.event_type,
            duplicate=answer.duplicate,
            **_context(ticket.cause),
        )

    def _refuse(self, ticket: _Ticket, error: NotifierError) -> None:
        """Have Flask answer a request whose event was not written, in a thread."""
        environ = ticket.environ
        environ[ADMITTED] = ticket.caller
        environ["HTTP_X_REQUEST_ID"] = ticket.cause.request_id  # which the event may have
        environ[BEGAN] = ticket.began
        ticket.connection.run_in_thread(lambda: self._heads.answer_error(environ, error, ticket.connection))

    def sweep(self, now: float) -> None:
        """Answer the requests whose time has ended."""
        while self._waiting:
            ticket, answers = next(iter(self._waiting.items()))
            if ticket.until > now:
                return
            if answers.done():  # just now
                self._finish(ticket, answers)
            else:
                del self._waiting[ticket]
                self._refuse(ticket, withdraw(answers))


@lru_cache(_REMEMBERED)
def _is_usual(host: str) -> bool:
    """Return whether a Host header is one that Flask takes."""
    return _HOST.fullmatch(host) is not None


def _context(cause: RequestContext) -> dict[str, Any]:
    """Return what stands in each line of a request."""
    traced = {} if cause.traceparent is None else {"traceparent": cause.traceparent}
    return {"request_id": cause.request_id, **traced}
