"""Fields that are stricter than marshmallow's: what is accepted is exactly what the contract says."""

import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from marshmallow import ValidationError, fields, validate

from notifier.rendering import rfc3339

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class Timestamp(fields.Field[datetime]):
    """An RFC 3339 time, with its offset; put out in UTC, ending in `Z`."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        kwargs.setdefault("metadata", {})
        kwargs["metadata"] = {"type": "string", "format": "date-time", **kwargs["metadata"]}
        super().__init__(**kwargs)

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:  # noqa: ANN401
        del attr, obj, kwargs
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:  # noqa: ANN401
        del attr, data, kwargs
        if not isinstance(value, str) or not _RFC3339.fullmatch(value):
            raise ValidationError("Not an RFC 3339 time with its offset, such as 2026-11-21T09:00:00Z.")
        # Postgres keeps microseconds, and so does Python.
        text = re.sub(r"(\.\d{6})\d+", r"\1", value.upper())
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            raise ValidationError("Not a time that exists.") from None
        if moment.year < 1970:
            raise ValidationError("Before 1970.")
        return moment


class StrictBoolean(fields.Boolean):
    """true or false, and nothing that merely looks like it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:  # noqa: ANN401
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class JsonText(fields.Field[str]):
    """A JSON object kept as its text: put out exactly as it came in."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        super().__init__(**{"metadata": {"type": "object"}, **kwargs})

    def _serialize(self, value: str | None, attr: str | None, obj: Any, **kwargs: Any) -> orjson.Fragment | None:  # noqa: ANN401
        del attr, obj, kwargs
        return None if value is None else orjson.Fragment(value)


def name(longest: int = 255, **kwargs: Any) -> fields.String:  # noqa: ANN401 -- marshmallow's options
    """A text of 1 to `longest` characters."""
    return fields.String(validate=validate.Length(1, longest), **kwargs)
