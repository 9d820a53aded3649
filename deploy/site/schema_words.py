"""Schemas of the OpenAPI description in words and Markdown: types, bounds and members."""

import json
import re
from collections.abc import Iterator
from textwrap import indent
from typing import Any, Final

from api.schemas.text_patterns import MOMENT, TEXT

Schema = dict[str, Any]

#: The page that a reference to a schema leads to, from a page beside it.
_SCHEMAS_PAGE: Final = "schemas.md"
_NULL: Final[Schema] = {"enum": [None]}
#: Forms of every text and of every time, which the first page tells once for all.
_SAID_ONCE: Final = frozenset({None, TEXT, MOMENT})
#: Code spans as they are, and `<`, which would begin HTML.
_CODE_OR_ANGLE: Final = re.compile(r"(`+).+?\1|<")


def type_of(schema: Schema) -> str:
    """Return the type of a value in words: "string or null", "array of `email`, `sms`"."""
    words = list(dict.fromkeys(_types(schema)))
    if "null" in words:  # last, and once
        words = [*(word for word in words if word != "null"), "null"]
    return " or ".join(words)


def bounds_of(schema: Schema) -> str:
    """Return the bounds of a value in words, with a comma before: ", 1 to 255 characters"; none: an empty text."""
    found = [
        _range(schema.get("minLength"), schema.get("maxLength"), " characters"),
        _range(schema.get("minimum"), schema.get("maximum"), ""),
        _range(schema.get("minItems"), schema.get("maxItems"), " items"),
        _range(schema.get("minProperties"), schema.get("maxProperties"), " members"),
        "no item twice" if schema.get("uniqueItems") else "",
    ]
    return "".join(f", {each}" for each in found if each)


def description_of(schema: Schema) -> str:
    """Return the description in Markdown, with no HTML in it."""
    text: str = schema.get("description", "")
    return prose(text)


def prose(text: str) -> str:
    """Return a text of the description in Markdown, with no HTML in it."""
    return _CODE_OR_ANGLE.sub(lambda found: "&lt;" if found[0] == "<" else found[0], text)


def members_of(schema: Schema) -> str:
    """Return the members of an object as a list of definitions, with those of objects within."""
    required = set(schema.get("required", ()))
    return "\n".join(
        definition(name, each, is_required=name in required)
        for name, each in schema.get("properties", {}).items()
        if "not" not in each  # a name that is not allowed
    )


def definition(name: str, schema: Schema, *, is_required: bool, description: str = "") -> str:
    """Return one member or parameter as a definition: its name, type, bounds, description and form.

    `description`: in place of the schema's own.
    """
    kind = f"{type_of(schema)}{bounds_of(schema)}"
    said = prose(description) or description_of(schema)
    # A list in a description begins a paragraph of its own.
    first, rest = ("", said) if said.startswith("- ") else (said, "")
    parts = [f"*{kind[0].upper()}{kind[1:]}.* {first}".rstrip(), rest, *_details(schema)]
    body = "\n\n".join(part for part in parts if part).rstrip()
    required = " **required**" if is_required else ""
    return f"`{name}`{required}\n:   {indent(body, '    ').lstrip()}\n"


def in_json(value: object) -> str:
    """Return a value as JSON in a block of code."""
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def reference(schema: Schema) -> str | None:
    """Return the name of the component that a schema refers to, and nothing else; None for others."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    alternatives = schema.get("allOf", ())
    return reference(alternatives[0]) if len(alternatives) == 1 and "properties" not in schema else None


def _details(schema: Schema) -> Iterator[str]:
    """Yield what is said of a value below its description."""
    if schema.get("pattern") not in _SAID_ONCE:
        yield f"Form: {code(schema['pattern'])}"
    if "example" in schema:
        yield f"Example: {code(json.dumps(schema['example'], ensure_ascii=False))}"
    for inner in (schema, schema.get("items", {}), _values(schema)):
        if inner.get("properties"):
            yield members_of(inner)


def code(text: str) -> str:
    """Return a text as a code span, whatever is in it."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def _types(schema: Schema) -> Iterator[str]:
    if name := reference(schema):
        yield f"[{name}]({_SCHEMAS_PAGE}#{name.lower()})"
    elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
        for each in alternatives:
            yield from _types(each)
    elif "enum" in schema:
        values = [each for each in schema["enum"] if each is not None]
        if values:
            yield ", ".join(code(str(each)) for each in values)
    else:
        yield _plain_type(schema)
    if schema.get("nullable") or None in schema.get("enum", ()):
        yield "null"


def _plain_type(schema: Schema) -> str:
    match schema.get("type"):
        case "array":
            return f"array of {type_of(schema.get('items', {}))}"
        case "object" if values := _values(schema):
            return f"object of {type_of(values)}"
        case None:
            return "any value"
        case kind:
            return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _values(schema: Schema) -> Schema:
    """Return the schema of members that have no fixed names; empty where there is none."""
    values = schema.get("additionalProperties")
    return values if isinstance(values, dict) else {}


def _range(least: float | None, most: float | None, unit: str) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f"at least {least:,}{unit}"
    return f"at most {most:,}{unit}" if not least else f"{least:,} to {most:,}{unit}"
