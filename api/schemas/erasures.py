"""People named by an address or an id, and their erasures."""

from collections.abc import Callable
from typing import Any

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validates_schema

from api.schemas.fields import IN_ITS_FORM, Timestamp, name, user_id
from api.schemas.member_rules import Addressed, Described, Ruled, absent, both, either, given
from notifier.vocabulary.addresses import folded, normalised
from notifier.vocabulary.states import Channel


class PersonSchema(Ruled):
    """Somebody, by an address and its channel, or by the id that callers gave them."""

    RULES = (
        Described(
            either(
                both(given("user_id"), absent("address", "channel")),
                both(absent("user_id"), given("address", "channel")),
            )
        ),
        Described(Addressed("address").describe(str)),
    )

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    address = name(2048, load_default=None, metadata=dict(IN_ITS_FORM))
    channel = fields.Enum(Channel, by_value=True, load_default=None, metadata={"description": "The address's."})
    user_id = user_id(load_default=None, metadata={"description": "In place of an address."})

    @validates_schema(skip_on_field_errors=True)
    def _check_one(self, data: dict[str, Any], **_: Any) -> None:
        if data["user_id"] is not None:
            if data["address"] is not None or data["channel"] is not None:
                raise ValidationError("Either it or an address.", "user_id")
            return
        if data["address"] is None:
            raise ValidationError("Name an address, or a user_id.", "address")
        if data["channel"] is None:
            raise ValidationError("An address has a channel.", "channel")
        try:
            data["address"] = normalised(data["channel"], data["address"])
        except ValueError as error:
            raise ValidationError(str(error), "address") from None


def about(person: dict[str, Any], fingerprint: Callable[[str], str]) -> str:
    """Return a fingerprint of whom a request means, for the audit log."""
    if person["user_id"] is not None:
        return f"user_id={fingerprint(person['user_id'])}"
    return f"channel={person['channel']} address={fingerprint(folded(person['channel'], person['address']))}"


class ErasureSchema(ma.Schema):
    """An erasure, and how far it is. It does not say whose it is."""

    id = fields.UUID()
    status = fields.String(metadata={"description": "`running` or `finished`."})
    asked_by = fields.String(metadata={"description": "The name of a key, or `shell:USER`."})
    created_at = Timestamp()
    round = fields.Integer(
        metadata={"description": "0 while rows of theirs are erased; then all tables are gone through, twice."}
    )
    stage = fields.String(allow_none=True, metadata={"description": "The table that is gone through."})
    erased = fields.Integer(metadata={"description": "Rows that were erased, or that had a mention taken out."})
    left_in = fields.List(
        fields.String(),
        metadata={"description": "Settings that mention the person, such as `templates`: change them by hand."},
    )
    finished_at = Timestamp(allow_none=True)


class ErasurePageSchema(ma.Schema):
    """A page of erasures."""

    items = fields.List(fields.Nested(ErasureSchema))
    next_cursor = fields.String(allow_none=True)
