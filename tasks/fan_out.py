"""Fan-out of events into notifications: a whole batch, and one by one if the batch fails."""

import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from celery import Task, shared_task
from celery.signals import worker_init
from sqlalchemy.exc import SQLAlchemyError

from config.wiring import wiring
from notifier.delivery import load_sizes
from notifier.events import fan_out as event_fan_out
from notifier.observability import metrics
from notifier.observability.request_context import RequestContext
from notifier.observability.tracing import BatchTrace
from notifier.planning import handlers
from notifier.runtime.isolation import in_parts, is_away, kind_of
from notifier.vocabulary.queues import FAN_OUT
from tasks.message_headers import DUE, REQUEST_ID, TRACEPARENT
from tasks.publisher import publisher

log = structlog.get_logger()

#: So many events a second are fanned out at the least, or their lease ends.
_SLOWEST: Final = 50
#: For how long, and how often, it is tried to say that Postgres was away, in seconds.
_WITHDRAWN_WITHIN: Final = 30.0
_PAUSE: Final = 0.25


@worker_init.connect
def _log_broken_handlers(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    for pattern, error in handlers.broken():
        log.error("handler_broken", event_type=pattern, error=error)


@shared_task(name="tasks.fan_out", bind=True)
def fan_out(self: Task, ids: Sequence[str]) -> None:
    """Fan out a batch of events. An event that fails is left to its lease; the others are fanned out."""
    event_ids = [UUID(event_id) for event_id in ids]
    cause = RequestContext(self.request.get(REQUEST_ID), self.request.get(TRACEPARENT))
    if self.request.get(DUE) is None:
        _fan_out_all(event_ids, cause)
    else:
        _fan_out_again(event_ids, self.request.retries, cause)


def _fan_out_all(event_ids: Sequence[UUID], cause: RequestContext) -> None:
    """Fan events out, as many at once as can be read."""
    for events in load_sizes.of_events(wiring().engine, event_ids):
        in_parts(events, lambda part: _fan_out(part, cause), _note)


def _fan_out_again(event_ids: Sequence[UUID], begun: int, cause: RequestContext) -> None:
    """Fan out events that the clock handed over. An earlier message may have killed its worker, so count each start."""
    lease = publisher().lease(FAN_OUT) + len(event_ids) / _SLOWEST
    mine = event_fan_out.begin(wiring().engine, event_ids, begun, lease)
    try:
        _fan_out_all(mine, cause)
    except SQLAlchemyError as error:
        if is_away(error):
            _withdraw(mine)
        raise


def _withdraw(event_ids: Sequence[UUID]) -> None:
    """Take back the counted starts once Postgres is reachable: its failure is not the events' fault."""
    until = time.monotonic() + _WITHDRAWN_WITHIN
    while True:
        try:
            return event_fan_out.withdraw(wiring().engine, event_ids)
        except SQLAlchemyError as error:
            if not is_away(error) or time.monotonic() > until:
                raise
        time.sleep(_PAUSE)


def _fan_out(event_ids: Sequence[UUID], cause: RequestContext) -> None:
    wires, trace = wiring(), BatchTrace("fan out", cause.traceparent)
    try:
        with metrics.timed(metrics.FAN_OUT_SECONDS):
            hints = event_fan_out.fan_out(
                wires.engine, event_ids, wires.planner(publisher().lease), wires.subscribers, trace
            )
    except Exception as error:
        trace.close(type(error).__name__, {})
        raise
    trace.close(None, {"notifier.events": len(event_ids), "notifier.notifications": len(hints)})
    publisher().hint(hints, [cause] * len(hints))


def _note(event_id: UUID, error: Exception) -> None:
    """Store why an event cannot be fanned out."""
    log.warning("fan_out_failed", event_id=str(event_id), error=kind_of(error))
    event_fan_out.note_failure(wiring().engine, event_id, kind_of(error))
