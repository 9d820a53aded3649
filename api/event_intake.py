"""From the body of an event to its draft, and from a commit to the answer: shared by Flask and the fast path."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from api.intake import check_channels, check_template, loaded
from api.permits import check_event
from api.plain_events import plain_fields
from api.request_bodies import Body
from api.schemas.events import EventSchema
from api.services import Services
from notifier.content.templates import Catalogue
from notifier.events.intake import Accepted
from notifier.observability.request_context import RequestContext
from notifier.planning.drafts import Draft, draft_event
from notifier.security.api_keys import Caller
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.states import Channel
from notifier.vocabulary.timestamps import rfc3339

_schema: Final = EventSchema()


def load_event(body: Body, usable: frozenset[Channel]) -> tuple[Body, dict[str, Any]]:
    """Return a body with its `event_type`, and the event's fields. Raises Invalid, with the caller's field names.

    `usable`: the channels that have a provider.
    """
    event = body.as_event()
    try:
        fields = plain_fields(event.document) or loaded(_schema, event)
        check_channels(fields, usable)
    except Invalid as error:
        if "event_type" in error.errors and "event_type" not in body.document and "type" in body.document:
            raise Invalid(
                {"type" if name == "event_type" else name: each for name, each in error.errors.items()}
            ) from None
        raise
    return event, fields


def draft_of(
    here: Services, who: Caller, fields: Mapping[str, Any], body: Body, templates: Catalogue, cause: RequestContext
) -> Draft:
    """Draft an event of a caller. Raises Invalid or Forbidden."""
    check_event(fields, who)
    check_template(fields, templates)
    payload = body.raw_member("payload") or b"{}"
    columns = {name: value for name, value in fields.items() if name != "payload"}
    index = here.wiring.subscribers.recent(here.wiring.engine)
    return draft_event(who.source, columns, payload, body.fingerprint("event"), here.planner, templates, index, cause)


def answer_to(event_type: str, answer: Accepted) -> dict[str, Any]:
    """Return the body of the answer to an event that was accepted, now or earlier."""
    return {
        "id": answer.ids[0],
        "event_type": event_type,
        "status": "accepted",
        "duplicate": answer.duplicate,
        "created_at": rfc3339(answer.created_at),
    }


def location_of(event_id: UUID) -> str:
    """Return the path of an event."""
    return f"/api/v1/events/{event_id}"
