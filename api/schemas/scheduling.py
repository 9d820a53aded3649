"""Fields that incoming events and notifications have in common."""

from typing import Any, ClassVar, Final

from marshmallow import RAISE, fields, post_load, validate

from api.schemas.fields import (
    IN_ITS_FORM,
    DurationText,
    LeadTimes,
    Matches,
    StrictBoolean,
    Timestamp,
    Zone,
    name,
    user_id,
)
from api.schemas.member_rules import (
    Addressed,
    Described,
    Group,
    Needs,
    NotBoth,
    Rule,
    Ruled,
    Together,
    absent,
    either,
    valued,
)
from notifier.vocabulary.event_types import NAME
from notifier.vocabulary.states import Channel, DedupScope, OnAmbiguous, Priority

EVENT_TYPE: Final = Matches(
    r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$",
    error="Not an event type: 1 to 128 letters, digits, dots, dashes, colons and underscores.",
)
TEMPLATE_NAME: Final = Matches(
    rf"^{NAME.pattern}$", error="Not a name: 1 to 128 letters, digits, dots, dashes and underscores."
)
CATEGORY: Final = Matches(
    r"^[A-Za-z0-9._:-]{1,64}$", error="Not a category: 1 to 64 letters, digits, dots, dashes, colons and underscores."
)


#: Channels that can have templates: a webhook carries its event as it is.
_WITH_TEMPLATES: Final = [each.value for each in Channel if each is not Channel.WEBHOOK]
_NEEDS_TARGET: Final = "A lead time needs a target_date to come before."


class SchedulingFields(Ruled):
    """Fields that events and notifications have in common. Unknown fields are refused."""

    ADDRESSING: ClassVar[tuple[Rule, ...]] = (
        Addressed("recipient", instead="user_id"),
        # No template can be made for the others.
        Described(either(absent("template"), absent("channel"), valued("channel", *_WITH_TEMPLATES))),
    )
    SCHEDULING = (
        Group(
            (
                NotBoth("lead_time", "lead_time_days", "Give lead_time or lead_time_days, not both."),
                Needs("lead_time", "target_date", _NEEDS_TARGET, "target_date"),
                Needs("lead_time_days", "target_date", _NEEDS_TARGET, "target_date"),
                NotBoth("target_date", "send_at", "Give send_at or target_date, not both."),
            )
        ),
        Group(
            (
                Together("dedup_key", "dedup_window", "dedup_key and dedup_window go together."),
                Needs("dedup_scope", "dedup_key", "A dedup_scope needs a dedup_key.", "dedup_scope"),
            )
        ),
    )
    RULES: ClassVar[tuple[Rule, ...]] = (Group(ADDRESSING), *SCHEDULING)
    BESIDE = True

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    recipient = name(
        2048,
        load_default=None,
        allow_none=True,
        metadata={
            **IN_ITS_FORM,
            "description": "An address of the channel. It is kept in one form: an international domain of an email in"
            " its own script, a phone number as E.164, a webhook's URL as an ASCII URI (RFC 3986).",
        },
    )
    channel = fields.Enum(Channel, by_value=True, load_default=None, allow_none=True)
    user_id = user_id(load_default=None, allow_none=True)
    category = fields.String(
        load_default=None,
        allow_none=True,
        validate=CATEGORY,
        metadata={"description": "The kind of message, for people's preferences."},
    )
    critical = StrictBoolean(load_default=False, metadata={"description": "Implies priority high."})
    priority = fields.Enum(Priority, by_value=True, load_default=Priority.NORMAL)
    send_at = Timestamp(load_default=None, allow_none=True)
    expires_at = Timestamp(load_default=None, allow_none=True)
    target_date = Timestamp(
        load_default=None,
        allow_none=True,
        metadata={"description": "The moment that reminders come before; past it they are expired."},
    )
    lead_time = LeadTimes(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "One duration or several, one reminder each: `P7D` on the wall clock, `PT2H` exactly."
        },
    )
    lead_time_days = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(0, 3650),
        metadata={"description": "`7` for `P7D`."},
    )
    timezone = Zone(load_default=None, allow_none=True, metadata={"description": "Where days are counted."})
    template = fields.String(load_default=None, allow_none=True, validate=TEMPLATE_NAME)
    dedup_key = name(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Within `dedup_window` the same recipient, channel and key is sent once. See `dedup_scope`."
        },
    )
    dedup_window = DurationText(load_default=None, allow_none=True)
    dedup_scope = fields.Enum(
        DedupScope,
        by_value=True,
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Among which notifications `dedup_key` counts: those of the key's own source (`source`, the"
            " default), or those of all sources that say `everyone`."
        },
    )
    on_ambiguous = fields.Enum(
        OnAmbiguous,
        by_value=True,
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Where an attempt may have been sent: `retry` (the default; it may arrive twice, rather than"
            " never), `fallback` (by another provider at once), `hold` (a dead letter, for somebody to decide)."
        },
    )
    cancellation_key = name(load_default=None, allow_none=True)
    idempotency_key = name(
        load_default=None, allow_none=True, metadata={"description": "May also come as header `Idempotency-Key`."}
    )

    @post_load
    def _unite_lead_times(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        days = data.pop("lead_time_days", None)
        return data if days is None else {**data, "lead_time": [f"P{days}D"]}
