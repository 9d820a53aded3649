"""Fan-out: turn an event into its notifications, for every recipient and channel.

Fan-out takes a batch of events in one transaction, their rows locked. It may run any number of times for the same
event: notifications have derived ids, and a processed event is skipped.
"""

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, text

from notifier.content.templates import Catalogue, catalogue
from notifier.notifications.cancellation import replace_older
from notifier.notifications.status_events import emit_status_events
from notifier.observability import metrics
from notifier.observability.request_context import RequestContext
from notifier.observability.tracing import BatchTrace
from notifier.people.users import Person, people
from notifier.planning import handlers, routes
from notifier.planning.drafts import as_document, insert_notifications
from notifier.planning.plans import Origin, Plan, Planner, Row, plan_of
from notifier.planning.subscribers import Subscriber, SubscriberCache, SubscriberIndex
from notifier.runtime.isolation import Broken, attempt
from notifier.security.address_seals import seals_of
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.ids import derived_id, millisecond_of, new_id, time_of
from notifier.vocabulary.queues import FAN_OUT, queue_for
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, EventStatus, Priority, Status
from notifier.vocabulary.strict_json import parse_object
from notifier.webhooks.subscriptions import keep_enabled

log = structlog.get_logger()

Hints = list[tuple[str, UUID]]

#: Notifications to subscriptions that one transaction makes at the most.
CHUNK: Final = 5000
#: Seconds for which one transaction asks filters.
_FILTERING: Final = 0.5
#: The place before the first subscription.
_FIRST: Final = UUID(int=0)

_LOCK: Final = text(f"""
    SELECT * FROM events WHERE id = ANY(:ids) AND status = '{EventStatus.ACCEPTED}' ORDER BY id FOR UPDATE
""")
_FINISH: Final = text(f"""
    UPDATE events SET status = '{EventStatus.PROCESSED}', due_at = NULL, error = NULL WHERE id = ANY(:ids)
""")
_INSERT: Final = text(insert_notifications())
_KEEP_PLACE: Final = text("""
    UPDATE events e SET fan_out_after = kept.place, handovers = 0, due_at = now() + :lease * interval '1 second'
    FROM unnest(CAST(:ids AS uuid[]), CAST(:places AS uuid[])) AS kept(id, place) WHERE e.id = kept.id
""")
# One that is locked is being fanned out, and a message that was doubled finds another number.
_BEGIN: Final = text(f"""
    WITH free AS MATERIALIZED (
        SELECT id FROM events
        WHERE id = ANY(:ids) AND status = '{EventStatus.ACCEPTED}' AND greatest(handovers, 0) = :begun
        ORDER BY id FOR UPDATE SKIP LOCKED
    )
    UPDATE events e SET handovers = greatest(handovers, 0) + 1, due_at = now() + :lease * interval '1 second'
    FROM free WHERE e.id = ANY(:ids) AND e.id = free.id
    RETURNING e.id
""")
_WITHDRAW: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM events WHERE id = ANY(:ids) AND status = '{EventStatus.ACCEPTED}' AND handovers > 0
        ORDER BY id FOR UPDATE
    )
    UPDATE events e SET handovers = handovers - 1 FROM locked WHERE e.id = ANY(:ids) AND e.id = locked.id
