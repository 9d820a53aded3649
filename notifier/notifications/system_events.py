"""System events: our own events about notifications and subscriptions, for their subscribers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from notifier.observability.request_context import RequestContext
from notifier.planning.drafts import as_document, insert_events
from notifier.vocabulary.ids import new_id, time_of
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.states import EventStatus, Priority

#: The name of their source.
SOURCE: Final = "notifier"

_INSERT: Final = text(insert_events())


def emit(connection: Connection, events: Sequence[tuple[str, Mapping[str, Any], RequestContext]]) -> None:
    """Write events, each as (type, payload, request context), in the connection's transaction.

    The clock hands them over.
    """
    rows = [_row(new_id(), event_type, payload, cause) for event_type, payload, cause in events]
    if rows:
        connection.execute(_INSERT, {"events": as_document(rows), "version": 0})


def _row(event_id: UUID, event_type: str, payload: Mapping[str, Any], cause: RequestContext) -> dict[str, Any]:
    return {
        "id": event_id,
        "event_type": event_type,
        "source": SOURCE,
        "status": EventStatus.ACCEPTED,
        "payload": orjson.Fragment(to_json(payload)),
        "critical": False,
        "priority": Priority.NORMAL,
        "request_id": cause.request_id,
        "traceparent": cause.traceparent,
        "created_at": time_of(event_id),
        "lease": 0,
    }
