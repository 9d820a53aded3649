"""Domain names in ASCII, as network protocols carry them: internationalised names as A-labels (IDNA 2008, RFC 5891)."""

import re
from functools import lru_cache
from typing import Final

import idna

#: The longest ASCII form of a name, without the dot that may end it (RFC 1035, section 2.3.4).
_LONGEST: Final = 253
#: A label that is not international. Host names have no underscore, but names inside private networks do.
_LABEL: Final = re.compile(r"(?!xn--)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PREFIX: Final = "xn--"


@lru_cache(maxsize=2048)
def ascii_domain(name: str) -> str:
    """Return a domain name in lower-case ASCII, given with U-labels, A-labels or both.

    Raises ValueError, with a sentence for the caller as its message, if IDNA 2008 does not allow the name or if it is
    too long.
    """
    if len(name) > _LONGEST + 1:
        raise ValueError(f"Its domain has more than {_LONGEST} characters.")
    try:
        # Width, case and the dots of other scripts are a matter of writing (UTS 46); ß and ß-like letters stay.
        mapped = name.lower() if name.isascii() else idna.uts46_remap(name, std3_rules=False, transitional=False)
        labels = [_ascii_label(label) for label in mapped.removesuffix(".").split(".")]
    except UnicodeError as error:  # all of idna's
        raise ValueError(f"Its domain is not one that IDNA 2008 allows: {error}.") from None
    text = ".".join(labels)
    if len(text) > _LONGEST:
        raise ValueError(f"Its domain has more than {_LONGEST} characters in its ASCII form.")
    return text + "." * mapped.endswith(".")


def unicode_domain(name: str) -> str:
    """Return a domain name with U-labels, the form for people. Raises ValueError as `ascii_domain` does."""
    return ".".join(
        idna.ulabel(label) if label.startswith(_PREFIX) else label for label in ascii_domain(name).split(".")
    )


def _ascii_label(label: str) -> str:
    if _LABEL.fullmatch(label):
        return label
    if label.isascii() and not label.startswith(_PREFIX):
        raise UnicodeError("a label is empty, longer than 63 characters, or has characters that no name has")
    encoded = idna.alabel(label).decode("ascii")
    # An A-label is the form of exactly one U-label (RFC 5891, section 5.3).
    if idna.alabel(idna.ulabel(encoded)).decode("ascii") != encoded:
        raise UnicodeError("a label is not in its one ASCII form")
    return encoded
