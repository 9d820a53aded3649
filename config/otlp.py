"""OpenTelemetry's SDK, with an exporter to a collector. Imported only where one is set: it takes half a second."""

from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from notifier import VERSION
from notifier.vocabulary.queues import BATCH

_SERVICE: Final = "notifier"


def start(process: str) -> None:
    """Export the spans of this process. The rest is sent when it ends."""
    given = {"service.name": _SERVICE, "service.version": VERSION, "service.instance.id": process}
    # OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME go before ours.
    resource = Resource.create(given)
    # A batch has a link to each of its rows; the SDK would keep 128.
    provider = TracerProvider(resource=resource, span_limits=SpanLimits(max_links=BATCH))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
