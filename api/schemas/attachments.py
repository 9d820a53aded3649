"""Files that go along with an email, as they come in."""

import base64
import mimetypes
import re
import unicodedata
from typing import Any, Final

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, post_load, validate

from notifier.providers import Attachment

#: Line breaks of any kind would break the header that the name stands in.
_UNFIT_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: RFC 6838, section 4.2, without the parameters that may follow.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_CONTENT_TYPE: Final = re.compile(rf"(?!multipart/){_NAME}/{_NAME}", re.IGNORECASE)
_UNKNOWN: Final = "application/octet-stream"


class Base64(fields.Field[bytes]):
    """Bytes in base64 (RFC 4648, section 4), padded and without line breaks."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 -- marshmallow's options
        kwargs["metadata"] = {"type": "string", "format": "byte", **kwargs.get("metadata", {})}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bytes:  # noqa: ANN401
        del attr, data, kwargs
        try:
            decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
        except ValueError:
            raise ValidationError("Not base64: A-Z, a-z, 0-9, + and /, padded with =, without line breaks.") from None
        if not decoded:
            raise ValidationError("Nothing is in it: write the file's bytes in base64.")
        return decoded


def _check_name(name: str) -> None:
    if "/" in name or "\\" in name:
        raise ValidationError("A name may not contain path separators.")
    if not _UNFIT_CATEGORIES.isdisjoint(map(unicodedata.category, name)):
        raise ValidationError("A name may not contain control characters.")


def _check_content_type(content_type: str) -> None:
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise ValidationError(
            "Not the type of a file: write type/subtype, such as application/pdf, without parameters."
        )


class AttachmentSchema(ma.Schema):
    """A file that goes along with an email."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    name = fields.String(
        required=True,
        validate=[validate.Length(1, 255), _check_name],
        metadata={"description": "As the recipient sees it.", "example": "invoice.pdf"},
    )
    content_type = fields.String(
        load_default=None,
        allow_none=True,
        validate=_check_content_type,
        metadata={"description": "Null: by the name's ending.", "example": "application/pdf"},
    )
    content = Base64(required=True, metadata={"description": "In base64.", "example": "JVBERi0xLjcK"})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Attachment:  # noqa: ANN401 -- marshmallow's options
        return Attachment(data["name"], data["content_type"] or _guess(data["name"]), data["content"])


def _guess(name: str) -> str:
    kind, encoding = mimetypes.guess_type(name)
    # What is compressed besides is not of that type as it is.
    return kind if kind and encoding is None and _CONTENT_TYPE.fullmatch(kind) else _UNKNOWN
