"""Front doors in the words of other systems, each to the same intake as `/api/v1`."""

from typing import Final

import marshmallow as ma
from flask import Response

from api.auth import requires
from api.events import EVENT_BODY_DOC, EVENT_LIMIT, take_event
from api.intake import KEY_HEADER_DOC
from api.notifications import NOTIFICATION_BODY_DOC, notification_limit, read_notification, take_notification
from api.problems import flattened
from api.request_bodies import Body
from api.request_heads import takes_body
from api.resources import Resource
from api.schemas.events import AcceptedEventSchema
from api.schemas.notifications import NotificationsSchema
from api.schemas.notify import NotifySchema
from notifier.security.api_keys import Scope
from notifier.vocabulary.errors import Invalid

blp = Resource(
    "front doors", __name__, description="The same intake, in the words of systems that this one takes the place of."
)

_notify = NotifySchema()
#: Their names of fields, and ours; errors are translated back.
_OURS: Final = {"userId": "user_id", "type": "channel", "idempotencyKey": "idempotency_key"}
_THEIRS: Final = {ours: theirs for theirs, ours in _OURS.items()}


@blp.route("/events", methods=["POST"])
@requires(Scope.SEND)
@takes_body(EVENT_LIMIT)
@blp.doc(requestBody=EVENT_BODY_DOC, parameters=[KEY_HEADER_DOC])
@blp.response(202, AcceptedEventSchema, description="Committed to Postgres.")
def post_typed_event() -> Response:
    """Accept an event, as `POST /api/v1/events` does."""
    return take_event()


@blp.route("/send-notification", methods=["POST"])
@requires(Scope.SEND)
@takes_body(notification_limit)
@blp.doc(requestBody=NOTIFICATION_BODY_DOC, parameters=[KEY_HEADER_DOC])
@blp.response(202, NotificationsSchema, description="Committed to Postgres.")
def send_notification() -> Response:
    """Send a message without an event, as `POST /api/v1/notifications` does."""
    return take_notification(read_notification())


@blp.route("/notify", methods=["POST"])
@requires(Scope.SEND)
@takes_body(notification_limit)
@blp.doc(
    requestBody={"required": True, "content": {"application/json": {"schema": NotifySchema}}},
    parameters=[KEY_HEADER_DOC],
)
@blp.response(202, NotificationsSchema, description="Committed to Postgres.")
def notify_user() -> Response:
    """Send a template to a user over one channel.

    The same as `POST /api/v1/notifications` with `user_id`, `channel`, `template` and `data`: also where both come with
    one idempotency key.
    """
    body = read_notification()
    try:
        _notify.load(body.document)
    except ma.ValidationError as error:
        raise Invalid(flattened(error.messages)) from None
    document = {_OURS.get(name, name): value for name, value in body.document.items()}
    document["channel"] = document["channel"].lower()
    try:
        return take_notification(Body(document, body.raw))
    except Invalid as error:
        error.errors = {_THEIRS.get(name, name): messages for name, messages in error.errors.items()}
        raise
