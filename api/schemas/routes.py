"""Routes, in and out."""

from typing import Any

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validate, validates_schema

from api.schemas.fields import LeadTimes, StrictBoolean, Timestamp, check_for_masks
from api.schemas.scheduling import CATEGORY, TEMPLATE_NAME
from notifier.channels import Channel, Priority
from notifier.paths import compiled
from notifier.patterns import PATTERN
from notifier.plans import Strategy


class Path(fields.String):
    """A JMESPath expression over the event."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:  # noqa: ANN401
        text = str(super()._deserialize(value, attr, data, **kwargs))
        check_for_masks(text, "_schema")
        try:
            compiled(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return text


class Pattern(fields.String):
    """An event type, or the beginning of one and `*`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:  # noqa: ANN401
        text = str(super()._deserialize(value, attr, data, **kwargs))
        if not PATTERN.fullmatch(text):
            raise ValidationError("Not an event type, nor the beginning of one and a '*'.")
        return text


class RecipientSchema(ma.Schema):
    """Whom a route tells: the users that a path leads to, or an address and its channel."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    user_id = Path(metadata={"example": "payload.user_id"})
    recipient = Path(metadata={"example": "payload.email"})
    channel = fields.String(validate=validate.OneOf(list(Channel)))

    @validates_schema(skip_on_field_errors=True)
    def _check_one(self, data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        if ("user_id" in data) == ("recipient" in data):
            raise ValidationError("Give user_id, or recipient and channel.", "user_id")
        if ("recipient" in data) != ("channel" in data):
            raise ValidationError("A recipient and its channel go together.", "channel")


class RouteSchema(ma.Schema):
    """What an event type means for people. Who and when are JMESPath over the event."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE
        ordered = True

    event_type = Pattern(required=True, metadata={"example": "order.*"})
    to = fields.Nested(RecipientSchema, required=True)
    filter = Path(
        load_default=None,
        allow_none=True,
        metadata={"description": "It applies only where this holds.", "example": "payload.total > `100`"},
    )
    channels = fields.List(
        fields.String(validate=validate.OneOf(list(Channel))),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, len(Channel)),
        metadata={"description": "In order of preference; none: each that the user has."},
    )
    strategy = fields.String(load_default=Strategy.ALL.value, validate=validate.OneOf(list(Strategy)))
    template = fields.String(load_default=None, allow_none=True, validate=TEMPLATE_NAME)
    category = fields.String(load_default=None, allow_none=True, validate=CATEGORY)
    critical = StrictBoolean(load_default=None, allow_none=True)
    priority = fields.String(load_default=None, allow_none=True, validate=validate.OneOf(list(Priority)))
    target_date = Path(load_default=None, allow_none=True, metadata={"example": "payload.expires_at"})
    lead_time = LeadTimes(load_default=None, allow_none=True)
    enabled = StrictBoolean(load_default=True)

    @validates_schema(skip_on_field_errors=True)
    def _check_whole(self, data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        if data["channels"] is not None and "recipient" in data["to"]:
            raise ValidationError("A recipient has one channel; several are for a user_id.", "channels")
        if data["channels"] is not None and len(set(data["channels"])) < len(data["channels"]):
            raise ValidationError("A channel stands there twice.", "channels")


class RouteOutSchema(RouteSchema):
    """A route."""

    name = fields.String()
    created_at = Timestamp()
    updated_at = Timestamp()


class RoutePageSchema(ma.Schema):
    """A page of routes."""

    items = fields.List(fields.Nested(RouteOutSchema))
    next_cursor = fields.String(allow_none=True)
