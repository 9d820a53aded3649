"""Rows ready to be written: what a validated request, or a fan-out, makes of events and notifications.

Rows are plain dictionaries of column values that go to Postgres as one JSON document a group
(`json_to_recordset`): a statement has three parameters however many rows it writes, and payloads travel as
the text they came in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from notifier.channels import Channel, EventStatus, Priority, Status
from notifier.ids import derived_id, millisecond_of, new_id, time_of
from notifier.lanes import FAN_OUT, lane

Row = dict[str, Any]

_EVENT_COLUMNS: Final = {
    "id": "uuid",
    "event_type": "text",
    "source": "text",
    "status": "text",
    "payload": "json",
    "recipient": "text",
    "channel": "text",
    "user_id": "text",
    "category": "text",
    "critical": "boolean",
    "priority": "text",
    "send_at": "timestamptz",
    "expires_at": "timestamptz",
    "cancellation_key": "text",
    "idempotency_key": "text",
    "occurred_at": "timestamptz",
    "created_at": "timestamptz",
}
_NOTIFICATION_COLUMNS: Final = {
    "id": "uuid",
    "event_id": "uuid",
    "event_type": "text",
    "source": "text",
    "user_id": "text",
    "recipient": "text",
    "channel": "text",
    "category": "text",
    "critical": "boolean",
    "priority": "text",
    "content": "json",
    "queue": "text",
    "status": "text",
    "reason": "text",
    "send_at": "timestamptz",
    "expires_at": "timestamptz",
    "cancellation_key": "text",
    "created_at": "timestamptz",
}


def _insert(table: str, columns: Mapping[str, str], parameter: str, due_at: str, condition: str = "") -> str:
    names = ", ".join(columns)
    types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    # Ids are made beforehand, and some are derived: writing a row again makes no second one.
    return (
        f"INSERT INTO {table} ({names}, due_at) SELECT {names}, {due_at}"
        f" FROM json_to_recordset(CAST(:{parameter} AS json)) AS row({types}, key text, lease double precision)"
        f" {condition} ON CONFLICT (id) DO NOTHING"
    )


def insert_events(condition: str = "") -> str:
    """SQL that inserts the rows in `:events` (see `as_document`), those that meet a WHERE clause over `row`."""
    due_at = f"CASE WHEN status = '{EventStatus.ACCEPTED}' THEN now() + lease * interval '1 second' END"
    return _insert("events", _EVENT_COLUMNS, "events", due_at, condition)


def insert_notifications(condition: str = "") -> str:
    """SQL that inserts the rows in `:notifications`, those that meet a WHERE clause over `row`."""
    due_at = (
        f"CASE status WHEN '{Status.QUEUED}' THEN now() + lease * interval '1 second'"
        f" WHEN '{Status.SCHEDULED}' THEN send_at END"
    )
    return _insert("notifications", _NOTIFICATION_COLUMNS, "notifications", due_at, condition)


def as_document(rows: Sequence[Row]) -> str:
    """Rows as the JSON document that the INSERT statements read."""
    return orjson.dumps(rows).decode()


Lease = Callable[[str], float]
"""Seconds that a row of a queue is left to the message that was sent for it, before the clock looks after it."""


@dataclass(frozen=True, slots=True)
class Target:
    """One recipient over one channel, as routing resolved it. Without a recipient it is skipped: `no_address`."""

    channel: Channel | None
    recipient: str | None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What one request makes: an event, its notifications, or notifications alone, and its idempotency key."""

    source: str
    event: Row | None
    notifications: tuple[Row, ...]
    idempotency_key: str | None
    #: SHA-256 over the body, to tell a repeated request from another one with the same key.
    fingerprint: bytes

    @property
    def ids(self) -> list[UUID]:
        """What the caller is told: the event's id, or those of the notifications."""
        return [self.event["id"]] if self.event else [row["id"] for row in self.notifications]

    @property
    def created_at(self) -> datetime:
        """When it was accepted."""
        return time_of(self.ids[0])

    @property
    def hints(self) -> list[tuple[str, UUID]]:
        """(queue, id) of what is due now."""
        due = [(row["queue"], row["id"]) for row in self.notifications if row["status"] == Status.QUEUED]
        if self.event and self.event["status"] == EventStatus.ACCEPTED:
            due.append((FAN_OUT, self.event["id"]))
        return due


