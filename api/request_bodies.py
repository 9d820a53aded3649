"""Request bodies: read within limits, parsed strictly, with the payload kept as the text it came in."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson
from flask import abort, request

from api.problem_types import ProblemType
from api.problems import Unreadable, problem
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.strict_json import TWICE, NotJson, NotKept, items_in, names_twice, parse_object

_NDJSON: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Body:
    """One JSON object, as parsed and as it came."""

    document: dict[str, Any]
    raw: bytes

    def raw_member(self, name: str) -> bytes | None:
        """Return the JSON text of a top-level member, exactly as it came; None if it is missing."""
        member = msgspec.json.decode(self.raw, type=dict[str, msgspec.Raw]).get(name)
        return None if member is None else bytes(member)

    def as_event(self) -> "Body":
        """Return the body with `type`, other systems' name, read as `event_type`. Raises Invalid."""
        if "type" not in self.document:
            return self
        rest = {name: value for name, value in self.document.items() if name != "type"}
        if "event_type" in rest and rest["event_type"] != self.document["type"]:
            raise Invalid({"type": ["It differs from event_type, which means the same: give one of them."]})
        return Body({"event_type": self.document["type"], **rest}, self.raw)

    def fingerprint(self, kind: str) -> bytes:
        """SHA-256 over the parsed body, whatever its key order, without its idempotency key."""
        rest = {name: value for name, value in self.document.items() if name != "idempotency_key"}
        return hashlib.sha256(kind.encode() + orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).digest()


def parse(raw: bytes) -> Body:
    """Parse one JSON object. Raises NotJson, or Invalid where it is JSON that cannot be kept."""
    try:
        return Body(parse_object(raw), raw)
    except NotKept as error:
        raise Invalid(error.errors) from None


def read_bytes(limit: int) -> bytes:
    """Return the body's bytes; answers 413 if there are more than `limit`."""
    # One more than allowed: werkzeug cuts a body without a length there, and says nothing.
    request.max_content_length = limit + 1
    if request.content_length is not None and request.content_length > limit:
        abort(413, f"The body is larger than {limit} bytes.")
    raw = request.get_data(cache=False)
    if len(raw) > limit:
        abort(413, f"The body is larger than {limit} bytes.")
    return raw


def is_empty(limit: int) -> bool:
    """Return whether the request has no body, whatever its headers say. Answers 413."""
    request.max_content_length = limit + 1
    return not request.get_data()  # which keeps it for those who read it


def read_json(limit: int, *, beside: str | None = None, room: int = 0) -> Body:
    """Return the request's body, one JSON object of at most `limit` bytes.

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
        abort(problem(400, str(error), kind=ProblemType.INVALID_JSON))


def _length_of(member: str | None, raw: bytes) -> int:
    """Return the size of a top-level member in bytes; 0 if it is missing, or the body is no JSON object."""
    try:
        return len(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get(member or "", b""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]


class _Whole(msgspec.Struct):
    events: msgspec.Raw


#: The beginning of a batch, up to its events.
_BEGINNING: Final = re.compile(rb'\s*\{\s*"events"\s*:\s*')


def _check_once(raw: bytes) -> None:
    """Raise Invalid where a batch, which was decoded as such, has its events twice: the last ones alone would count."""
    # By its ends alone, for it may be large: nothing stands before the events that were decoded, nor behind them.
    events = bytes(msgspec.json.decode(raw, type=_Whole).events)
    begun = _BEGINNING.match(raw)
    if begun and raw.startswith(events, begun.end()) and raw[begun.end() + len(events) :].strip() == b"}":
        return
    if names_twice(raw):  # else its name was written with escapes
        raise Invalid({"events": [TWICE]})


def read_batch(limit: int) -> list[bytes]:
    """Return the items of a batch, each as its own JSON text: `{"events": [...]}`, or one a line as NDJSON.

    Answers 400, 413 or 415; raises Invalid.
    """
    if request.mimetype == _NDJSON:
        return [line for line in read_bytes(limit).split(b"\n") if line.strip()]
    if not request.is_json:
        abort(415, f"Send JSON, with 'Content-Type: application/json', or '{_NDJSON}'.")
    raw = read_bytes(limit)
    try:
        raw.decode()
        items = [bytes(item) for item in msgspec.json.decode(raw, type=_Batch).events]
    except msgspec.ValidationError as error:
        raise Invalid({"events": [TWICE if names_twice(raw) else f"{error}."]}) from None
    except UnicodeDecodeError as error:
        abort(problem(400, f"The body is not JSON: {error}.", kind=ProblemType.INVALID_JSON))
    except msgspec.DecodeError:
        return _items_one_by_one(raw)
    _check_once(raw)
    return items


def _items_one_by_one(raw: bytes) -> list[bytes]:
    """The items of a batch that msgspec takes for no JSON: half of a surrogate pair in one item is that item's error.

    Answers 400; raises Invalid.
    """
    try:
        return [item.encode() for item in items_in(raw.decode(), "events")]
    except NotJson as error:
        abort(problem(400, str(error), kind=ProblemType.INVALID_JSON))
    except NotKept as error:
        raise Invalid(error.errors) from None


def items_of(raw_items: list[bytes], limit: int) -> Iterator[Body | Invalid]:
    """Parse the items of a batch, each on its own merits."""
    for raw in raw_items:
        if len(raw) > limit:
            yield Unreadable(ProblemType.BODY_TOO_LARGE, f"Larger than {limit} bytes.")
            continue
        try:
            yield parse(raw)
        except NotJson as error:
            yield Unreadable(ProblemType.INVALID_JSON, str(error))
        except Invalid as error:
            yield error
