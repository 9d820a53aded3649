"""Acts on many dead letters."""

from typing import Any

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, post_load

from api.schemas.dead_letters import FilterFields
from api.schemas.fields import StrictBoolean, Timestamp
from api.schemas.member_rules import Described, Ruled, absent, both, either, given, valued
from api.schemas.restricted import RestrictedSchema, for_readers
from notifier.resending.dead_letter_acts import Act


class DeadLetterFilterSchema(Ruled, FilterFields):
    """Which dead letters are meant: those that match all of these filters. At least one is needed."""

    RULES = (Described(either(*(given(each) for each in FilterFields._declared_fields))),)

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    @post_load
    def _check_that_some_are_given(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if all(value is None for value in data.values()):
            raise ValidationError("Give a filter, or `all` in place of it.")
        return data


class NewDeadLetterActSchema(Ruled):
    """An act on dead letters: on all that stand, or on those that match a filter."""

    RULES = (
        Described(
            either(
                both(valued("all", True), absent("filter")),
                both(given("filter"), valued("all", False, required=False)),
            )
        ),
    )

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    act = fields.Enum(
        Act,
        by_value=True,
        required=True,
        metadata={"description": "`requeue` sends them again. `drop` deletes the letters; it needs the scope `admin`."},
    )
    filter = fields.Nested(DeadLetterFilterSchema, load_default=None, allow_none=False)
    everything = StrictBoolean(
        data_key="all",
        load_default=False,
        metadata={"description": "`true` for all that stand, in place of a filter."},
    )
    dry_run = StrictBoolean(
        load_default=False, metadata={"description": "`true`: change nothing, and say which letters it would be."}
    )

    @post_load
    def _check_that_letters_are_named(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        everything = data.pop("everything")
        if everything and data["filter"] is not None:
            raise ValidationError("Give a filter, or all, not both.", "all")
        if not everything and data["filter"] is None:
            raise ValidationError('Give a filter, or "all": true for all dead letters that stand.', "filter")
        return data


class DeadLetterActFilterSchema(ma.Schema):
    """The filters of an act; those that were not given are null."""

    channel = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    event_type = fields.String(allow_none=True)
    event_id = fields.String(allow_none=True)
    notification_id = fields.String(allow_none=True)
    user_id = fields.String(allow_none=True)
    request_id = fields.String(allow_none=True)
    source = fields.String(allow_none=True)
    category = fields.String(allow_none=True)
    template = fields.String(allow_none=True)
    recipient = fields.String(allow_none=True, metadata={"description": "`[erased]` once the person was erased."})
    subscription_id = fields.String(allow_none=True)
    cancellation_key = fields.String(allow_none=True)
    dedup_key = fields.String(allow_none=True)
    idempotency_key = fields.String(allow_none=True)
    provider = fields.String(allow_none=True)
    last_provider = fields.String(allow_none=True)
    error = fields.String(allow_none=True)
    message_id = fields.String(allow_none=True)
    created_after = fields.String(allow_none=True)
    created_before = fields.String(allow_none=True)


class DeadLetterActSchema(RestrictedSchema):
    """An act on dead letters, and how far it is. Letters that are written after its beginning are not part of it."""

    id = fields.UUID()
    act = fields.String(metadata={"enum": list(Act)})
    status = fields.String(metadata={"enum": ["running", "finished", "stopped"]})
    filter = fields.Nested(DeadLetterActFilterSchema, allow_none=True, metadata=for_readers("Which letters are meant."))
    source = fields.String(
        allow_none=True, metadata={"description": "The source whose letters it is limited to; null: those of all."}
    )
    total = fields.Integer(
        allow_none=True,
        metadata={"description": "How many letters matched when it began; null where counting them took too long."},
    )
    done = fields.Integer(
        metadata={
            "description": "How many of them are requeued or dropped by now. Once it is finished, letters that are"
            " neither done nor refused were requeued or deleted by somebody else meanwhile."
        }
    )
    refused = fields.Integer(metadata={"description": "How many stand as before: a rule forbids to send them."})
    refused_reasons = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Reason → how many.", "example": {"opted_out": 2, "expired": 1}},
    )
    asked_by = fields.String(metadata={"description": "The name of a key, or `shell:` and a user."})
    created_at = Timestamp()
    finished_at = Timestamp(allow_none=True)
    stopped_at = Timestamp(allow_none=True, metadata={"description": "When somebody stopped it; it can be resumed."})


class DeadLetterActPageSchema(ma.Schema):
    """A page of acts on dead letters."""

    items = fields.List(fields.Nested(DeadLetterActSchema))
    next_cursor = fields.String(allow_none=True)


class DeadLetterPreviewSchema(ma.Schema):
    """The letters that an act would begin with. Nothing was changed."""

    act = fields.String(metadata={"enum": list(Act)})
    total = fields.Integer(metadata={"description": "How many letters match."})
    by_reason = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "The letters' reason → how many.", "example": {"retries_exhausted": 120}},
    )
    sample = fields.List(fields.UUID(), metadata={"description": "The ids of some of them, the oldest first."})