def notification_row(
    origin: Mapping[str, Any], target: Target, notification_id: UUID, created_at: datetime, lease: Lease
) -> Row:
    """A new notification of an event (or of a direct request, which has no `event_type`) to one target."""
    priority = Priority(origin["priority"])
    queue = lane(target.channel, priority) if target.channel else FAN_OUT
    send_at: datetime | None = origin["send_at"]
    status, reason = Status.QUEUED, None
    if target.recipient is None:
        status, reason = Status.SKIPPED, "no_address"
    elif send_at is not None and send_at > created_at:
        status = Status.SCHEDULED
    return {
        "id": notification_id,
        "event_id": origin.get("id"),
        "event_type": origin.get("event_type"),
        "source": origin["source"],
        "user_id": target.user_id,
        "recipient": target.recipient,
        "channel": target.channel,
        "category": origin["category"],
        "critical": origin["critical"],
        "priority": priority,
        "queue": queue,
        "status": status,
        "reason": reason,
        "send_at": send_at,
        "expires_at": origin["expires_at"],
        "cancellation_key": origin["cancellation_key"],
        "created_at": created_at,
        "lease": lease(queue),
    }


def notification_of(event: Mapping[str, Any], target: Target, lease: Lease, replay_id: UUID | None = None) -> Row:
    """The notification of an event to one target; the same again whenever it is made again.

    Its id is derived from event (or replay) and target, which makes fan-out idempotent: one event and one
    target make one notification, however often it runs.
    """
    origin_id = replay_id or event["id"]
    notification_id = derived_id(millisecond_of(origin_id), origin_id, target.recipient, target.channel, target.user_id)
    return notification_row(event, target, notification_id, time_of(origin_id), lease)


def _fields_with_priority(fields: Mapping[str, Any], source: str) -> Row:
    priority = Priority.HIGH if fields["critical"] else fields["priority"]
    return {**fields, "source": source, "priority": priority}


def draft_event(source: str, fields: Mapping[str, Any], payload: bytes, fingerprint: bytes, lease: Lease) -> Draft:
    """Draft a validated event. `fields` are the columns of an event that a caller gives; `payload` is JSON text.

    One that names its recipient gets its notification at once and needs no fan-out.
    """
    event_id = new_id()
    event = _fields_with_priority(fields, source)
    key = event["key"] = event["idempotency_key"]
    event |= {"id": event_id, "created_at": time_of(event_id), "payload": orjson.Fragment(payload)}
    if event["recipient"] is None:
        event |= {"status": EventStatus.ACCEPTED, "lease": lease(FAN_OUT)}
        return Draft(source, event, (), key, fingerprint)
    event["status"] = EventStatus.PROCESSED
    target = Target(event["channel"], event["recipient"], event["user_id"])
    notification = notification_of(event, target, lease) | {"key": key}
    return Draft(source, event, (notification,), key, fingerprint)


def draft_notification(
    source: str, fields: Mapping[str, Any], content: bytes, fingerprint: bytes, lease: Lease
) -> Draft:
    """Draft a validated notification without an event. `content` is `{"subject", "body"}` as JSON text."""
    notification_id = new_id()
    origin = _fields_with_priority(fields, source)
    target = Target(origin["channel"], origin["recipient"], origin.get("user_id"))
    row = notification_row(origin, target, notification_id, datetime.now(UTC), lease)
    key = origin["idempotency_key"]
    row |= {"created_at": time_of(notification_id), "content": orjson.Fragment(content), "key": key}
    return Draft(source, None, (row,), key, fingerprint)
