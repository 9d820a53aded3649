"""Groups of dead letters."""

from typing import Any, Final

import marshmallow as ma
from marshmallow import ValidationError, fields, validate

from api.schemas.dead_letters import FilterFields
from api.schemas.fields import SOMETIMES, Timestamp
from api.schemas.pagination import PageQuery
from notifier.notifications.dead_letter_groups import DAYS, HOURS, Trait

_ANY: Final = "|".join(Trait)
#: Some traits, each at any place; that none stands there twice is checked.
_TRAITS: Final = f"^(?:{_ANY})(?:,(?:{_ANY})){{0,{len(Trait) - 1}}}$"


class Traits(fields.Field[tuple[Trait, ...]]):
    """Traits of letters, with commas between them."""

    def __init__(self, **kwargs: Any) -> None:
        words = f"What they are grouped by: of {', '.join(f'`{each}`' for each in Trait)}, with commas between them."
        metadata = {"type": "string", "pattern": _TRAITS, "description": f"{words} By default `reason`."}
        super().__init__(metadata=metadata, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[Trait, ...]:
        del attr, data, kwargs
        names = value.split(",") if isinstance(value, str) else []
        known = [name for name in names if name in list(Trait)]
        if not names or known != names or len(set(names)) < len(names):
            raise ValidationError(f"Give some of {', '.join(Trait)}, each once, with commas between them.")
        return tuple(map(Trait, names))


class GroupQuery(FilterFields):
    """Which dead letters are grouped, and by what."""

    class Meta(PageQuery.Meta):
        """Refuse unknown parameters."""

    by = Traits(load_default=(Trait.REASON,))
    limit = fields.Integer(
        load_default=50, validate=validate.Range(1, 200), metadata={"description": "The most groups, the largest ones."}
    )


class DeadLetterGroupFilterSchema(ma.Schema):
    """The filters that select the letters of a group."""

    reason = fields.String(metadata=dict(SOMETIMES))
    last_provider = fields.String(metadata=dict(SOMETIMES))
    error = fields.String(metadata=dict(SOMETIMES))
    event_type = fields.String(metadata=dict(SOMETIMES))
    channel = fields.String(metadata=dict(SOMETIMES))


def _trait(description: str = "") -> fields.String:
    """Return the field of a trait, which is there where letters are grouped by it."""
    described = {"description": description} if description else {}
    return fields.String(allow_none=True, metadata={**described, **SOMETIMES})


class DeadLetterGroupSchema(ma.Schema):
    """The standing letters that are alike. It has the members that are grouped by."""

    reason = _trait()
    provider = _trait("The one that was called last; null where none was.")
    error = _trait("Its error without ids, addresses and numbers; null where it has none.")
    event_type = _trait()
    channel = _trait()
    count = fields.Integer()
    first_at = Timestamp(metadata={"description": "When the oldest of them was written."})
    last_at = Timestamp(metadata={"description": "When the newest of them was written."})
    hourly = fields.List(
        fields.Integer(), metadata={"description": f"Letters in each of the last {HOURS} hours; the last one ends now."}
    )
    daily = fields.List(
        fields.Integer(),
        metadata={"description": f"Letters in each of the last {DAYS} times 24 hours; the last one ends now."},
    )
    filter = fields.Nested(
        DeadLetterGroupFilterSchema,
        allow_none=True,
        metadata={"description": "The filters that select it; null where a value is null, which no filter finds."},
    )


class DeadLetterGroupsSchema(ma.Schema):
    """Groups of the dead letters that stand, the largest first."""

    by = fields.List(fields.String(metadata={"enum": list(Trait)}))
    items = fields.List(fields.Nested(DeadLetterGroupSchema))
    groups = fields.Integer(metadata={"description": "How many groups there are, also those that are not shown."})
    counted = fields.Integer(metadata={"description": "How many letters were counted."})
    is_sample = fields.Boolean(
        metadata={"description": "Whether more stand than were counted, which then are the newest of them."}
    )
