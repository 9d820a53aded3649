"""JSON documents for SQL statements: characters that Postgres cannot store are replaced, not refused.

Texts from servers, vendors, plug-in providers and templates may contain a NUL or half of a surrogate pair. One such
text in one row must not fail the whole statement.
"""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import orjson


def to_json(value: Any) -> str:  # noqa: ANN401 -- whatever JSON can say
    """Return a value as a JSON text that Postgres takes: NULs and lone surrogates become U+FFFD."""
    try:
        written = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return orjson.dumps(_storable(value)).decode()
    # (An escaped backslash before u0000 looks the same, and is left as it is.)
    return (orjson.dumps(_storable(value)) if b"\\u0000" in written else written).decode()


def storable(text: str) -> str:
    """Return a text with U+FFFD in place of characters that Postgres cannot store."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _storable(value: Any) -> Any:  # noqa: ANN401 -- as above
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(name)): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _storable(asdict(value))
    return value
