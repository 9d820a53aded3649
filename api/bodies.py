"""Request bodies: read within limits, parsed strictly, with the payload kept as the text it came in."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec
import orjson
from flask import Response, abort, request
from werkzeug.exceptions import HTTPException

from notifier.errors import Invalid

#: How deep `payload` may be nested.
_MAX_DEPTH: Final = 32
#: Bytes of a body that are read though nobody wants them any more.
_READ_FOR_NOTHING: Final = 1024 * 1024
_NDJSON: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Body:
    """One JSON object, as parsed and as it came."""

    document: dict[str, Any]
    raw: bytes

    def raw_member(self, name: str) -> bytes | None:
        """The JSON text of a top-level member, exactly as it came; None where there is none."""
        member = msgspec.json.decode(self.raw, type=dict[str, msgspec.Raw]).get(name)
        return None if member is None else bytes(member)

    def fingerprint(self, kind: str) -> bytes:
        """SHA-256 over the parsed body, whatever its key order, without its idempotency key."""
        rest = {name: value for name, value in self.document.items() if name != "idempotency_key"}
        return hashlib.sha256(kind.encode() + orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).digest()


class NotJson(ValueError):
    """The text is no JSON at all. The message says where."""


def _refuse_constant(name: str) -> float:
    raise NotJson(f"{name} is not JSON.")


def check_text(value: str) -> None:
    """Raise ValueError where a text cannot be kept as it is."""
    if "\0" in value:
        raise ValueError("A text may not contain the NUL character.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("A text may not contain half of a surrogate pair.") from None


def _check(value: object, depth: int) -> None:
    """Raise ValueError where a value cannot be kept as it is."""
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError("An integer may have at most 64 bits.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("A number is too large.")
    elif depth >= _MAX_DEPTH:
        raise ValueError(f"Nested more than {_MAX_DEPTH} levels deep.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            check_text(name)
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)


def parse(raw: bytes) -> Body:
    """Parse one JSON object. Raises NotJson, or Invalid where it is JSON that cannot be kept."""
    try:
        document = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise NotJson("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    except RecursionError:
        raise Invalid({"payload": [f"Nested more than {_MAX_DEPTH} levels deep."]}) from None
    except NotJson:
        raise
    except ValueError:  # Python parses no integer of more than 4,300 digits
        raise Invalid({"payload": ["An integer may have at most 64 bits."]}) from None
    if not isinstance(document, dict):
        raise Invalid({"_schema": ["Not a JSON object."]})
    errors = {}
    for name, value in document.items():
        try:
            check_text(name)
            _check(value, 0)
        except ValueError as error:
            errors[name.encode("utf-8", "replace").decode().replace("\0", "")] = [str(error)]
    if errors:
        raise Invalid(errors)
    return Body(document, raw)


def read_bytes(limit: int) -> bytes:
    """The body's bytes; answers 413 where there are more than `limit`."""
    # One more than allowed: werkzeug cuts a body without a length there, and says nothing.
    request.max_content_length = limit + 1
    if request.content_length is not None and request.content_length > limit:
        abort(413, f"The body is larger than {limit} bytes.")
    raw = request.get_data(cache=False)
    if len(raw) > limit:
        abort(413, f"The body is larger than {limit} bytes.")
    return raw


def read_the_rest(response: Response) -> Response:
    """Read what an answer did not wait for: else the server closes the connection, and who uses it again finds that.

    What is too large to be read for nothing is left, and the answer says that the connection closes.
    """
    if response.status_code >= HTTPStatus.BAD_REQUEST and "Connection" not in response.headers:
        if (request.content_length or 0) <= _READ_FOR_NOTHING:
            with suppress(HTTPException, OSError):  # the caller may be gone
                request.stream.read()
        else:
            response.headers["Connection"] = "close"
    return response


def is_empty(limit: int) -> bool:
    """Whether the request has no body, whatever its headers say of it. Answers 413."""
    request.max_content_length = limit + 1
    return not request.get_data()  # which keeps it for those who read it


def read_json(limit: int, *, beside: str | None = None, room: int = 0) -> Body:
    """The request's body, one JSON object of at most `limit` bytes.

    `beside`: a member that does not count, and has `room` for itself, in bytes. Answers 400, 413 or 415; raises
    Invalid.
    """
    if not request.is_json:
        abort(415, "Send JSON, with 'Content-Type: application/json'.")
    raw = read_bytes(limit + room)
    # Looked at before it is parsed, which takes much more memory than the text.
    if len(raw) > limit and len(raw) - _length_of(beside, raw) > limit:
        abort(413, f"The body is larger than {limit} bytes" + (f", without its {beside}." if beside else "."))
    try:
        return parse(raw)
    except NotJson as error:
        abort(400, str(error))


def _length_of(member: str | None, raw: bytes) -> int:
    """How many bytes a top-level member has; 0 where there is none, or no JSON object at all."""
    try:
        return len(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get(member or "", b""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]


def read_batch(limit: int) -> list[bytes]:
    """The items of a batch, each as its own JSON text: `{"events": [...]}`, or one a line as NDJSON.

    Answers 400, 413 or 415; raises Invalid.
    """
    if request.mimetype == _NDJSON:
        return [line for line in read_bytes(limit).split(b"\n") if line.strip()]
    if not request.is_json:
        abort(415, f"Send JSON, with 'Content-Type: application/json', or '{_NDJSON}'.")
    raw = read_bytes(limit)
    try:
        raw.decode()
        return [bytes(item) for item in msgspec.json.decode(raw, type=_Batch).events]
    except msgspec.ValidationError as error:
        raise Invalid({"events": [f"{error}."]}) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        abort(400, f"The body is not JSON: {error}.")


def items_of(raw_items: list[bytes], limit: int) -> Iterator[Body | Invalid]:
    """Parse the items of a batch, each on its own merits."""
    for raw in raw_items:
        if len(raw) > limit:
            yield Invalid({"_schema": [f"Larger than {limit} bytes."]})
            continue
        try:
            yield parse(raw)
        except NotJson as error:
            yield Invalid({"_schema": [str(error)]})
        except Invalid as error:
            yield error
