"""SMS segments by 3GPP TS 23.038: a text's number of segments, each of which is sent and paid for on its own.

| alphabet              | one segment               | each of several |
|-----------------------|---------------------------|-----------------|
| GSM 7 bit             | 160 septets               | 153 septets     |
| UCS-2, for all others | 70 UTF-16 code units      | 67 code units   |

One character outside the GSM alphabet makes the whole text UCS-2. A character of its extension table takes two septets,
and one outside the Basic Multilingual Plane two code units; neither is divided between segments.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from notifier.providers.http.api import CannotSend

#: The most segments of one SMS.
MOST_SEGMENTS: Final = 10

#: Without the escape, which stands for no character of its own.
_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = frozenset("\f^{}\\[~]|€")
_GSM: Final = _BASIC | _EXTENSION

_LAST_OF_ONE_UNIT: Final = "\uffff"


@dataclass(frozen=True, slots=True)
class Segments:
    """The size of a text as an SMS."""

    encoding: Literal["gsm-7", "ucs-2"]
    #: Septets or UTF-16 code units, without the headers that join segments.
    units: int
    segments: int


def count(text: str) -> Segments:
    """Count the segments of a text; an empty one takes none."""
    if _GSM.issuperset(text):
        return _divided("gsm-7", [2 if character in _EXTENSION else 1 for character in text], alone=160, joined=153)
    return _divided("ucs-2", [2 if character > _LAST_OF_ONE_UNIT else 1 for character in text], alone=70, joined=67)


def checked(text: str) -> Segments:
    """Count like `count`, for a text that one SMS can carry. Raises CannotSend otherwise."""
    if not text:
        raise CannotSend("empty: an SMS needs a text")
    needed = count(text)
    if needed.segments > MOST_SEGMENTS:
        raise CannotSend(f"too long: {needed.segments} segments, at most {MOST_SEGMENTS}")
    return needed


def sender_of(text: str) -> str:
    """Read the sender of SMS as a DSN's option gives it: a number, or a name of at most 11 letters and digits.

    Raises ValueError, its words going on from the setting's name.
    """
    # A plus that is not percent-encoded is a space to a query, and no sender begins with one.
    number = re.sub(r"^ (?=[0-9])", "+", text)
    is_number = re.fullmatch(r"\+?[0-9]{3,15}", number)
    is_name = re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9+&_-][A-Za-z0-9+&_ -]{0,10}", number)
    if not (is_number or is_name):
        raise ValueError("has a from that is neither a number, +15550100, nor a name of at most 11 letters and digits")
    return number


def _divided(encoding: Literal["gsm-7", "ucs-2"], widths: list[int], *, alone: int, joined: int) -> Segments:
    units = sum(widths)
    if units <= alone:
        return Segments(encoding, units, min(units, 1))
    segments, taken = 1, 0
    for width in widths:
        if taken + width > joined:  # a unit may stay empty, where a character of two does not fit any more
            segments, taken = segments + 1, 0
        taken += width
    return Segments(encoding, units, segments)
