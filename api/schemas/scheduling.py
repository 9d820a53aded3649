"""What events and notifications have in common when they come in."""

from typing import Any, Final

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validate, validates_schema

from api.schemas.fields import StrictBoolean, Timestamp, name
from notifier.addresses import normalised
from notifier.channels import Channel, Priority

EVENT_TYPE: Final = validate.Regexp(
    r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z",
    error="Not an event type: 1 to 128 letters, digits, dots, dashes, colons and underscores.",
)
_CATEGORY: Final = validate.Regexp(
    r"^[A-Za-z0-9._:-]{1,64}\Z", error="Not a category: 1 to 64 letters, digits, dots, dashes, colons and underscores."
)


class SchedulingFields(ma.Schema):
    """What events and notifications have in common. Unknown fields are refused."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    recipient = name(
        2048, load_default=None, allow_none=True, metadata={"example": "ada@example.com", "description": "An address."}
    )
    channel = fields.Enum(Channel, by_value=True, load_default=None, allow_none=True)
    user_id = name(load_default=None, allow_none=True)
    category = fields.String(
        load_default=None,
        allow_none=True,
        validate=_CATEGORY,
        metadata={"description": "What kind of message it is, for people's preferences.", "example": "account"},
    )
    critical = StrictBoolean(load_default=False, metadata={"description": "Implies priority high."})
    priority = fields.Enum(Priority, by_value=True, load_default=Priority.NORMAL)
    send_at = Timestamp(load_default=None, allow_none=True)
    expires_at = Timestamp(load_default=None, allow_none=True)
    cancellation_key = name(load_default=None, allow_none=True)
    idempotency_key = name(
        load_default=None, allow_none=True, metadata={"description": "May also come as header `Idempotency-Key`."}
    )

    @validates_schema(skip_on_field_errors=True)
    def _check_address(self, data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        channel, recipient = data["channel"], data["recipient"]
        if recipient is not None and channel is None:
            raise ValidationError("A recipient needs a channel.", "channel")
        if channel is not None and recipient is None and data.get("user_id") is None:
            raise ValidationError("A channel needs a recipient or a user_id.", "recipient")
        if recipient is not None:
            try:
                data["recipient"] = normalised(channel, recipient)
            except ValueError as error:
                raise ValidationError(str(error), "recipient") from None