""")
_NOTE_ERROR: Final = text("UPDATE events SET error = :error WHERE id = :id AND status = 'accepted'")


def plans_of(event: Mapping[str, Any], definitions: Mapping[str, routes.Definition]) -> list[Plan]:
    """Return the plans of an event. Routes and handlers apply only if it names neither recipient nor user."""
    own = plan_of(event)
    if own is not None:
        return [own]
    view = routes.view_of(event)
    made = [plan for name, route in definitions.items() for plan in routes.plans(name, route, event, view)]
    return made + handlers.plans(view)


def _own_rows(
    connection: Connection, planner: Planner, events: Sequence[Mapping[str, Any]], replay_id: UUID | None = None
) -> list[Row]:
    """Return the notifications of events, without subscriptions; the number of queries is constant."""
    unaddressed = any(plan_of(event) is None for event in events)
    definitions = routes.definitions(connection, enabled_only=True) if unaddressed else {}
    planned = [(event, plan) for event in events for plan in plans_of(event, definitions)]
    persons = people(connection, (plan.user_id for _, plan in planned), keep=True)
    templates = catalogue(connection, (plan.template for _, plan in planned))
    rows = []
    for event, plan in planned:
        cancelled = event["cancelled_at"] is not None and replay_id is None
        cause = RequestContext(event["request_id"], event["traceparent"])
        origin = Origin(replay_id or event["id"], event["source"], event["id"], event["event_type"], cancelled, cause)
        rows += _rows_of(planner, plan, event, origin, persons.get(plan.user_id or ""), templates)
    return rows


def _rows_of(
    planner: Planner,
    plan: Plan,
    event: Mapping[str, Any],
    origin: Origin,
    person: Person | None,
    templates: Catalogue,
) -> list[Row]:
    """Return the rows of a plan. A route's unusable plan is refused; any other error is its event's own failure."""
    if plan.route is None:
        return planner.rows(plan, origin, person, templates)
    made = attempt("route", plan.route, lambda: planner.rows(plan, origin, person, templates))
    if isinstance(made, Broken):
        return planner.rows(routes.refused(plan.route, event, made), origin, None, templates)
    return made


def _rows_for(
    event: Mapping[str, Any],
    subscribers: Sequence[Subscriber],
    enabled: Collection[UUID],
    planner: Planner,
    origin_id: UUID,
) -> list[Row]:
    """Return the notifications of an event to subscriptions; disabled ones are skipped, and can be recovered."""
    priority = Priority(event["priority"])
    queue = queue_for(Channel.WEBHOOK, priority)
    lease, created_at, millisecond = planner.lease(queue), time_of(origin_id), millisecond_of(origin_id)
    cancelled = event["cancelled_at"] is not None and origin_id == event["id"]
    usual = Status.CANCELLED if cancelled else Status.QUEUED
    common = {
        "origin_id": origin_id,
        "event_id": event["id"],
        "event_type": event["event_type"],
        "source": event["source"],
        "channel": Channel.WEBHOOK,
        "category": event["category"],
        "critical": event["critical"],
        "priority": priority,
        "queue": queue,
        "cancellation_key": event["cancellation_key"],
        "request_id": event["request_id"],
        "traceparent": event["traceparent"],
        "created_at": created_at,
        "lease": lease,
    }
    skipped = {
        "status": Status.SKIPPED,
        "reason": Reason.SUBSCRIPTION_DISABLED,
        "explanation": "The subscription is disabled.",
    }
    return [
        {
            **common,
            "id": derived_id(millisecond, origin_id, "subscription", each.id),
            "recipient": each.url,
            "subscription_id": each.id,
            **({"status": usual} if each.id in enabled else skipped),
        }
        for each in subscribers
    ]


def _write(connection: Connection, rows: Sequence[Row]) -> Hints:
    if rows:
        connection.execute(_INSERT, {"notifications": as_document(rows)})
        replace_older(connection, rows)
        emit_status_events(connection, [row["id"] for row in rows if row["status"] in {Status.SKIPPED, Status.EXPIRED}])
    return [(row["queue"], row["id"]) for row in rows if row["status"] == Status.QUEUED]


def fan_out(
    engine: Engine, event_ids: Sequence[UUID], planner: Planner, memory: SubscriberCache, trace: BatchTrace
) -> Hints:
    """Create the notifications of accepted events, in one transaction; returns those that can be sent at once.

    Creates at most CHUNK notifications to subscriptions at a time, and evaluates filters for half a second. An event
    that has more saves its progress and is handed over again, as are the events behind it. Raises the errors of the
    database or of an event's data; nothing is written then.
    """
    with engine.begin() as connection:
        events = [dict(row) for row in connection.execute(_LOCK, {"ids": list(event_ids)}).mappings()]
        _open_recipients(connection, events)
        trace.link(event["traceparent"] for event in events)
        fresh = [event for event in events if event["fan_out_after"] is None]
        rows = _own_rows(connection, planner, fresh)
        index = memory.read(connection)
        heard, unfinished = _hear(events, index, CHUNK - len(rows))
        enabled = _enabled(connection, [each for subscribers in heard.values() for each in subscribers])
        for event in events:
            rows += _rows_for(event, heard.get(event["id"], ()), enabled, planner, event["id"])
        hints = _write(connection, rows)
        finished = [event["id"] for event in events if event["id"] not in unfinished]
        connection.execute(_FINISH, {"ids": finished})
        if unfinished:
            values = {"ids": list(unfinished), "places": list(unfinished.values()), "lease": planner.lease(FAN_OUT)}
            connection.execute(_KEEP_PLACE, values)
            hints += [(FAN_OUT, event_id) for event_id in unfinished]
    metrics.count_finished(rows)
    _log_fanned_out(events, rows, unfinished)
    return hints


def _open_recipients(connection: Connection, events: Iterable[dict[str, Any]]) -> None:
    """Open the addresses that events name, to evaluate them; notifications are stored with sealed addresses."""
    seals = seals_of(connection)
    for event in events:
        if event["recipient"] is not None:
            event["recipient"] = seals.opened_or_kept(event["recipient"])


def _log_fanned_out(events: Sequence[Mapping[str, Any]], rows: Sequence[Row], unfinished: Container[UUID]) -> None:
    """Log a line for each event: how many notifications it made, and whether more will follow."""
    made = Counter(row["event_id"] for row in rows)
    for event in events:
        ids = {name: event[name] for name in ("request_id", "traceparent") if event[name] is not None}
        log.info(
            "fanned_out",
            event_id=str(event["id"]),
            event_type=event["event_type"],
            **ids,
            notifications=made[event["id"]],
            finished=event["id"] not in unfinished,
        )


def _hear(
    events: Sequence[Mapping[str, Any]], index: SubscriberIndex, room: int
) -> tuple[dict[UUID, list[Subscriber]], dict[UUID, UUID]]:
    """Return the next subscribers of some events, as far as there is room, and where unfinished events stopped.

    Filters have a time limit: a hundred events, each with thousands of subscribers whose filters match none of them,
    would otherwise hold one transaction for minutes. At least one is checked each time.
    """
    heard: dict[UUID, list[Subscriber]] = {}
    unfinished: dict[UUID, UUID] = {}
    until = time.monotonic() + _FILTERING
    late = False
    for event in events:
        place: UUID | None = event["fan_out_after"]
        candidates = index.of(event["event_type"])
        if place is not None:
            candidates = candidates[bisect_right(candidates, place, key=lambda each: each.id) :]
        view = routes.view_of(event) if candidates else {}
        for each in candidates:
            if room <= 0 or late:
                unfinished[event["id"]] = place or _FIRST
                break
            if each.wants(view):
                heard.setdefault(event["id"], []).append(each)
                room -= 1
            place = each.id
            late = late or (each.filter is not None and time.monotonic() >= until)
    return heard, unfinished


def _enabled(connection: Connection, subscribers: Sequence[Subscriber]) -> set[UUID]:
    """Return which of some subscribers are enabled.

    A disabled subscription stays so until the transaction ends: enabling it later, and recovering what it has missed,
    finds the rows that are skipped here.
    """
    off = {each.id for each in subscribers if not each.enabled}
    return {each.id for each in subscribers} - off | keep_enabled(connection, off)


def begin(engine: Engine, event_ids: Sequence[UUID], begun: int, lease: float) -> list[UUID]:
    """Count that the fan-out of events begins, before it does; returns those to be fanned out.

    A fan-out that kills its worker leaves no other trace. `begun`: how often each was begun before; events with another
    number by now, or in a fan-out, belong to another worker. Other workers leave them alone for `lease` seconds.
    """
    with engine.begin() as connection:
        return list(connection.scalars(_BEGIN, {"ids": list(event_ids), "begun": begun, "lease": lease}))


def withdraw(engine: Engine, event_ids: Sequence[UUID]) -> None:
    """Count a beginning no longer: it was Postgres that kept these events from being fanned out."""
    with engine.begin() as connection:
        connection.execute(_WITHDRAW, {"ids": list(event_ids)})


def note_failure(engine: Engine, event_id: UUID, error: str) -> None:
    """Remember why an event's fan-out failed. It is left to its lease, and dead-lettered when begun too often."""
    with engine.begin() as connection:
        connection.execute(_NOTE_ERROR, {"id": event_id, "error": error[:1024]})


