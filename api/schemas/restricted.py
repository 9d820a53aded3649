"""Restricted members of records: those marked with FOR_READERS are shown to keys with the scope `read`."""

from typing import Any, Final

import marshmallow as ma
from marshmallow import post_dump

from api.visibility import shows_addresses, was_given

#: The mark on a member: an address, or a text that somebody else wrote and that may hold one.
FOR_READERS: Final = "x-for-readers"
NOTE: Final = "Left out (null) for a key without the scope `read`, unless the request brought it itself."


def for_readers(description: str = "", **metadata: Any) -> dict[str, Any]:
    """Return the metadata of a member that only callers with the scope `read` see."""
    return {FOR_READERS: True, "description": f"{description} {NOTE}".strip(), **metadata}


class RestrictedSchema(ma.Schema):
    """A record that may hold addresses."""

    @post_dump
    def _leave_out(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if shows_addresses():
            return data
        for name, field in self.dump_fields.items():
            if field.metadata.get(FOR_READERS) and name in data:
                data[name] = _given(data[name])
        return data


def _given(value: Any) -> Any:
    """Return the part of a member's value that the caller sent itself."""
    if isinstance(value, list):
        return [each for each in value if was_given(each)]
    return value if isinstance(value, str) and was_given(value) else None
