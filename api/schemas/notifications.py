"""Notifications and their attempts, in and out."""

from typing import Any

import marshmallow as ma
from marshmallow import ValidationError, fields, validate, validates_schema

from api.schemas.fields import Timestamp, name
from api.schemas.pages import PageQuery
from api.schemas.scheduling import EVENT_TYPE, SchedulingFields
from notifier.channels import Channel, Status
from notifier.providers import Outcome


class DirectNotificationSchema(SchedulingFields):
    """A message to one recipient over one channel, without an event."""

    subject = name(998, load_default=None, allow_none=True)
    body = fields.String(required=True, validate=validate.Length(1, 200_000))

    @validates_schema(skip_on_field_errors=True)
    def _check_recipient(self, data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        if data["recipient"] is None and data["channel"] is None:
            raise ValidationError("Name a recipient and its channel.", "recipient")


class AttemptSchema(ma.Schema):
    """One call to a provider."""

    number = fields.Integer(metadata={"description": "From 1."})
    provider = fields.String(allow_none=True, metadata={"description": "Null where its worker died."})
    outcome = fields.String(validate=validate.OneOf(list(Outcome)))
    status_code = fields.Integer(allow_none=True)
    error = fields.String(allow_none=True)
    response_excerpt = fields.String(allow_none=True)
    duration_ms = fields.Float(allow_none=True)
    started_at = Timestamp(allow_none=True)


class NotificationSchema(ma.Schema):
    """A notification and where it stands."""

    id = fields.UUID()
    event_id = fields.UUID(allow_none=True)
    user_id = fields.String(allow_none=True)
    recipient = fields.String(allow_none=True)
    channel = fields.String(allow_none=True, validate=validate.OneOf(list(Channel)))
    category = fields.String(allow_none=True)
    critical = fields.Boolean()
    priority = fields.String()
    template = fields.Constant(None, metadata={"description": "Templates are not there yet: the built-in one is used."})
    status = fields.String(validate=validate.OneOf(list(Status)))
    reason = fields.String(allow_none=True)
    due_at = Timestamp(allow_none=True, metadata={"description": "When it is looked at again; null once finished."})
    attempts = fields.Integer(metadata={"description": "Provider calls so far; never reset."})
    created_at = Timestamp()
    sent_at = Timestamp(allow_none=True)
    delivered_at = Timestamp(allow_none=True)
    subscription_id = fields.Constant(None)


class NotificationWithAttemptsSchema(NotificationSchema):
    """A notification with its attempts."""

    attempt_log = fields.List(fields.Nested(AttemptSchema))


class NotificationsSchema(ma.Schema):
    """The notifications that a request made."""

    items = fields.List(fields.Nested(NotificationSchema))


class NotificationPageSchema(NotificationsSchema):
    """A page of notifications."""

    next_cursor = fields.String(allow_none=True)


class AttemptPageSchema(ma.Schema):
    """A page of attempts."""

    items = fields.List(fields.Nested(AttemptSchema))
    next_cursor = fields.String(allow_none=True)


class NotificationQuery(PageQuery):
    """Which notifications."""

    status = fields.String(load_default=None, validate=validate.OneOf(list(Status)))
    channel = fields.String(load_default=None, validate=validate.OneOf(list(Channel)))
    user_id = name(load_default=None)
    recipient = name(2048, load_default=None)
    event_type = fields.String(load_default=None, validate=EVENT_TYPE)
    created_after = Timestamp(load_default=None)
    created_before = Timestamp(load_default=None)
