"""Events, in and out."""

import re
from typing import Final

import marshmallow as ma
from marshmallow import fields, validate

from api.problem_types import ProblemType
from api.schemas.fields import SOMETIMES, AddressFilter, JsonText, Timestamp, name
from api.schemas.notifications import NotificationSchema
from api.schemas.pagination import PageQuery
from api.schemas.restricted import RestrictedSchema, for_readers
from api.schemas.scheduling import EVENT_TYPE, SchedulingFields
from notifier.vocabulary.event_types import OURS
from notifier.vocabulary.states import EventStatus


def _not_ours(event_type: str) -> None:
    if event_type.startswith(OURS):
        raise ma.ValidationError(f"Types that begin with {OURS} are events of Notifier itself.")


#: The pattern says so of its beginning.
_NOT_OURS: Final = {"pattern": EVENT_TYPE.regex.pattern.replace("^", f"^(?!{re.escape(OURS)})", 1)}


class EventSchema(SchedulingFields):
    """Something that happened. No field but `event_type` is required."""

    event_type = fields.String(required=True, validate=[EVENT_TYPE, _not_ours], metadata=_NOT_OURS)
    payload = fields.Dict(
        load_default=dict,
        metadata={
            "description": "Kept as it was written. At most 32 levels deep; no name stands twice in one object.",
        },
    )
    occurred_at = Timestamp(load_default=None, allow_none=True)


class TypedEventSchema(EventSchema):
    """An event as other systems write it: with its `type` in place of `event_type`. Both may stand there if equal."""

    class Meta(EventSchema.Meta):
        """Leave out the other word."""

        exclude = ("event_type",)

    type = fields.String(required=True, validate=[EVENT_TYPE, _not_ours], metadata=_NOT_OURS)


class AcceptedEventSchema(ma.Schema):
    """The answer to an event."""

    id = fields.UUID()
    event_type = fields.String()
    status = fields.Constant("accepted", metadata={"type": "string", "enum": ["accepted"]})
    duplicate = fields.Boolean(metadata={"description": "An earlier request with this idempotency key made it."})
    created_at = Timestamp()


class BatchSchema(ma.Schema):
    """A batch of events."""

    events = fields.List(
        fields.Raw(
            metadata={
                "anyOf": [
                    {"$ref": "#/components/schemas/Event"},
                    {"$ref": "#/components/schemas/TypedEvent"},
                    {"description": "Anything else is rejected, as an item of the answer."},
                ]
            }
        ),
        required=True,
        metadata={"minItems": 1},
    )


class BatchItemSchema(ma.Schema):
    """The result of one item: an id and a word, or the problem that a request with this item alone would get."""

    index = fields.Integer(metadata={"description": "Its place in the batch, from 0."})
    id = fields.UUID(metadata=dict(SOMETIMES))
    status = fields.Raw(
        metadata={
            "oneOf": [{"type": "string", "enum": ["accepted", "duplicate"]}, {"type": "integer"}],
            "description": "`accepted` or `duplicate`; of what was rejected the HTTP status, as a number.",
        }
    )
    type = fields.String(
        validate=validate.OneOf([kind.path for kind in ProblemType]),
        metadata={"description": "The type of its problem, where it was rejected.", **SOMETIMES},
    )
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "Field → what is wrong with it, where it was rejected.", **SOMETIMES},
    )


class BatchAnswerSchema(ma.Schema):
    """The result of a batch; `accepted` excludes duplicates."""

    accepted = fields.Integer()
    duplicates = fields.Integer()
    rejected = fields.Integer()
    items = fields.List(fields.Nested(BatchItemSchema))


class EventOutSchema(RestrictedSchema):
    """An event as it was accepted."""

    id = fields.UUID()
    event_type = fields.String()
    source = fields.String(metadata={"description": "The source of the key that posted it: by default the key's name."})
    status = fields.String(validate=validate.OneOf(list(EventStatus)))
    payload = JsonText(allow_none=True, metadata=for_readers("As it was written.", type="object"))
    recipient = fields.String(allow_none=True, metadata=for_readers())
    channel = fields.String(allow_none=True)
    user_id = fields.String(allow_none=True)
    category = fields.String(allow_none=True)
    critical = fields.Boolean()
    priority = fields.String()
    send_at = Timestamp(allow_none=True)
    expires_at = Timestamp(allow_none=True)
    cancellation_key = fields.String(allow_none=True, metadata=for_readers())
    target_date = Timestamp(allow_none=True)
    lead_time = fields.List(fields.String(), allow_none=True)
    timezone = fields.String(allow_none=True)
    template = fields.String(allow_none=True)
    dedup_key = fields.String(allow_none=True, metadata=for_readers())
    dedup_window = fields.String(allow_none=True)
    dedup_scope = fields.String(allow_none=True)
    on_ambiguous = fields.String(allow_none=True)
    idempotency_key = fields.String(allow_none=True, metadata=for_readers())
    request_id = fields.String(allow_none=True, metadata={"description": "The request that brought it."})
    occurred_at = Timestamp(allow_none=True)
    created_at = Timestamp()


class EventWithNotificationsSchema(EventOutSchema):
    """An event and its notifications."""

    explanation = fields.String(metadata={"description": "Its outcome, in words."})
    notifications = fields.List(fields.Nested(NotificationSchema))


class EventPageSchema(ma.Schema):
    """A page of events."""

    items = fields.List(fields.Nested(EventOutSchema))
    next_cursor = fields.String(allow_none=True)


class EventQuery(PageQuery):
    """Which events."""

    event_type = fields.String(load_default=None, validate=EVENT_TYPE)
    status = fields.String(load_default=None, validate=validate.OneOf(list(EventStatus)))
    source = name(load_default=None)
    event_id = fields.UUID(load_default=None)
    notification_id = fields.UUID(load_default=None, metadata={"description": "One that it made."})
    subscription_id = fields.UUID(load_default=None, metadata={"description": "One that heard of it."})
    reason = name(load_default=None, metadata={"description": "Of a notification that it made."})
    provider = name(load_default=None, metadata={"description": "One that was called for what it made."})
    message_id = name(1024, load_default=None, metadata={"description": "The provider's id of its message."})
    request_id = name(load_default=None, metadata={"description": "`X-Request-Id` of the request that brought it."})
    user_id = name(load_default=None)
    category = name(load_default=None)
    template = name(load_default=None)
    cancellation_key = name(load_default=None)
    dedup_key = name(load_default=None)
    idempotency_key = name(load_default=None)
    recipient = AddressFilter(metadata={"description": "In any form in which it may be given."})
    created_after = Timestamp(load_default=None)
    created_before = Timestamp(load_default=None)
