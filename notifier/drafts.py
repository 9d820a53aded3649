"""Rows ready to be written: what a validated request, or a fan-out, makes of events and notifications.

Rows are plain dictionaries of column values that go to Postgres as one JSON document a group
(`json_to_recordset`): a statement has three parameters however many rows it writes, and payloads travel as
the text they came in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from notifier.channels import EventStatus, Priority, Status
from notifier.ids import new_id, time_of
from notifier.lanes import FAN_OUT
from notifier.plans import Origin, Plan, Planner, Row, plan_of
from notifier.templates import Catalogue
from notifier.users import Person

_EVENT_COLUMNS: Final = {
    "id": "uuid",
    "event_type": "text",
    "source": "text",
    "status": "text",
    "payload": "json",
    "recipient": "text",
    "channel": "text",
    "user_id": "text",
    "template": "text",
    "category": "text",
    "critical": "boolean",
    "priority": "text",
    "send_at": "timestamptz",
    "expires_at": "timestamptz",
    "target_date": "timestamptz",
    "lead_time": "text[]",
    "timezone": "text",
    "cancellation_key": "text",
    "dedup_key": "text",
    "dedup_window": "text",
    "idempotency_key": "text",
    "occurred_at": "timestamptz",
    "created_at": "timestamptz",
}
_NOTIFICATION_COLUMNS: Final = {
    "id": "uuid",
    "origin_id": "uuid",
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
    "rule": "text",
    "route": "text",
    "send_at": "timestamptz",
    "expires_at": "timestamptz",
    "target_date": "timestamptz",
    "lead_time": "text",
    "timezone": "text",
    "cancellation_key": "text",
    "dedup_key": "text",
    "dedup_window": "text",
    "template": "text",
    "template_id": "uuid",
    "template_version": "integer",
    "next_channels": "text[]",
    "siblings": "uuid[]",
    "follows": "uuid",
    "created_at": "timestamptz",
}


def _insert(table: str, columns: Mapping[str, str], parameter: str, due_at: str, condition: str) -> str:
    names = ", ".join(columns)
    types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    # Ids are made beforehand, and some are derived: writing a row again makes no second one.
    return (
        f"INSERT INTO {table} ({names}, due_at) SELECT {names}, {due_at}"
        f" FROM json_to_recordset(CAST(:{parameter} AS json))"
        f" AS row({types}, key text, lease double precision, due_at timestamptz)"
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
        f" WHEN '{Status.SCHEDULED}' THEN row.due_at END"
    )
    return _insert("notifications", _NOTIFICATION_COLUMNS, "notifications", due_at, condition)


def as_document(rows: Sequence[Row]) -> str:
    """Rows as the JSON document that the INSERT statements read."""
    return orjson.dumps(rows).decode()


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


def draft_event(
    source: str, fields: Mapping[str, Any], payload: bytes, fingerprint: bytes, planner: Planner, catalogue: Catalogue
) -> Draft:
    """Draft a validated event. `fields` are the columns of an event that a caller gives; `payload` is JSON text.

    One that names its recipient gets its notification at once and needs no fan-out, unless more must be known.
    """
    event_id = new_id()
    event = {**fields, "source": source, "id": event_id, "created_at": time_of(event_id)}
    event["priority"] = Priority.HIGH if fields["critical"] else fields["priority"]
    key = event["key"] = event["idempotency_key"]
    event["payload"] = orjson.Fragment(payload)
    if event["recipient"] is None or _must_know_more(event):
        event |= {"status": EventStatus.ACCEPTED, "lease": planner.lease(FAN_OUT)}
        return Draft(source, event, (), key, fingerprint)
    event["status"] = EventStatus.PROCESSED
    plan = plan_of(event)
    origin = Origin(event_id, source, event_id, event["event_type"])
    rows = planner.rows(plan, origin, None, catalogue) if plan else []
    return Draft(source, event, tuple(row | {"key": key} for row in rows), key, fingerprint)


def _must_know_more(event: Row) -> bool:
    """Whether an addressed event needs its user's locale or time zone, or replaces reminders before it."""
    asks_user = event["template"] is not None or (event["target_date"] is not None and event["timezone"] is None)
    replaces = event["target_date"] is not None and event["cancellation_key"] is not None
    return replaces or (event["user_id"] is not None and asks_user)


def draft_notifications(
    source: str,
    plan: Plan,
    key: str | None,
    fingerprint: bytes,
    planner: Planner,
    person: Person | None,
    catalogue: Catalogue,
) -> Draft:
    """Draft the notifications of a validated request without an event."""
    rows = planner.rows(plan, Origin(new_id(), source), person, catalogue)
    return Draft(source, None, tuple(row | {"key": key} for row in rows), key, fingerprint)
