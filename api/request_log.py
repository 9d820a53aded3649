"""Request log: each request gets an id and a place in a trace, and writes one log line.

Both come from the caller (`X-Request-Id`, `traceparent`) or are made here. They are kept with the events and
notifications that the request creates.
"""

import logging
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final
from uuid import UUID

import structlog
from flask import Flask, Response, g, request
from opentelemetry.trace import SpanKind

from notifier.observability import tracing
from notifier.observability.request_context import RequestContext, as_request_id, as_traceparent
from notifier.vocabulary.ids import new_id

log = structlog.get_logger()

REQUEST_ID: Final = "X-Request-Id"
#: Where an environ has when serving its request began, by perf_counter, where that was before Flask.
BEGAN: Final = "notifier.began"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Endpoints that are polled: their successful requests are logged at debug.
_ASKED_OFTEN: Final = frozenset({"operating.get_health", "operating.get_readiness", "operating.read_metrics"})


def cause() -> RequestContext:
    """Return the context of this request."""
    found: RequestContext = g.cause
    return found


def note(**facts: Any) -> None:  # noqa: ANN401 -- whatever JSON has
    """Add something to the request's line: ids and counts, no addresses and no contents."""
    g.told.update(facts)


def route() -> str:
    """Return the route of this request, not its path, which may contain an address."""
    return request.url_rule.rule if request.url_rule else "unmatched"


def method() -> str:
    """Return the request's method; `other` for an unknown one."""
    return request.method if request.method in _METHODS else "other"


def _begin() -> None:
    g.told = {}
    g.began = request.environ.get(BEGAN) or perf_counter()
    given = as_traceparent(request.headers.get("traceparent"))
    g.span = None
    if tracing.is_on() and request.endpoint not in _ASKED_OFTEN:
        g.span = tracing.begin(f"{method()} {route()}", SpanKind.SERVER, given)
    traceparent = (tracing.traceparent_of(g.span) if g.span else None) or given
    g.cause = RequestContext(as_request_id(request.headers.get(REQUEST_ID)) or str(new_id()), traceparent)
    # Threads serve one request after the other.
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.cause.request_id)
    if traceparent is not None:
        structlog.contextvars.bind_contextvars(traceparent=traceparent)


def _end(response: Response) -> Response:
    response.headers[REQUEST_ID] = g.cause.request_id
    status = response.status_code
    caller = getattr(g, "caller", None) or getattr(g, "refused_caller", None)
    log.log(
        _level(status),
        "request",
        method=method(),
        route=route(),
        status=status,
        ms=round((perf_counter() - g.began) * 1000, 1),
        source=caller.name if caller else None,
        # Of what stands in the path only ids of ours.
        **{name: str(value) for name, value in (request.view_args or {}).items() if isinstance(value, UUID)},
        **g.told,
    )
    if g.span is not None:
        g.span.set_attributes({"http.request.method": method(), "http.route": route()})
        g.span.set_attributes({"http.response.status_code": status, "notifier.request_id": g.cause.request_id})
        if status >= 500:
            tracing.fail(g.span, f"http {status}")
        g.span.end()
    return response


def _level(status: int) -> int:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return logging.WARNING  # Postgres is unreachable
    if status >= 500:
        return logging.ERROR
    return logging.DEBUG if status < 400 and request.endpoint in _ASKED_OFTEN else logging.INFO


def track(app: Flask) -> None:
    """Log every request of an app. Call it before any hook that may answer a request."""
    app.before_request(_begin)
    app.after_request(_end)
