"""The suppression list, and holds."""

import marshmallow as ma
from marshmallow import RAISE, fields, validate

from api.schemas.fields import IN_ITS_FORM, AddressFilter, Timestamp, name
from api.schemas.member_rules import Addressed, Ruled
from api.schemas.pagination import PageQuery
from api.schemas.restricted import RestrictedSchema, for_readers
from notifier.vocabulary.addresses import normalised_from_query
from notifier.vocabulary.states import Channel


class _AddressFields(Ruled):
    RULES = (Addressed("address"),)

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    channel = fields.Enum(Channel, by_value=True, required=True)
    address = name(2048, required=True, metadata={"description": "An address of the channel.", **IN_ITS_FORM})


class SuppressionSchema(_AddressFields):
    """An address that gets nothing over a channel."""

    reason = name(
        load_default="manual",
        metadata={
            "description": "hard_bounce, complaint, stop (the owner answered STOP), or in your own words.",
        },
    )
    until = Timestamp(load_default=None, allow_none=True, metadata={"description": "When it ends; null: never."})


class LiftSchema(_AddressFields):
    """Which suppression is lifted."""

    RULES = (Addressed("address", convert=normalised_from_query),)


class SuppressionOutSchema(RestrictedSchema):
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
    """A hold, and what it holds back."""

    target = fields.String(metadata={"description": "`all`, a channel, or the name of a route.", "example": "sms"})
    held_by = fields.String()
    created_at = Timestamp()


class HoldPageSchema(ma.Schema):
    """The holds that stand."""

    items = fields.List(fields.Nested(HoldSchema))
    next_cursor = fields.String(allow_none=True)
