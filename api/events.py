"""Events: something happened."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from flask import Response
from sqlalchemy import ColumnElement, select

from api.auth import caller, requires
from api.database import db
from api.event_intake import answer_to, draft_of, load_event, location_of
from api.intake import KEY_HEADER_DOC, accept, accept_one, accepted, key_header, templates_of, with_key_header
from api.pagination import filtered, page
from api.permits import check_event
from api.problems import kind_of
from api.request_bodies import Body, items_of, read_batch, read_json
from api.request_heads import takes_body
from api.request_log import cause, note
from api.resources import Resource
from api.schemas.events import (
    AcceptedEventSchema,
    BatchAnswerSchema,
    BatchSchema,
    EventOutSchema,
    EventPageSchema,
    EventQuery,
    EventSchema,
    EventWithNotificationsSchema,
    TypedEventSchema,
)
from api.services import services
from notifier.diagnostics.explanations import explain_event
from notifier.events import fan_out
from notifier.events.intake import Accepted, Answer
from notifier.models import Event, Notification
from notifier.notifications.filters import is_called_by_provider, was_tried_by, ways_to_events
from notifier.observability import metrics
from notifier.planning.drafts import Draft
from notifier.security.api_keys import Scope
from notifier.vocabulary.errors import Forbidden, Invalid, NotifierError, Unavailable

blp = Resource("events", __name__, url_prefix="/api/v1/events", description="Something happened.")

#: How large an event may be.
EVENT_LIMIT: Final = attrgetter("max_event_bytes")
#: An event names its type by either word.
EVENT_BODY_DOC: Final[dict[str, Any]] = {
    "required": True,
    "content": {"application/json": {"schema": {"anyOf": [EventSchema, TypedEventSchema]}}},
}


@blp.route("", methods=["POST"])
@requires(Scope.SEND)
@takes_body(EVENT_LIMIT)
@blp.doc(requestBody=EVENT_BODY_DOC, parameters=[KEY_HEADER_DOC])
@blp.response(202, AcceptedEventSchema, description="Committed to Postgres.")
def post_event() -> Response:
    """Accept an event.

    202 means that it is committed to Postgres. A body with the idempotency key of an earlier one is answered
    with the earlier event's id, `"duplicate": true` and the header `Idempotency-Replayed: true`.

    `critical` needs the scope `critical`. A key that is limited to some channels names the channel where it names a
    recipient or a user.
    """
    return take_event()


def take_event() -> Response:
    """Accept the event that is the request's body. Raises Invalid, Forbidden or Unavailable."""
    here = services()
    body, fields = load_event(read_json(here.wiring.settings.max_event_bytes), here.wiring.channels)
    fields = with_key_header(fields, key_header())
    answer = accept_one(draft_of(here, caller(), fields, body, templates_of([fields]), cause()))
    [event_id] = answer.ids
    note(event_id=str(event_id), event_type=fields["event_type"], duplicate=answer.duplicate)
    body_out = answer_to(fields["event_type"], answer)
    return accepted(body_out, duplicate=answer.duplicate, location=location_of(event_id))


#: A text with a line that is not empty.
_SOME_LINES: Final = r"^[\s\S]*[^ \t\n\v\f\r][\s\S]*$"


@blp.route("/batch", methods=["POST"])
@requires(Scope.SEND)
@takes_body(lambda settings: settings.max_batch_bytes)
@blp.doc(
    requestBody={
        "required": True,
        "content": {
            "application/json": {"schema": BatchSchema},
            "application/x-ndjson": {
                "schema": {"type": "string", "pattern": _SOME_LINES, "description": "One event a line."}
            },
        },
    }
)
@blp.response(202, BatchAnswerSchema, description="Accepted events are committed to Postgres.")
def post_batch() -> Response:
    """Accept up to 1,000 events.

    Each item is judged on its own: one bad item never spoils its neighbours. A key that stands twice in a batch
    makes one event.
    """
    settings = services().wiring.settings
    raw_items = read_batch(settings.max_batch_bytes)
    if not 1 <= len(raw_items) <= settings.max_batch_events:
        raise Invalid({"events": [f"Send 1 to {settings.max_batch_events} events."]})
    outcomes: list[Accepted | NotifierError | None] = []
    loaded: list[tuple[Body, dict[str, Any]]] = []
    for item in items_of(raw_items, settings.max_event_bytes):
        try:
            if isinstance(item, Invalid):
                raise item
            loaded.append(load_event(item, services().wiring.channels))
            outcomes.append(None)
        except Invalid as error:
            outcomes.append(error)
    answers = _accept_all(loaded)
    away = [answer for answer in answers if isinstance(answer, Unavailable)]
    if away and len(away) == len(answers):
        raise away[0]
    written = iter(answers)
    refused = [outcome for outcome in outcomes if outcome is not None] + list(answers)
    metrics.count(
        metrics.EVENTS_REJECTED, ((str(kind_of(each).status),) for each in refused if not isinstance(each, Accepted))
    )
    items = [_item(index, next(written) if outcome is None else outcome) for index, outcome in enumerate(outcomes)]
    counts = Counter("rejected" if "errors" in item else item["status"] for item in items)
    totals = {
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": counts["rejected"],
    }
    note(**totals)
    return accepted({**totals, "items": items}, duplicate=False)


