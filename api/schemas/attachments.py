"""Files that go along with an email, as they come in."""

import base64
import mimetypes
import re
import unicodedata
from typing import Any, Final

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, post_load, validate

from notifier.providers.protocol import Attachment

#: Line breaks of any kind would break the header that the name stands in.
_UNFIT_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: RFC 6838, section 4.2.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_CONTENT_TYPE: Final = re.compile(rf"(?!multipart/){_NAME}/{_NAME}", re.IGNORECASE)
#: A parameter (RFC 2045, section 5.1) that no reader takes for something else: no `*` of RFC 2231, no backslash.
_PARAMETER: Final = re.compile(
    r'([A-Za-z0-9][A-Za-z0-9_.-]{0,23})=("[ !#-\[\]-~]{0,48}"|[A-Za-z0-9!#$&+.^_`{|}~-]{1,48})'
)
#: Parameters that the email itself sets, and that a request may therefore not set.
_NOT_THEIRS: Final = frozenset({"boundary", "filename", "name", "start", "start-info", "type"})
_MOST_PARAMETERS: Final = 8
#: Their forms, for the description: of a type's parameters, those of other names than the email's own.
_NAME_FORM: Final = r"^[^/\\\u0000-\u001f\u007f-\u009f\u2028\u2029]{1,255}$"
_TYPE_FORM: Final = (
    rf"^(?![Mm][Uu][Ll][Tt][Ii][Pp][Aa][Rr][Tt]/){_NAME}/{_NAME}"
    r"(?:; *(?:charset|method|profile|version)=(?:\u0022[ !#-<>-\[\]-~]{0,48}\u0022|[A-Za-z0-9!#$&+.^_`{|}~-]{1,48}))?$"
)
_BASE64_FORM: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$"
_UNKNOWN: Final = "application/octet-stream"


class Base64(fields.Field[bytes]):
    """Bytes in base64 (RFC 4648, section 4), padded and without line breaks."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["metadata"] = {"type": "string", "format": "byte", **kwargs.get("metadata", {})}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bytes:
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


class ContentType(fields.String):
    """A media type and its parameters, which come out in one form: `text/calendar; method=REQUEST`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        kind, *parameters = (each.strip(" ") for each in text.split(";"))
        if not _CONTENT_TYPE.fullmatch(kind):
            raise ValidationError("Not the type of a file: write type/subtype, such as application/pdf.")
        found = [_PARAMETER.fullmatch(each) for each in parameters]
        names = [each[1].lower() for each in found if each]
        if len(names) < len(parameters) or any("=?" in each for each in parameters):
            raise ValidationError("A parameter of the type is not name=value, short and in ASCII.")
        if len(set(names)) < len(names) or len(names) > _MOST_PARAMETERS:
            raise ValidationError(f"The type has a parameter twice, or more than {_MOST_PARAMETERS}.")
        if not _NOT_THEIRS.isdisjoint(names):
            raise ValidationError("The type has a parameter that is not a file's own, such as name.")
        return "; ".join((kind, *parameters))


class AttachmentSchema(ma.Schema):
    """A file that goes along with an email."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    name = fields.String(
        required=True,
        validate=[validate.Length(1, 255), _check_name],
        metadata={"description": "As the recipient sees it.", "pattern": _NAME_FORM},
    )
    content_type = ContentType(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "With its parameters, such as `text/calendar; method=REQUEST`. Null: by the name's ending.",
            "pattern": _TYPE_FORM,
        },
    )
    content = Base64(required=True, metadata={"description": "In base64.", "pattern": _BASE64_FORM})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Attachment:
        return Attachment(data["name"], data["content_type"] or _guess(data["name"]), data["content"])


def _guess(name: str) -> str:
    kind, encoding = mimetypes.guess_type(name)
    # A file that is compressed as well is not of that type as it stands.
    return kind if kind and encoding is None and _CONTENT_TYPE.fullmatch(kind) else _UNKNOWN
