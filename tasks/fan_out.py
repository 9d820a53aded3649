"""Events to notifications: a batch at once, and one by one where the batch fails."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from celery import Task, shared_task
from celery.signals import worker_init
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from config.wiring import wiring
from notifier import handlers, metrics, routing
from notifier.causes import Cause
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
    try:
        _fan_out(event_ids, cause)
    except (OperationalError, InterfaceError):
        raise  # Postgres is away; so it would be for each of them
    except Exception as error:
        if len(event_ids) > 1:
            log.warning("fan_out_failed", events=len(event_ids), error=type(error).__name__)
        for event_id in event_ids:
            _fan_out_alone(event_id, cause)


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


def _fan_out_alone(event_id: UUID, cause: Cause) -> None:
    try:
        _fan_out([event_id], cause)
    except Exception as error:
        log.warning("fan_out_failed", event_id=str(event_id), error=type(error).__name__)
        # The class and the database's code: a message would repeat the event's data.
        origin = error.orig if isinstance(error, DBAPIError) else error
        routing.note_failure(
            wiring().engine, event_id, f"{type(origin).__name__} {getattr(origin, 'pgcode', '') or ''}".strip()
        )
