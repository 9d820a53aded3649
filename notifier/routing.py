"""From an event to its notifications: who hears of it, and over what.

Fan-out takes a batch of events in one transaction, their rows locked. It may run any number of times for the
same event: notifications have derived ids, and a processed event is passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from notifier import handlers, routes
from notifier.cancelling import replace_older
from notifier.channels import EventStatus, Status
from notifier.drafts import as_document, insert_notifications
from notifier.ids import new_id
from notifier.plans import Origin, Plan, Planner, Row, plan_of
from notifier.templates import catalogue
from notifier.users import people

Hints = list[tuple[str, UUID]]

_LOCK: Final = text(f"""
    SELECT * FROM events WHERE id = ANY(:ids) AND status = '{EventStatus.ACCEPTED}' ORDER BY id FOR UPDATE
""")
_FINISH: Final = text(f"""
    UPDATE events SET status = '{EventStatus.PROCESSED}', due_at = NULL, error = NULL WHERE id = ANY(:ids)
""")
_INSERT: Final = text(insert_notifications())
_NOTE_ERROR: Final = text("UPDATE events SET error = :error WHERE id = :id AND status = 'accepted'")


def plans_of(event: Mapping[str, Any], definitions: Mapping[str, routes.Definition]) -> list[Plan]:
    """What becomes of an event. Routes and handlers apply only where it names neither recipient nor user."""
    own = plan_of(event)
    if own is not None:
        return [own]
    view = routes.view_of(event)
    made = [plan for name, route in definitions.items() for plan in routes.plans(name, route, event, view)]
    return made + handlers.plans(view)


def _rows(
    connection: Connection, planner: Planner, events: Sequence[Mapping[str, Any]], replay_id: UUID | None = None
) -> list[Row]:
    """The notifications of events; a constant number of queries however many events there are."""
    unaddressed = any(plan_of(event) is None for event in events)
    definitions = routes.definitions(connection, enabled_only=True) if unaddressed else {}
    planned = [(event, plan) for event in events for plan in plans_of(event, definitions)]
    persons = people(connection, (plan.user_id for _, plan in planned), keep=True)
    templates = catalogue(connection, (plan.template for _, plan in planned))
    rows = []
    for event, plan in planned:
        cancelled = event["cancelled_at"] is not None and replay_id is None
        origin = Origin(replay_id or event["id"], event["source"], event["id"], event["event_type"], cancelled)
        rows += planner.rows(plan, origin, persons.get(plan.user_id or ""), templates)
    return rows


def _write(connection: Connection, rows: Sequence[Row]) -> Hints:
    if rows:
        connection.execute(_INSERT, {"notifications": as_document(rows)})
        replace_older(connection, rows)
    return [(row["queue"], row["id"]) for row in rows if row["status"] == Status.QUEUED]


def fan_out(engine: Engine, event_ids: Sequence[UUID], planner: Planner) -> Hints:
    """Make the notifications of accepted events, in one transaction; returns what can be sent at once.

    Raises what the database or an event's data raises; nothing is written then.
    """
    with engine.begin() as connection:
        events = [dict(row) for row in connection.execute(_LOCK, {"ids": list(event_ids)}).mappings()]
        hints = _write(connection, _rows(connection, planner, events))
        connection.execute(_FINISH, {"ids": [event["id"] for event in events]})
    return hints


def note_failure(engine: Engine, event_id: UUID, error: str) -> None:
    """Remember why an event's fan-out failed. It is left to its lease, and dead-lettered when handed over too often."""
    with engine.begin() as connection:
        connection.execute(_NOTE_ERROR, {"id": event_id, "error": error[:1024]})


def replay(engine: Engine, event: Mapping[str, Any], planner: Planner) -> Hints:
    """Fan an event out again, as new notifications; returns what can be sent at once.

    Each call is a replay of its own: what the first fan-out made stays as it is.
    """
    with engine.begin() as connection:
        return _write(connection, _rows(connection, planner, [event], new_id()))