# Until the transaction ends it stays: no purge takes an event from under its new notifications.
_KEEP: Final = text("SELECT id FROM events WHERE id = :id FOR KEY SHARE")


def replay(engine: Engine, event: Mapping[str, Any], planner: Planner, memory: SubscriberCache) -> Hints:
    """Fan an event out again, as new notifications; returns those that can be sent at once.

    Each call is a separate replay: notifications of the first fan-out stay as they are. Raises Conflict if the event
    was purged meanwhile, or if its payload is not accepted any more.
    """
    replay_id = new_id()
    with engine.begin() as connection:
        if connection.scalar(_KEEP, {"id": event["id"]}) is None:
            raise Conflict("This event has outlived its retention, and was purged just now.")
        try:
            parse_object(str(event["payload"]).encode())
        except ValueError as error:
            raise Conflict(f"Its payload would not be accepted any more, and is not sent once more: {error}") from None
        event = dict(event)
        _open_recipients(connection, [event])
        rows = _own_rows(connection, planner, [event], replay_id)
        index, view = memory.read(connection), routes.view_of(event)
        heard = [each for each in index.of(event["event_type"]) if each.wants(view)]
        rows += _rows_for(event, heard, _enabled(connection, heard), planner, replay_id)
        hints = _write(connection, rows)
    metrics.count_finished(rows)
    return hints
