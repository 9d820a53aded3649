"""Dead letters."""

from typing import Any, Final

import marshmallow as ma
from marshmallow import ValidationError, fields, post_load, validate

from api.schemas.fields import AddressFilter, StrictBoolean, Timestamp, name, reason_field
from api.schemas.member_rules import Described, Ruled, absent, both, either, given, valued
from api.schemas.pagination import PageQuery
from api.schemas.restricted import RestrictedSchema, for_readers
from api.schemas.scheduling import EVENT_TYPE
from notifier.vocabulary.error_forms import LONGEST as LONGEST_ERROR_FORM
from notifier.vocabulary.reasons import DEAD_LETTER_REASONS, Reason
from notifier.vocabulary.states import Channel


class DeadLetterSchema(RestrictedSchema):
    """A notification or event that failed for good, and why."""

    id = fields.UUID()
    notification_id = fields.UUID(allow_none=True, metadata={"description": "Null where an event broke fan-out."})
    event_id = fields.UUID(allow_none=True)
    channel = fields.String(allow_none=True)
    event_type = fields.String(allow_none=True)
    reason = reason_field([*DEAD_LETTER_REASONS, Reason.FAN_OUT_FAILED])
    error = fields.String(allow_none=True, metadata=for_readers())
    attempts = fields.Integer()
    created_at = Timestamp()
    requeued_at = Timestamp(allow_none=True)


class DeadLetterPageSchema(ma.Schema):
    """A page of dead letters."""

    items = fields.List(fields.Nested(DeadLetterSchema))
    next_cursor = fields.String(allow_none=True)


class FilterFields(ma.Schema):
    """Filters of dead letters: those that match all of them."""

    class Meta(PageQuery.Meta):
        """Refuse unknown fields."""

    channel = fields.String(load_default=None, validate=validate.OneOf(list(Channel)))
    reason = name(load_default=None)
    event_type = fields.String(load_default=None, validate=EVENT_TYPE)
    event_id = fields.UUID(load_default=None)
    notification_id = fields.UUID(load_default=None)
    user_id = name(load_default=None)
    request_id = name(load_default=None)
    source = name(load_default=None)
    category = name(load_default=None)
    template = name(load_default=None)
    recipient = AddressFilter(metadata={"description": "In any form in which it may be given."})
    subscription_id = fields.UUID(load_default=None)
    cancellation_key = name(load_default=None)
    dedup_key = name(load_default=None)
    idempotency_key = name(load_default=None, metadata={"description": "For as long as it is kept."})
    provider = name(load_default=None, metadata={"description": "One that was called for it."})
    last_provider = name(load_default=None, metadata={"description": "The one that was called for it last."})
    error = name(
        LONGEST_ERROR_FORM,
        load_default=None,
        metadata={"description": "An error as a group has it: without ids, addresses and numbers."},
    )
    message_id = name(1024, load_default=None, metadata={"description": "The provider's id of the message."})
    created_after = Timestamp(load_default=None)
    created_before = Timestamp(load_default=None)


#: Members that say which.
_FILTERS: Final = tuple(FilterFields._declared_fields)


class RequeueSchema(Ruled, FilterFields):
    """The dead letters to requeue: all, or the ones that match the filters."""

    RULES = (
        Described(
            either(
                both(valued("all", True), absent(*_FILTERS)),
                *(both(given(each), valued("all", False, required=False)) for each in _FILTERS),
            )
        ),
    )

    class Meta(PageQuery.Meta):
        """Refuse unknown fields."""

    everything = StrictBoolean(
        data_key="all",
        load_default=False,
        metadata={"description": "`true` for all that stand; needed where there is no filter."},
    )

    @post_load
    def _check_that_all_are_meant(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        everything = data.pop("everything")
        has_filter = any(value is not None for value in data.values())
        if everything and has_filter:
            raise ValidationError("Give filters, or all, not both.", "all")
        if not everything and not has_filter:
            raise ValidationError('Give a filter, or "all": true for all dead letters that stand.', "all")
        return data


class DeadLetterQuery(FilterFields, PageQuery):
    """Which dead letters are listed."""

    class Meta(PageQuery.Meta):
        """Refuse unknown parameters."""

    requeued = fields.Boolean(load_default=None, metadata={"description": "false: those that still stand."})


class RequeuedSchema(ma.Schema):
    """The number of dead letters that were requeued, and of those that were left as they are."""

    requeued = fields.Integer()
    refused = fields.Integer(metadata={"description": "A rule forbids to send them: they stand as before."})
    refused_reasons = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Reason → how many.", "example": {"opted_out": 2, "expired": 1}},
    )
