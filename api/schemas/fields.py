"""Fields that are stricter than marshmallow's: what is accepted is exactly what the contract says."""

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import orjson
from marshmallow import ValidationError, fields, validate

from api.schemas import text_patterns
from api.services import services
from notifier.providers.formats.mailboxes import NotAMailbox, mailbox
from notifier.security.redaction import holds_mask
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.durations import parse_iso
from notifier.vocabulary.event_types import USER_ID
from notifier.vocabulary.masking import MASK
from notifier.vocabulary.reasons import SENTENCES, Reason
from notifier.vocabulary.states import Channel
from notifier.vocabulary.time_zones import zone
from notifier.vocabulary.timestamps import parse_rfc3339, rfc3339


def check_for_masks(value: object, name: str) -> None:
    """Raise ValidationError where a text shows `***` for the credentials in a URL: so we showed it."""
    if holds_mask(value):
        raise ValidationError(f"A URL in it is as it was shown, with {MASK} for the credentials: give it whole.", name)


def named_form(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a text field that is described by a named form (see `forms.named_forms`)."""
    nullable = kwargs.get("allow_none") is True
    return {**kwargs, "metadata": {**text_patterns.of_name(name, nullable=nullable), **kwargs.get("metadata", {})}}


class Timestamp(fields.Field[datetime]):
    """An RFC 3339 time, with its offset; put out in UTC, ending in `Z`."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("metadata", {})
        written = {"type": "string", "format": "date-time", "pattern": text_patterns.MOMENT}
        kwargs["metadata"] = {**written, **kwargs["metadata"]}
        super().__init__(**kwargs)

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        del attr, obj, kwargs
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        del attr, data, kwargs
        try:
            return parse_rfc3339(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class DurationText(fields.Field[str]):
    """An ISO 8601 duration, kept as it was written."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs = named_form("Duration", kwargs)
        kwargs["metadata"]["type"] = "string"
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        del attr, data, kwargs
        try:
            parse_iso(value if isinstance(value, str) else "")
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return str(value)


class LeadTimes(fields.Field[list[str]]):
    """One ISO 8601 duration or a list of them."""

    _MOST = 20

    def __init__(self, **kwargs: Any) -> None:
        one = text_patterns.reference_to("Duration")
        either = [one, {"type": "array", "items": one, "minItems": 1, "maxItems": self._MOST}]
        kwargs["metadata"] = {"anyOf": either, **kwargs.get("metadata", {})}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[str]:
        del attr, data, kwargs
        values = value if isinstance(value, list) else [value]
        if not 1 <= len(values) <= self._MOST:
            raise ValidationError(f"Give one duration or 1 to {self._MOST} in a list.")
        return [DurationText().deserialize(each) or "" for each in values]


class Zone(fields.String):
    """The exact name of an IANA time zone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**named_form("TimeZone", kwargs))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        try:
            return zone(text).key
        except ValueError as error:
            raise ValidationError(str(error)) from None


class Address(fields.String):
    """An address of one channel, in its normal form."""

    def __init__(self, channel: Channel, **kwargs: Any) -> None:
        form = text_patterns.ADDRESSES[channel]
        if "$ref" in form:
            kwargs = named_form(form["$ref"].rpartition("/")[2], kwargs)
        else:
            kwargs["metadata"] = {**form, **kwargs.get("metadata", {})}
        super().__init__(**kwargs)
        self._channel = channel

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        try:
            return normalised(self._channel, text)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class AddressFilter(fields.String):
    """An address that a list is to be filtered by, in all the forms in which it may be kept.

    `channel`: the field beside it that names the address's channel, where there is one.
    """

    def __init__(self, channel: str = "channel", **kwargs: Any) -> None:
        super().__init__(**{"load_default": None, "validate": validate.Length(1, 2048), **kwargs})
        self._channel_field = channel

    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        text = super().deserialize(value, attr, data, **kwargs)
        if not isinstance(text, str):
            return text
        named = (data or {}).get(self._channel_field)
        channel = Channel(named) if named in list(Channel) else None
        return services().wiring.seals.forms_sought(channel, text)


#: The mark on a mailbox that must be one of the senders that the settings allow: its description has their pattern.
SENDER: Final = {"x-sender": True}


#: The mark on an address whose form depends on its channel: the rules of its schema describe it.
IN_ITS_FORM: Final = {"x-in-its-form": True}


class Mailbox(fields.String):
    """`name@domain` or `Name <name@domain>`."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["metadata"] = {**text_patterns.mailbox_form(), **kwargs.get("metadata", {})}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        try:
            mailbox(text)
        except NotAMailbox as error:
            raise ValidationError(str(error)) from None
        return text


#: The mark on an object that has no other members than those that are named.
CLOSED: Final = {"x-closed": True}
#: The mark on a member that some answers do not have; all others are always there.
SOMETIMES: Final = {"x-sometimes": True}


class ByName(fields.Dict):
    """A JSON object with members of one kind; what is wrong with one stands under its name."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]  # marshmallow's
        except ValidationError as error:
            if not isinstance(error.messages, dict):
                raise
            # marshmallow tells a name's errors from its value's by one more level, which no caller knows of.
            named = {
                name: next(iter(inner.values()))
                if isinstance(inner, dict) and set(inner) <= {"key", "value"}
                else inner
                for name, inner in error.messages.items()
            }
            raise ValidationError(named) from None


class StrictBoolean(fields.Boolean):
    """true or false, and nothing that merely looks like it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class StrictNumber(fields.Float):
    """A number, and no text that looks like one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool | str):
            raise self.make_error("invalid", input=value)
        return float(super()._deserialize(value, attr, data, **kwargs))


class JsonText(fields.Field[str]):
    """A JSON object kept as its text: put out exactly as it came in."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"metadata": {"type": "object"}, **kwargs})

    def _serialize(self, value: str | None, attr: str | None, obj: Any, **kwargs: Any) -> orjson.Fragment | None:
        del attr, obj, kwargs
        return None if value is None else orjson.Fragment(value)


class Matches(validate.Validator):
    """The whole text matches a pattern, which is written so that ECMA-262 means the same by it: `^…$`."""

    def __init__(self, pattern: str | re.Pattern[str], *, error: str) -> None:
        self.regex = re.compile(pattern)  # where apispec looks for it
        self._error = error

    def __call__(self, value: str) -> str:
        """Raise ValidationError where it does not. Python's `$` alone would let a newline follow."""
        if self.regex.fullmatch(value) is None:
            raise ValidationError(self._error)
        return value


def _each_once(values: list[str]) -> None:
    if len(set(values)) < len(values):
        raise ValidationError("A channel stands there twice.")


#: A list of channels names none of them twice.
EACH_ONCE: Final = _each_once

USER_ID_FORM: Final = Matches(
    USER_ID, error="Not a user id: 1 to 255 characters, no slash or control character, and neither '.' nor '..'."
)


def user_id(**kwargs: Any) -> fields.String:
    """Return a field for the id of a user, which may also stand in a path."""
    return fields.String(validate=USER_ID_FORM, **kwargs)


def name(longest: int = 255, **kwargs: Any) -> fields.String:
    """Return a field for a text of 1 to `longest` characters."""
    return fields.String(validate=validate.Length(1, longest), **kwargs)


def reason_field(known: Collection[Reason] = tuple(Reason), **kwargs: Any) -> fields.String:
    """Return a field for a reason, described by a sentence for each known one."""
    described = "\n".join(f"- `{each}`: {SENTENCES[each]}" for each in known)
    return fields.String(validate=validate.OneOf(list(known)), metadata={"description": described}, **kwargs)
