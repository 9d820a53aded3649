"""Users and their preferences, in and out."""

import re
from typing import Any, Final

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, post_load, validate, validates_schema

from api.schemas.fields import (
    CLOSED,
    Address,
    AddressFilter,
    ByName,
    JsonText,
    Matches,
    StrictBoolean,
    Timestamp,
    Zone,
    check_for_masks,
    user_id,
)
from api.schemas.pagination import PageQuery
from api.schemas.restricted import RestrictedSchema, for_readers
from api.schemas.scheduling import CATEGORY
from api.schemas.text_patterns import LOCALE
from notifier.people.preferences import REST
from notifier.vocabulary.states import Channel


class Locale(fields.String):
    """A language tag such as `pt-BR`."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["metadata"] = {"pattern": LOCALE, **kwargs.get("metadata", {})}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        if not re.fullmatch(LOCALE, text):
            raise ValidationError("Not a language tag, such as de or pt-BR.")
        language, *rest = text.replace("_", "-").split("-")
        return "-".join([language.lower(), *(part.upper() if len(part) == 2 else part.title() for part in rest)])


class UserSchema(ma.Schema):
    """Where a person can be reached. A PUT replaces all of it."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    email = Address(Channel.EMAIL, load_default=None, allow_none=True)
    phone = Address(Channel.SMS, load_default=None, allow_none=True)
    push_tokens = fields.List(Address(Channel.PUSH), load_default=list, validate=validate.Length(max=50))
    webhook_url = Address(Channel.WEBHOOK, load_default=None, allow_none=True)
    chat_url = Address(Channel.CHAT, load_default=None, allow_none=True)
    timezone = Zone(load_default=None, allow_none=True)
    locale = Locale(load_default=None, allow_none=True)
    attributes = fields.Dict(load_default=dict, metadata={"description": "Whatever templates want to know."})

    @validates_schema(skip_on_field_errors=True)
    def _check_attributes(self, data: dict[str, Any], **_: Any) -> None:
        check_for_masks(data["attributes"], "attributes")

    @post_load
    def _each_token_once(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "push_tokens": list(dict.fromkeys(data["push_tokens"]))}


class UserOutSchema(RestrictedSchema):
    """A user."""

    user_id = fields.String()
    email = fields.String(allow_none=True, metadata=for_readers())
    phone = fields.String(allow_none=True, metadata=for_readers())
    push_tokens = fields.List(fields.String(), metadata=for_readers())
    webhook_url = fields.String(allow_none=True, metadata=for_readers())
    chat_url = fields.String(allow_none=True, metadata=for_readers())
    timezone = fields.String(allow_none=True)
    locale = fields.String(allow_none=True)
    attributes = JsonText()
    created_at = Timestamp()
    updated_at = Timestamp()


class UserQuery(PageQuery):
    """Filters for a list of users."""

    address = AddressFilter(
        metadata={"description": "One where they can be reached, in any form in which it may be given."}
    )
    created_after = Timestamp(load_default=None)
    created_before = Timestamp(load_default=None)


class UserPageSchema(ma.Schema):
    """A page of users."""

    items = fields.List(fields.Nested(UserOutSchema))
    next_cursor = fields.String(allow_none=True)


def _rows(description: str) -> fields.List[Any]:
    return fields.List(fields.Dict(), metadata={"description": description})


class UserExportSchema(ma.Schema):
    """All that is known of a person. Rows are whole, as they are stored, and may have more fields in later versions."""

    exported_at = Timestamp()
    user = fields.Dict(
        allow_none=True, metadata={"description": "With `preferences`; null where no user has the address asked for."}
    )
    suppressions = _rows("Of their addresses.")
    opt_outs = _rows("Of their addresses.")
    notifications = _rows("Each with its `attempt_log`, `dead_letters` and `attachments` (without their contents).")
    events = _rows("Events that name them, or their address as recipient.")
    outbox = _rows("Messages in the local outbox.")
    dedup_keys = _rows("Deduplication keys of messages to them, each with its end.")


_SWITCHES: Final = {channel.value: {"type": "boolean"} for channel in Channel}
_CHANNEL: Final = validate.OneOf(list(Channel))
_CHANNEL_OR_REST: Final = validate.OneOf([*Channel, REST])
_TIME: Final = Matches(r"^([01][0-9]|2[0-3]):[0-5][0-9]$", error="Not a time of day, such as 22:00.")


class QuietHoursSchema(ma.Schema):
    """When not to disturb: from `start` (inclusive) to `end` (exclusive), over midnight where it ends earlier."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    channels = fields.List(
        fields.String(validate=_CHANNEL),
        load_default=list,
        metadata={"description": "None: all."},
    )
    start = fields.String(required=True, validate=_TIME)
    end = fields.String(required=True, validate=_TIME)
    timezone = Zone(load_default=None, allow_none=True, metadata={"description": "Null: the user's."})

    @validates_schema(skip_on_field_errors=True)
    def _check_length(self, data: dict[str, Any], **_: Any) -> None:
        if data["start"] == data["end"]:
            raise ValidationError("It ends when it starts: switch the channel off instead.", "end")


class PreferencesSchema(ma.Schema):
    """A person's preferences. Unset ones mean yes. A PUT replaces all of them."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    channels = ByName(
        keys=fields.String(validate=_CHANNEL),
        values=StrictBoolean(),
        load_default=dict,
        metadata={"properties": _SWITCHES, **CLOSED},
    )
    categories = ByName(
        keys=fields.String(validate=validate.Length(1, 64)),
        values=ByName(
            keys=fields.String(validate=_CHANNEL_OR_REST),
            values=StrictBoolean(),
            metadata={"properties": {**_SWITCHES, REST: {"type": "boolean"}}, **CLOSED},
        ),
        load_default=dict,
        validate=validate.Length(max=500),
        metadata={
            "description": "Category (1 to 64 characters) → channel, or `*` for the others → whether.",
            "maxProperties": 500,
            "properties": {"": {"not": {}}},  # nobody's name
        },
    )
    quiet_hours = fields.List(fields.Nested(QuietHoursSchema), load_default=list, validate=validate.Length(max=50))


class PreferenceCheckSchema(ma.Schema):
    """A notification that might be sent."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    user_id = user_id(required=True)
    channel = fields.Enum(Channel, by_value=True, required=True)
    category = fields.String(load_default=None, allow_none=True, validate=CATEGORY)
    critical = StrictBoolean(load_default=False)
    at = Timestamp(load_default=None, allow_none=True, metadata={"description": "Null: now."})


class DecisionSchema(ma.Schema):
    """Whether it would be sent, when, and which rule says so."""

    allowed = fields.Boolean(metadata={"description": "True also where it is put off to `at`."})
    at = Timestamp(allow_none=True, metadata={"description": "When it would go; null: never, or nobody knows."})
    rule = fields.String(
        allow_none=True, metadata={"description": "no_address, suppression, critical, channel, category, quiet_hours."}
    )
    explanation = fields.String()