def _accept_all(loaded: Sequence[tuple[Body, dict[str, Any]]]) -> list[Answer]:
    """Draft and write the valid items of a batch: an answer each."""
    templates = templates_of([fields for _, fields in loaded])
    here, who, context = services(), caller(), cause()
    drafts: list[Draft | NotifierError] = []
    for body, fields in loaded:
        try:
            drafts.append(draft_of(here, who, fields, body, templates, context))
        except (Invalid, Forbidden) as error:
            drafts.append(error)
    answers = iter(accept([draft for draft in drafts if isinstance(draft, Draft)]))
    return [next(answers) if isinstance(draft, Draft) else draft for draft in drafts]


def _item(index: int, outcome: Accepted | NotifierError) -> dict[str, Any]:
    if isinstance(outcome, Accepted):
        return {"index": index, "id": outcome.ids[0], "status": "duplicate" if outcome.duplicate else "accepted"}
    # Of the problem that the event would have been as a request of its own.
    kind = kind_of(outcome)
    errors = outcome.errors if isinstance(outcome, Invalid | Forbidden) else {"_schema": [str(outcome)]}
    return {"index": index, "status": kind.status, "type": kind.path, "errors": errors}


_MISSING: Final = "There is no such event."
_EQUAL: Final = (
    *("event_type", "status", "source", "recipient", "request_id", "user_id", "category", "template"),
    *("cancellation_key", "dedup_key", "idempotency_key"),
)


def _on_notifications(asked: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Return the conditions that a single notification of an event must meet together."""
    by: dict[str, Callable[[Any], ColumnElement[bool]]] = {
        "notification_id": Notification.id.__eq__,
        "subscription_id": Notification.subscription_id.__eq__,
        "reason": Notification.reason.__eq__,
        "provider": was_tried_by,
        "message_id": is_called_by_provider,
    }
    return [condition(asked[name]) for name, condition in by.items() if asked[name] is not None]


@blp.route("")
@requires(Scope.READ)
@blp.arguments(EventQuery, location="query", as_kwargs=False)
@blp.response(200, EventPageSchema)
def list_events(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List events, newest first."""
    query = filtered(select(Event), Event, asked, _EQUAL)
    if asked["event_id"] is not None:
        query = query.where(Event.id == asked["event_id"])
    if conditions := _on_notifications(asked):
        query = query.where(Event.id.in_(select(Notification.event_id).where(*conditions)))
    return page(query, Event.id, asked, ways=ways_to_events(asked))


@blp.route("/<uuid:event_id>")
@requires(Scope.READ)
@blp.response(200, EventWithNotificationsSchema)
@blp.alt_response(404, description="There is no such event.")
def get_event(event_id: UUID) -> dict[str, Any]:
    """Read an event and its notifications."""
    event = db.get_or_404(Event, event_id, description=_MISSING)
    notifications = db.session.scalars(
        select(Notification).where(Notification.event_id == event_id).order_by(Notification.id)
    ).all()
    return {**vars(event), "explanation": explain_event(event, len(notifications)), "notifications": notifications}


@blp.route("/<uuid:event_id>/replay", methods=["POST"])
@requires(Scope.ADMIN)
@blp.response(202, EventOutSchema)
@blp.alt_response(404, description="There is no such event.")
@blp.alt_response(409, description="Its retention is over, and it was purged just now.")
def replay_event(event_id: UUID) -> Event:
    """Fan an event out again, as new notifications.

    A key that is limited to some channels or event types replays no others.
    """
    here = services()
    event = db.get_or_404(Event, event_id, description=_MISSING)
    db.session.remove()
    check_event(vars(event), caller())
    known = vars(event) | asdict(cause())
    hints = fan_out.replay(here.wiring.engine, known, here.planner, here.wiring.subscribers)
    here.publisher.hint(hints, [cause()] * len(hints))
    return event
