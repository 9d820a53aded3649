"""Routes, in and out."""

from typing import Any, ClassVar, Final

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validate, validates_schema

from api.schemas.fields import EACH_ONCE, LeadTimes, StrictBoolean, Timestamp, check_for_masks, named_form
from api.schemas.member_rules import Described, Rule, Ruled, absent, either
from api.schemas.scheduling import CATEGORY, TEMPLATE_NAME
from notifier.planning.plans import Strategy
from notifier.vocabulary.event_types import PATTERN
from notifier.vocabulary.expressions import compiled
from notifier.vocabulary.states import Channel, Priority


class Path(fields.String):
    """A JMESPath expression over the event."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**named_form("JmesPath", kwargs))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        check_for_masks(text, "_schema")
        try:
            compiled(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return text


class Pattern(fields.String):
    """An event type, or the beginning of one and `*`."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["metadata"] = {"pattern": f"^{PATTERN.pattern}$", **kwargs.get("metadata", {})}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        if not PATTERN.fullmatch(text):
            raise ValidationError("Not an event type, nor the beginning of one and a '*'.")
        return text


_FORBIDDEN: Final[dict[str, Any]] = {"not": {}}
_A_USER: Final = {"required": ["user_id"], "properties": {"recipient": _FORBIDDEN, "channel": _FORBIDDEN}}
_AN_ADDRESS: Final = {"required": ["recipient", "channel"], "properties": {"user_id": _FORBIDDEN}}


class RecipientSchema(Ruled):
    """Whom a route tells: the users that a path leads to, or an address and its channel."""

    RULES = (Described(either(_A_USER, _AN_ADDRESS)),)

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    user_id = Path(metadata={"description": "Such as `payload.user_id`."})
    recipient = Path(metadata={"description": "Such as `payload.email`."})
    channel = fields.String(validate=validate.OneOf(list(Channel)))

    @validates_schema(skip_on_field_errors=True)
    def _check_one(self, data: dict[str, Any], **_: Any) -> None:
        if ("user_id" in data) == ("recipient" in data):
            raise ValidationError("Give user_id, or recipient and channel.", "user_id")
        if ("recipient" in data) != ("channel" in data):
            raise ValidationError("A recipient and its channel go together.", "channel")


class RouteSchema(Ruled):
    """A route: which people an event type notifies. Recipients and times are JMESPath over the event."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Described(either(absent("channels"), {"properties": {"to": {"type": "object", "required": ["user_id"]}}})),
    )

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE
        ordered = True

    event_type = Pattern(required=True, metadata={"description": "Such as `order.*`."})
    to = fields.Nested(RecipientSchema, required=True)
    filter = Path(
        load_default=None,
        allow_none=True,
        metadata={"description": "It applies only where this holds, such as ``payload.total > `100` ``."},
    )
    channels = fields.List(
        fields.String(validate=validate.OneOf(list(Channel))),
        load_default=None,
        allow_none=True,
        validate=[validate.Length(1, len(Channel)), EACH_ONCE],
        metadata={"uniqueItems": True, "description": "In order of preference; none: each that the user has."},
    )
    strategy = fields.String(load_default=Strategy.ALL.value, validate=validate.OneOf(list(Strategy)))
    template = fields.String(load_default=None, allow_none=True, validate=TEMPLATE_NAME)
    category = fields.String(load_default=None, allow_none=True, validate=CATEGORY)
    critical = StrictBoolean(load_default=None, allow_none=True)
    priority = fields.String(load_default=None, allow_none=True, validate=validate.OneOf(list(Priority)))
    target_date = Path(load_default=None, allow_none=True, metadata={"description": "Such as `payload.expires_at`."})
    lead_time = LeadTimes(load_default=None, allow_none=True)
    enabled = StrictBoolean(load_default=True)

    @validates_schema(skip_on_field_errors=True)
    def _check_whole(self, data: dict[str, Any], **_: Any) -> None:
        if data["channels"] is not None and "recipient" in data["to"]:
            raise ValidationError("A recipient has one channel; several are for a user_id.", "channels")


class RouteOutSchema(RouteSchema):
    """A route."""

    RULES = ()

    # `required`, for the description: a stored route may lack members that came later.
    name = fields.String(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class RoutePageSchema(ma.Schema):
    """A page of routes."""

    items = fields.List(fields.Nested(RouteOutSchema))
    next_cursor = fields.String(allow_none=True)
