"""The suppression list, and holds."""

from typing import Any

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validate, validates_schema

from api.schemas.fields import AddressFilter, Timestamp, name
from api.schemas.pages import PageQuery
from api.schemas.shown import Shown, for_readers
from notifier.addresses import normalised, normalised_from_query
from notifier.channels import Channel


class _AddressFields(ma.Schema):
    #: Converts the address into its normal form.
    normalise = staticmethod(normalised)

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    channel = fields.Enum(Channel, by_value=True, required=True)
    address = name(2048, required=True, metadata={"example": "ada@example.com"})

    @validates_schema(skip_on_field_errors=True)
    def _check_address(self, data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        try:
            data["address"] = self.normalise(data["channel"], data["address"])
        except ValueError as error:
            raise ValidationError(str(error), "address") from None


class SuppressionSchema(_AddressFields):
    """An address that gets nothing over a channel."""

    reason = name(
        load_default="manual",
        metadata={
            "description": "hard_bounce, complaint, stop (the owner answered STOP), or in your own words.",
            "example": "manual",
        },
    )
    until = Timestamp(load_default=None, allow_none=True, metadata={"description": "When it ends; null: never."})


class LiftSchema(_AddressFields):
    """Which suppression is lifted."""

    normalise = staticmethod(normalised_from_query)


class SuppressionOutSchema(Shown):
    """An address on the suppression list."""

    id = fields.UUID()
    channel = fields.String()
    address = fields.String(allow_none=True, metadata=for_readers())
    reason = fields.String(allow_none=True, metadata=for_readers())
    until = Timestamp(allow_none=True)
    created_at = Timestamp()


class SuppressionPageSchema(ma.Schema):
    """A page of the suppression list."""

    items = fields.List(fields.Nested(SuppressionOutSchema))
    next_cursor = fields.String(allow_none=True)


class SuppressionQuery(PageQuery):
    """Which suppressions."""

    channel = fields.String(load_default=None, validate=validate.OneOf(list(Channel)))
    address = AddressFilter(metadata={"description": "In any form in which it may be given."})


class HoldSchema(ma.Schema):
    """What is held back."""

    target = fields.String(metadata={"description": "`all`, a channel, or the name of a route.", "example": "sms"})
    held_by = fields.String()
    created_at = Timestamp()


class HoldPageSchema(ma.Schema):
    """The holds that stand."""

    items = fields.List(fields.Nested(HoldSchema))
    next_cursor = fields.String(allow_none=True)
