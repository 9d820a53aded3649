"""Lists: `?limit=` and `?cursor=`, newest first."""

import base64
import re
from typing import Any
from uuid import UUID

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validate

from api.schemas.text_patterns import CURSOR


class Cursor(fields.Field[UUID]):
    """Where a page goes on: the last id of the one before, opaque to callers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            metadata={"type": "string", "pattern": CURSOR, "description": "`next_cursor` of the page before."}, **kwargs
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> UUID:
        del attr, data, kwargs
        if not isinstance(value, str) or not re.fullmatch(CURSOR, value):
            raise ValidationError("Not a cursor that a list gave.")
        return UUID(bytes=base64.urlsafe_b64decode(value + "=="))


def as_cursor(last_id: UUID) -> str:
    """Return the cursor after the row with this id."""
    return base64.urlsafe_b64encode(last_id.bytes).decode().rstrip("=")


class PageQuery(ma.Schema):
    """The parameters of every list. Unknown parameters are refused, and no value is clamped."""

    class Meta:
        """Refuse unknown parameters."""

        unknown = RAISE

    limit = fields.Integer(load_default=50, validate=validate.Range(1, 200), metadata={"description": "Page size."})
    cursor = Cursor(load_default=None)
