"""Headers that we send, and headers as the attempt log shows them: enough for debugging, without secrets."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

#: The header line by which servers know us.
USER_AGENT: Final = "user-agent: Notifier/0.1.0"
#: The header lines of a request to a JSON API. `expect:` has libcurl leave out `Expect: 100-continue`.
JSON_HEADERS: Final = ("content-type: application/json", "accept: application/json", USER_AGENT, "expect:")

#: The text in place of a hidden value.
MASK: Final = "***"

#: The request headers that everybody may see; any other header is a caller's own, and may be a secret.
_OURS: Final = frozenset({"content-type", "user-agent", "traceparent", "webhook-id", "webhook-timestamp"})
_SIGNATURE: Final = "webhook-signature"

_MOST_HEADERS: Final = 30
#: Names and values together, in bytes of UTF-8.
_MOST_BYTES: Final = 4096
_MOST_CHARACTERS: Final = 256
#: Lines of so many bytes fit, whatever is in them: a character of latin-1 takes at most two bytes of UTF-8.
_SURELY_FITS: Final = _MOST_BYTES // 2
_SECRET: Final = re.compile(r"token|secret|key|^(set-cookie|authorization|proxy-authorization|www-authenticate)$")
#: All of latin-1's (a tab is a space to HTTP, and becomes one).
_CONTROLS: Final = bytes([*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0)])
_TAB_TO_SPACE: Final = bytes.maketrans(b"\t", b" ")
#: Lines up to this length are remembered, so that a stranger's lines take no memory to speak of.
_SHORT: Final = 128


def of_request(lines: Sequence[str]) -> dict[str, str]:
    """Return headers that we set, from lines "name: value": names in lower case, values masked except our own."""
    shown = {}
    for line in lines:
        name, _, value = line.partition(":")
        value = value.strip()
        if value:  # "name:" is how libcurl is told to leave one out
            name = name.strip().lower()
            shown[name] = value if name in _OURS else f"v1,{MASK}" if name == _SIGNATURE else MASK
    return shown


def of_response(lines: Sequence[bytes]) -> dict[str, str]:
    """Return an answer's headers, from its untrusted lines as received.

    Keeps the first 30 lines, values of at most 256 characters, and 4 KiB in all, without control characters, with names
    in lower case and secrets masked. Repeated headers are joined by commas.
    """
    shown: dict[str, str] = {}
    for line in islice(lines, _MOST_HEADERS):
        name, value = _read_again(line) if len(line) <= _SHORT else _read(line)
        if name is None:
            break  # the blank line that ends the head; trailers may come after it
        if name not in shown:
            shown[name] = value
        elif value != MASK:
            shown[name] = f"{shown[name]}, {value}"[:_MOST_CHARACTERS]
    shown.pop("", None)
    return shown if sum(map(len, lines)) <= _SURELY_FITS else _what_fits(shown)


def _clean(raw: bytes) -> str:
    return raw.translate(_TAB_TO_SPACE, _CONTROLS).strip().decode("latin-1")


def _read(line: bytes) -> tuple[str | None, str]:
    """Return a header's name, None on a line without one, and its value as it is shown."""
    raw_name, colon, raw_value = line.partition(b":")
    if not colon:
        return None, ""
    name = _clean(raw_name).lower()
    return name, MASK if _SECRET.search(name) else _clean(raw_value)[:_MOST_CHARACTERS]


#: Most lines come again and again, and this is the hot path.
_read_again: Final = lru_cache(maxsize=1024)(_read)


def _what_fits(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that fit into the limit."""
    room = _MOST_BYTES
    fitting = {}
    for name, value in headers.items():
        size = len(name.encode()) + len(value.encode())
        if size <= room:
            fitting[name] = value
            room -= size
    return fitting
