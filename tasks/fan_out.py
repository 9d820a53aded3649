"""Events to notifications: a batch at once, and one by one where the batch fails."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from celery import Task, shared_task
from celery.signals import worker_init

from config.wiring import wiring
from notifier import handlers, metrics, routing
from notifier.causes import Cause
from notifier.isolation import in_parts, kind_of
from notifier.tracing import BatchTrace
from tasks.headers import REQUEST_ID, TRACEPARENT
from tasks.publisher import publisher

log = structlog.get_logger()


@worker_init.connect
def _tell_of_broken_handlers(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    for pattern, error in handlers.broken():
        log.error("handler_broken", event_type=pattern, error=error)


@shared_task(name="tasks.fan_out", bind=True)
def fan_out(self: Task, ids: Sequence[str]) -> None:
    """Fan a batch of events out. One that breaks is left to its lease, without its neighbours."""
    event_ids = [UUID(event_id) for event_id in ids]
    cause = Cause(self.request.get(REQUEST_ID), self.request.get(TRACEPARENT))
    in_parts(event_ids, lambda part: _fan_out(part, cause), _note)


def _fan_out(event_ids: Sequence[UUID], cause: Cause) -> None:
    wires, trace = wiring(), BatchTrace("fan out", cause.traceparent)
    try:
        with metrics.timed(metrics.FAN_OUT_SECONDS):
            hints = routing.fan_out(wires.engine, event_ids, wires.planner(publisher().lease), wires.listeners, trace)
    except Exception as error:
        trace.close(type(error).__name__, {})
        raise
    trace.close(None, {"notifier.events": len(event_ids), "notifier.notifications": len(hints)})
    publisher().hint(hints, [cause] * len(hints))


def _note(event_id: UUID, error: Exception) -> None:
    """Remember why an event cannot be fanned out."""
    log.warning("fan_out_failed", event_id=str(event_id), error=kind_of(error))
    routing.note_failure(wiring().engine, event_id, kind_of(error))
