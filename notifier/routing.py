"""From an event to its notifications: who hears of it, and over what.

Fan-out takes a batch of events in one transaction, their rows locked. It may run any number of times for the
same event: notifications have derived ids, and a processed event is passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from notifier.channels import Channel, EventStatus, Status
from notifier.drafts import Lease, Row, Target, as_document, insert_notifications, notification_of
from notifier.ids import new_id

Hints = list[tuple[str, UUID]]

_LOCK: Final = text(f"""
    SELECT * FROM events WHERE id = ANY(:ids) AND status = '{EventStatus.ACCEPTED}' ORDER BY id FOR UPDATE
""")
_FINISH: Final = text(f"""
    UPDATE events SET status = '{EventStatus.PROCESSED}', due_at = NULL, error = NULL WHERE id = ANY(:ids)
""")
_INSERT: Final = text(insert_notifications())
_NOTE_ERROR: Final = text("UPDATE events SET error = :error WHERE id = :id AND status = 'accepted'")


def targets_of(event: Mapping[str, Any]) -> list[Target]:
    """Who hears of an event. One that names its recipient goes there; one that matches nobody makes nothing.

    A user whose address is not known is a target without recipient, so that the reader sees why nothing came.
    """
    if event["recipient"] is not None:
        return [Target(Channel(event["channel"]), event["recipient"], event["user_id"])]
    if event["user_id"] is not None:
        channel = Channel(event["channel"]) if event["channel"] else None
        return [Target(channel, None, event["user_id"])]
    return []


def _write(connection: Connection, rows: Sequence[Row]) -> Hints:
    if rows:
        connection.execute(_INSERT, {"notifications": as_document(rows)})
    return [(row["queue"], row["id"]) for row in rows if row["status"] == Status.QUEUED]


def fan_out(engine: Engine, event_ids: Sequence[UUID], lease: Lease) -> Hints:
    """Make the notifications of accepted events, in one transaction; returns what can be sent at once.

    Raises what the database or an event's data raises; nothing is written then.
    """
    with engine.begin() as connection:
        events = [dict(row) for row in connection.execute(_LOCK, {"ids": list(event_ids)}).mappings()]
        hints = _write(
            connection, [notification_of(event, target, lease) for event in events for target in targets_of(event)]
        )
        connection.execute(_FINISH, {"ids": [event["id"] for event in events]})
    return hints


def note_failure(engine: Engine, event_id: UUID, error: str) -> None:
    """Remember why an event's fan-out failed. It is left to its lease, and dead-lettered when handed over too often."""
    with engine.begin() as connection:
        connection.execute(_NOTE_ERROR, {"id": event_id, "error": error[:1024]})


def replay(engine: Engine, event: Mapping[str, Any], lease: Lease) -> Hints:
    """Fan an event out again, as new notifications; returns what can be sent at once.

    Each call is a replay of its own: what the first fan-out made stays as it is.
    """
    replay_id = new_id()
    with engine.begin() as connection:
        return _write(connection, [notification_of(event, target, lease, replay_id) for target in targets_of(event)])
