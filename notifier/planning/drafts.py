"""Drafts: the rows of events and notifications that a validated request or a fan-out makes, ready to be written.

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

from notifier.content.templates import Catalogue
from notifier.models import Base, Event, Notification
from notifier.models.columns import drafted
from notifier.observability.request_context import UNKNOWN, RequestContext
from notifier.people.users import Person
from notifier.planning.plans import Origin, Plan, Planner, Row, plan_of
from notifier.planning.subscribers import SubscriberIndex
from notifier.vocabulary.event_types import status_event_type
from notifier.vocabulary.ids import new_id, time_of
from notifier.vocabulary.queues import FAN_OUT
from notifier.vocabulary.states import FINISHED, EventStatus, Priority, Status

#: Seconds after which the clock looks after an event for which no message was sent.
_LEASE: Final = 5


def _insert(model: type[Base], parameter: str, condition: str, expressions: Mapping[str, str]) -> str:
    """`expressions`: what is written where that is not simply the row's own value."""
    columns = drafted(model)
    types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    written = {**{name: name for name in columns}, **expressions}
    # Ids are made beforehand, and some are derived: writing a row again makes no second one.
    return (
        f"INSERT INTO {model.__tablename__} ({', '.join(written)}) SELECT {', '.join(written.values())}"
        f" FROM json_to_recordset(CAST(:{parameter} AS json))"
        f" AS row({types}, key text, lease double precision, due_at timestamptz)"
        f" {condition} ON CONFLICT (id) DO NOTHING"
    )


def insert_events(condition: str = "") -> str:
    """Return SQL that inserts the rows in `:events` (see `as_document`) that meet a WHERE clause over `row`.

    An event that is processed already, since nobody was known to listen, is fanned out all the same where somebody
    may have begun to: where `:version` is not the version of the listeners.
    """
    status = f"CASE WHEN (SELECT version FROM listeners) = :version THEN status ELSE '{EventStatus.ACCEPTED}' END"
    leased = f"now() + coalesce(lease, {_LEASE}) * interval '1 second'"
    due_at = f"CASE WHEN {status} = '{EventStatus.ACCEPTED}' THEN {leased} END"
    return _insert(Event, "events", condition, {"status": status, "due_at": due_at})


def insert_notifications(condition: str = "") -> str:
    """Return SQL that inserts the rows in `:notifications` that meet a WHERE clause over `row`."""
    due_at = (
        f"CASE status WHEN '{Status.QUEUED}' THEN now() + lease * interval '1 second'"
        f" WHEN '{Status.SCHEDULED}' THEN row.due_at END"
    )
    return _insert(Notification, "notifications", condition, {"rule": "explanation", "due_at": due_at})


def as_document(rows: Sequence[Row]) -> str:
    """Return rows as the JSON document that the INSERT statements read."""
    return orjson.dumps(rows).decode()


@dataclass(frozen=True, slots=True)
class Draft:
    """The rows of one request: an event and its notifications, or notifications alone, and its idempotency key."""

    source: str
    event: Row | None
    notifications: tuple[Row, ...]
    idempotency_key: str | None
    #: SHA-256 over the body, to tell a repeated request from another one with the same key.
    fingerprint: bytes
    #: The version of the listeners by which it was decided whether anybody else must hear of it.
    version: int = 0

    @property
    def ids(self) -> list[UUID]:
        """The ids in the answer: the event's, or those of the notifications."""
        return [self.event["id"]] if self.event else [row["id"] for row in self.notifications]

    @property
    def created_at(self) -> datetime:
        """The time at which it was accepted."""
        return time_of(self.ids[0])

    @property
    def cause(self) -> RequestContext:
        """The request that made it."""
        row = self.event or self.notifications[0]
        return RequestContext(row.get("request_id"), row.get("traceparent"))

    @property
    def hints(self) -> list[tuple[str, UUID]]:
        """(queue, id) of each row that is due now."""
        due = [(row["queue"], row["id"]) for row in self.notifications if row["status"] == Status.QUEUED]
        if self.event and self.event["status"] == EventStatus.ACCEPTED:
            due.append((FAN_OUT, self.event["id"]))
        return due


def draft_event(
    source: str,
    fields: Mapping[str, Any],
    payload: bytes,
    fingerprint: bytes,
    planner: Planner,
    catalogue: Catalogue,
    index: SubscriberIndex,
    cause: RequestContext = UNKNOWN,
) -> Draft:
    """Draft a validated event. `fields` are the columns of an event that a caller gives; `payload` is JSON text.

    One that names its recipient gets its notification at once. It needs no fan-out then, unless more must be known or
    somebody listens for its type.
    """
    event_id = new_id()
    event = {**fields, "source": source, "id": event_id, "created_at": time_of(event_id)}
    event["priority"] = Priority.HIGH if fields["critical"] else fields["priority"]
    key = event["key"] = event["idempotency_key"]
    event["payload"] = orjson.Fragment(payload)
    event |= {"request_id": cause.request_id, "traceparent": cause.traceparent}
    if event["recipient"] is not None:
        event["recipient"] = planner.seals.kept(event["channel"], event["recipient"])
    needs_fan_out = event["recipient"] is None or _must_know_more(event)
    if needs_fan_out or index.is_heard(event["event_type"]):
        event |= {"status": EventStatus.ACCEPTED, "lease": planner.lease(FAN_OUT)}
    else:
        event["status"] = EventStatus.PROCESSED
    if needs_fan_out:
        return Draft(source, event, (), key, fingerprint, index.version)
    plan = plan_of(event)
    origin = Origin(event_id, source, event_id, event["event_type"], cause=cause)
    rows = planner.rows(plan, origin, None, catalogue) if plan else []
    ended = {Status(row["status"]) for row in rows} & FINISHED
    if any(index.is_heard(status_event_type(status)) for status in ended):
        event |= {"status": EventStatus.ACCEPTED, "lease": planner.lease(FAN_OUT)}  # which tells of it
    return Draft(source, event, tuple(row | {"key": key} for row in rows), key, fingerprint, index.version)


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
    cause: RequestContext = UNKNOWN,
) -> Draft:
    """Draft the notifications of a validated request without an event."""
    rows = planner.rows(plan, Origin(new_id(), source, cause=cause), person, catalogue)
    return Draft(source, None, tuple(row | {"key": key} for row in rows), key, fingerprint)
