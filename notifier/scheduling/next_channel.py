"""Strategy `first`: the next channel, after one that could not be used or whose notification is dead.

A skipped or failed row that still has `next_channels` owes its successor. The clock creates it, so that a worker that
dies in between forgets nothing, and the last of several push tokens to fail brings the next channel, once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Engine, text

from notifier.content.templates import Catalogue, catalogue
from notifier.notifications.status_events import emit_status_events
from notifier.observability import metrics
from notifier.observability.request_context import RequestContext
from notifier.people.users import Person, people
from notifier.planning.drafts import as_document, insert_notifications
from notifier.planning.plans import Origin, Plan, Planner, Row, Strategy, next_in_line, shared_fields
from notifier.runtime.isolation import broken, in_parts
from notifier.vocabulary.queues import BATCH
from notifier.vocabulary.states import FINISHED, Channel, Status

_OWING: Final = text(f"""
    SELECT id FROM notifications
    WHERE next_channels IS NOT NULL AND status IN ('{Status.FAILED}', '{Status.SKIPPED}') ORDER BY id LIMIT {BATCH}
""")
_OWED: Final = text(f"""
    SELECT n.*, CAST(n.content AS text) AS content_text, (
        SELECT array_agg(s.status) FROM notifications s WHERE s.id = ANY(n.siblings)
    ) AS beside
    FROM notifications n
    WHERE n.id = ANY(:ids) AND n.next_channels IS NOT NULL AND n.status IN ('{Status.FAILED}', '{Status.SKIPPED}')
    ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
""")
_INSERT: Final = text(insert_notifications())
_SETTLED: Final = text("UPDATE notifications SET next_channels = NULL WHERE id = ANY(:ids)")

#: As long as one beside it may still arrive, the next channel waits.
_HOPEFUL: Final = frozenset({Status.SCHEDULED, Status.QUEUED, Status.SENDING, Status.RETRYING})
_REACHED: Final = frozenset({Status.SENT, Status.DELIVERED})


def take_over(engine: Engine, planner: Planner) -> int:
    """Create the successors that some rows owe, a batch of them; returns how many rows were made.

    They are due at once. Any number of clocks may call it; ids are derived, so none is made twice. A row whose
    successor cannot be created owes none any more, and delays no other.
    """
    made = 0
    with engine.connect() as connection:
        owing = list(connection.scalars(_OWING))

    def work(ids: Sequence[UUID]) -> None:
        nonlocal made
        made += _take_over(engine, planner, ids) if ids else 0

    def give_up(row_id: UUID, error: Exception) -> None:
        broken("next channel", error, row_id)
        with engine.begin() as connection:
            connection.execute(_SETTLED, {"ids": [row_id]})

    in_parts(owing, work, give_up)
    return made


def _take_over(engine: Engine, planner: Planner, ids: Sequence[UUID]) -> int:
    """Create the successors that some rows owe; returns how many rows were made. Raises the errors of their data."""
    rows: list[Row] = []
    with engine.begin() as connection:
        owed = [dict(row) for row in connection.execute(_OWED, {"ids": list(ids)}).mappings()]
        if not owed:
            return 0
        settled: list[UUID] = []
        persons = people(connection, (row["user_id"] for row in owed), keep=True)
        templates = catalogue(connection, (row["template"] for row in owed))
        for row in owed:
            beside = set(row["beside"] or ())
            if beside & _HOPEFUL:
                continue
            settled.append(row["id"])
            if not beside & _REACHED:
                person = persons.get(row["user_id"] or "")
                rows += _successors(planner, row, person, templates)
        if rows:
            connection.execute(_INSERT, {"notifications": as_document(rows)})
            emit_status_events(connection, [row["id"] for row in rows if row["status"] in FINISHED])
        connection.execute(_SETTLED, {"ids": settled})
    metrics.count_finished(rows)
    return len(rows)


def _successors(planner: Planner, row: Mapping[str, Any], person: Person | None, templates: Catalogue) -> list[Row]:
    cause = RequestContext(row["request_id"], row["traceparent"])
    origin = Origin(row["origin_id"], row["source"], row["event_id"], row["event_type"], cause=cause)
    return next_in_line(planner, _plan_behind(row), row["id"], origin, person, templates)


def _plan_behind(row: Mapping[str, Any]) -> Plan:
    """Return the rest of the plan that created a row."""
    content, lead_time = row["content_text"], row["lead_time"]
    return Plan(
        user_id=row["user_id"],
        channels=tuple(Channel(channel) for channel in row["next_channels"]),
        strategy=Strategy.FIRST,
        content=None if content is None else orjson.Fragment(content),
        route=row["route"],
        **shared_fields({**row, "send_at": None, "lead_time": [lead_time] if lead_time else []}),
    )
