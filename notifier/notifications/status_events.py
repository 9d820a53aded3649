"""Status events: a notification's final or sent status, as an event of our own (`notifier.notification.*`).

They let a calling service learn of a failure without polling. They are written in the transaction that changes the
status, and only if somebody subscribes. Notifications of our own events cause none, or status events would never end.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from notifier.notifications.system_events import emit
from notifier.observability.request_context import RequestContext
from notifier.vocabulary.event_types import OURS, matches, status_event_type
from notifier.vocabulary.states import Status

#: The statuses that cause an event, each of its own type.
EMITTED: Final = (Status.SENT, Status.DELIVERED, Status.FAILED, Status.EXPIRED, Status.SKIPPED)

_TYPES: Final = {status: status_event_type(status) for status in EMITTED}
#: Every pattern that means any of the types.
_PATTERNS: Final = sorted(
    {*_TYPES.values()} | {f"{name[:length]}*" for name in _TYPES.values() for length in range(len(name) + 1)}
)
_WANTED: Final = text("""
    SELECT DISTINCT pattern FROM subscriptions, unnest(event_types) AS pattern
    WHERE event_types && CAST(:patterns AS text[])
""")
_ROWS: Final = text(f"""
    SELECT id AS notification_id, event_id, event_type, user_id, channel, category, status, reason, attempts,
        subscription_id, request_id, traceparent
    FROM notifications
    WHERE id = ANY(:ids) AND status = ANY(:statuses) AND coalesce(event_type, '') NOT LIKE '{OURS}%' ORDER BY id
""")


def emit_status_events(connection: Connection, notification_ids: Sequence[UUID]) -> None:
    """Write the status events of some notifications, in the connection's transaction, if anybody subscribes."""
    if not notification_ids:
        return
    wishes = list(connection.scalars(_WANTED, {"patterns": _PATTERNS}))
    wanted = [status for status, name in _TYPES.items() if any(matches(pattern, name) for pattern in wishes)]
    if not wanted:
        return
    rows = connection.execute(_ROWS, {"ids": list(notification_ids), "statuses": wanted}).mappings()
    events = []
    for row in rows:
        payload = dict(row)
        cause = RequestContext(payload.pop("request_id"), payload.pop("traceparent"))
        events.append((_TYPES[Status(row["status"])], payload, cause))
    emit(connection, events)
