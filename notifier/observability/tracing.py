"""Tracing with OpenTelemetry: everything a request causes is one trace, from the POST to the call of a provider.

A worker handles notifications of many requests at once. The span of its batch belongs to none of their traces: it links
to each, while the span of each notification is part of its own trace and links to the batch.

The module uses OpenTelemetry's API alone, which does nothing unless a process has set up the SDK (config.tracing); then
a traceparent is passed on as the caller sent it.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, ProxyTracerProvider, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

Attributes = Mapping[str, AttributeValue]

_tracer: Final = trace.get_tracer("notifier")
_propagator: Final = TraceContextTextMapPropagator()
#: A span that is written nowhere.
_NO_SPAN: Final = NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)


def is_on() -> bool:
    """Return whether this process writes spans."""
    return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


def begin(name: str, kind: SpanKind, traceparent: str | None) -> Span:
    """Begin a span that continues a trace, or a new trace. It does not become the current span."""
    if not is_on():
        return _NO_SPAN
    return _tracer.start_span(name, _context_of(traceparent), kind)


def traceparent_of(span: Span) -> str | None:
    """Return a span's position in its trace as a traceparent; None if the span is not recorded."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent")


def fail(span: Span, error: str | None) -> None:
    """Mark a span as failed, with a class and a safe detail: an exception's message may contain personal data."""
    span.set_status(StatusCode.ERROR, error)


def _context_of(traceparent: str | None) -> Context:
    return _propagator.extract({"traceparent": traceparent} if traceparent else {}, Context())


def _place(traceparent: str) -> SpanContext:
    return trace.get_current_span(_context_of(traceparent)).get_span_context()


class BatchTrace:
    """The span of a batch, and those of the rows that it has in hand. Used by one thread at a time."""

    def __init__(self, name: str, traceparent: str | None = None) -> None:
        """`traceparent`: that of the message which brought the batch."""
        self._on = is_on()
        self._span = begin(name, SpanKind.CONSUMER, traceparent)
        self._rows: dict[UUID, Span] = {}

    def link(self, traceparents: Iterable[str | None]) -> None:
        """Link the batch to the traces of its rows."""
        for traceparent in dict.fromkeys(traceparents) if self._on else ():
            if traceparent:
                self._span.add_link(_place(traceparent))

    def begin(self, row_id: UUID, name: str, traceparent: str | None, attributes: Attributes) -> str | None:
        """Begin a row's span, in its own trace; returns the traceparent to pass on."""
        if not self._on:
            return traceparent
        context, batch = _context_of(traceparent), self._span.get_span_context()
        if traceparent is None:
            context = trace.set_span_in_context(self._span, context)
        span = _tracer.start_span(name, context, SpanKind.CLIENT, attributes, [Link(batch)] if batch.is_valid else None)
        self._rows[row_id] = span
        return traceparent_of(span)

    def end(self, row_id: UUID, error: str | None, attributes: Attributes) -> None:
        """End a row's span."""
        span = self._rows.pop(row_id, None)
        if span is not None:
            span.set_attributes(attributes)
            if error is not None:
                fail(span, error)
            span.end()

    def close(self, error: str | None, attributes: Attributes) -> None:
        """End the batch's own span. Rows may still be under way."""
        self._span.set_attributes(attributes)
        if error is not None:
            fail(self._span, error)
        self._span.end()
