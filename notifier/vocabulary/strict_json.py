"""Strict JSON: refuse documents that another parser could read differently from ours.

A JSON object may name a member twice, and parsers disagree about which one counts. A text that is checked in one
reading and stored as it came would reach others unchecked. Such objects are refused, at any depth, as are values that
cannot be stored or passed on unchanged: numbers beyond 64 bits, half surrogate pairs, NULs, and documents that are
nested too deeply.
"""

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

#: The deepest nesting of a document's members.
MAX_DEPTH: Final = 32
_TOO_DEEP: Final = f"Nested more than {MAX_DEPTH} levels deep."
_TOO_LARGE: Final = "An integer may have at most 64 bits."
TWICE: Final = "This name stands there more than once."


class NotJson(ValueError):
    """The text is no JSON at all. The message says where."""


class NotKept(ValueError):
    """The text is JSON, but cannot be kept as it is. `errors` maps a dotted path to its messages."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__("; ".join(f"{path}: {' '.join(messages)}" for path, messages in errors.items()))
        self.errors = errors


class _Doubled(Exception):
    """An object names a member twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Doubled
    return made


def _refuse_constant(name: str) -> float:
    raise NotJson(f"{name} is not JSON.")


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, all of them."""


# Made once: with arguments json.loads makes a decoder for each text, which takes longer than a small text itself.
_STRICT: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant)
_PAIRS: Final = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_refuse_constant)


def check_text(value: str) -> None:
    """Raise ValueError where a text cannot be kept as it is."""
    if "\0" in value:
        raise ValueError("A text may not contain the NUL character.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("A text may not contain half of a surrogate pair.") from None


def check_value(value: object, depth: int = 0) -> None:
    """Raise ValueError where a parsed value, itself `depth` levels deep, cannot be kept as it is."""
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError(_TOO_LARGE)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("A number is too large.")
    elif depth >= MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    elif isinstance(value, dict):
        for name, inner in value.items():
            check_text(name)
            check_value(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_value(inner, depth + 1)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object whose members can be kept as they are. Raises NotJson and NotKept."""
    document = _decoded(raw)
    if not isinstance(document, dict):
        raise NotKept({"_schema": ["Not a JSON object."]})
    errors = {}
    for name, value in document.items():
        try:
            check_text(name)
            check_value(value)
        except ValueError as error:
            errors[shown_name(name)] = [str(error)]
    if errors:
        raise NotKept(errors)
    return document


def _decoded(raw: bytes) -> Any:  # noqa: ANN401 -- whatever JSON can say
    try:
        text = raw.decode()
        return _STRICT.decode(text)
    except _Doubled:
        raise NotKept(_doubled_names(text)) from None
    except (ValueError, RecursionError) as error:
        raise _refusal(error, "payload") from None


def _refusal(error: ValueError | RecursionError, where: str) -> NotJson | NotKept:
    """Return the error for a text on which the parser raised; `where` names the member that is too deep or large."""
    match error:
        case NotJson() | NotKept():
            return error
        case UnicodeDecodeError():
            return NotJson("The body is not UTF-8.")
        case json.JSONDecodeError():
            return NotJson(f"The body is not JSON: {error.msg} at character {error.pos}.")
        case RecursionError():
            return NotKept({where: [_TOO_DEEP]})
    return NotKept({where: [_TOO_LARGE]})  # Python parses no integer of more than 4,300 digits


_SPACE: Final = re.compile(r"[ \t\n\r]*")


def items_in(text: str, name: str) -> list[str]:
    """Return the texts of the items of an object's only member, an array. Raises NotJson and NotKept."""
    try:
        values = _only_member(_PAIRS.decode(text), name)
        items = []
        # After the name, which is the text's first string however it is written, come a colon and a bracket.
        at = text.index("[", _PAIRS.raw_decode(text, text.index('"'))[1]) + 1
        for _ in values:
            at = _past_space(text, at)
            _, end = _PAIRS.raw_decode(text, at)
            items.append(text[at:end])
            at = _past_space(text, end) + 1
    except (ValueError, RecursionError) as error:
        raise _refusal(error, name) from None
    return items


def _only_member(document: object, name: str) -> list[Any]:
    if not (isinstance(document, _Pairs) and all(each == name for each, _ in document)):
        raise NotKept({name: ["Give it, and nothing else."]})
    if len(document) != 1:
        raise NotKept({name: [TWICE if document else "Missing."]})
    found = document[0][1]
    if not isinstance(found, list) or isinstance(found, _Pairs):
        raise NotKept({name: ["Not an array."]})
    return found


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def names_twice(raw: bytes) -> bool:
    """Return whether the outermost object of a JSON text has a name twice; True also where the text cannot be read."""
    try:
        pairs = _PAIRS.decode(raw.decode())
    except (ValueError, RecursionError):
        return True
    return isinstance(pairs, _Pairs) and any(_twice(pairs))


def _doubled_names(text: str) -> dict[str, list[str]]:
    """Return the paths of the first names that occur twice in one object. Up to there, the text parses."""
    try:
        found = list(islice(_paths(_PAIRS.decode(text), ""), _MOST_NAMED))
    except (ValueError, RecursionError) as error:
        raise _refusal(error, "payload") from None
    return {path: [TWICE] for path in found}


#: The most members that an error names, and the longest name that it shows.
_MOST_NAMED: Final = 20
_LONGEST_NAME: Final = 128


def _paths(value: object, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        yield from (f"{path}{shown_name(name)}" for name in _twice(value))
        for name, inner in value:
            yield from _paths(inner, f"{path}{shown_name(name)}.")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _paths(inner, f"{path}{place}.")


def _twice(pairs: _Pairs) -> Iterator[str]:
    seen, reported = set[str](), set[str]()
    for name, _ in pairs:
        if name in seen and name not in reported:
            reported.add(name)
            yield name
        seen.add(name)


def shown_name(name: str) -> str:
    """Return the name of a member or a parameter as an error can show it."""
    return name[:_LONGEST_NAME].encode("utf-8", "replace").decode().replace("\0", "")
