"""Notifications: one message to one recipient over one channel."""

from typing import Any
from uuid import UUID

import orjson
from flask import Response, abort
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.accepting import accept_one, accepted, draft, load, with_key_header
from api.auth import requires
from api.bodies import read_json
from api.pages import filtered, page
from api.parts import parts
from api.resources import Resource
from api.schemas.notifications import (
    AttemptPageSchema,
    DirectNotificationSchema,
    NotificationPageSchema,
    NotificationQuery,
    NotificationsSchema,
    NotificationWithAttemptsSchema,
)
from notifier.drafts import draft_notification
from notifier.ids import first_id_of, time_of
from notifier.keys import Scope
from notifier.models import Attempt, Notification

blp = Resource(
    "notifications", __name__, url_prefix="/api/v1/notifications", description="One message to one recipient."
)

_direct = DirectNotificationSchema()
_out = NotificationsSchema()


@blp.route("", methods=["POST"])
@requires(Scope.SEND)
@blp.doc(requestBody={"required": True, "content": {"application/json": {"schema": DirectNotificationSchema}}})
@blp.response(202, NotificationsSchema, description="Committed to Postgres.")
@blp.alt_response(422, description="Not valid, or an idempotency key reused with another body.")
@blp.alt_response(503, description="Postgres cannot be reached; see Retry-After.")
def post_notification() -> Response:
    """Send a message without an event."""
    body = read_json(parts().wiring.settings.max_event_bytes)
    fields = with_key_header(load(_direct, body))
    content = orjson.dumps({"subject": fields.pop("subject"), "body": fields.pop("body")})
    answer = accept_one(draft(draft_notification, "notification", fields, body, content))
    with Session(parts().wiring.engine) as session:
        rows = session.scalars(select(Notification).where(Notification.id.in_(answer.ids))).all()
    return accepted(_out.dump({"items": rows}), duplicate=answer.duplicate)


@blp.route("")
@requires(Scope.READ)
@blp.arguments(NotificationQuery, location="query", as_kwargs=False)
@blp.response(200, NotificationPageSchema)
def list_notifications(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List notifications, newest first."""
    equal = ("status", "channel", "user_id", "recipient", "event_type")
    query = filtered(select(Notification), Notification, asked, equal)
    return page(parts().wiring.engine, query, Notification.id, asked)


def _find(session: Session, notification_id: UUID) -> Notification:
    notification = session.get(Notification, notification_id)
    if notification is None:
        abort(404, "There is no such notification.")
    return notification


def _attempts(session: Session, notification_id: UUID) -> list[Attempt]:
    # An attempt's id is of its notification's millisecond: the lower bound prunes the partitions before it.
    query = select(Attempt).where(
        Attempt.notification_id == notification_id, Attempt.id >= first_id_of(time_of(notification_id))
    )
    return list(session.scalars(query.order_by(Attempt.number)))


@blp.route("/<uuid:notification_id>")
@requires(Scope.READ)
@blp.response(200, NotificationWithAttemptsSchema)
@blp.alt_response(404, description="There is no such notification.")
def get_notification(notification_id: UUID) -> dict[str, Any]:
    """Read a notification with its attempts."""
    with Session(parts().wiring.engine) as session:
        notification = _find(session, notification_id)
        return {**vars(notification), "attempt_log": _attempts(session, notification_id)}


@blp.route("/<uuid:notification_id>/attempts")
@requires(Scope.READ)
@blp.response(200, AttemptPageSchema)
@blp.alt_response(404, description="There is no such notification.")
def list_attempts(notification_id: UUID) -> dict[str, Any]:
    """List a notification's attempts."""
    with Session(parts().wiring.engine) as session:
        _find(session, notification_id)
        return {"items": _attempts(session, notification_id), "next_cursor": None}
