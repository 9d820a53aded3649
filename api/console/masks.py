"""Masks of personal data, as pages show it until somebody asks for the whole: enough to recognise what is known."""

import re
from typing import Any, Final

#: It begins where a word does: tried from within a long word too, it would take the square of the word's length.
_EMAIL: Final = re.compile(r"(?<![^\s@<>\"',;:()])([^\s@<>\"',;:()]+)@([^\s@<>\"',;:()]+)")
_PHONE: Final = re.compile(r"\+[0-9][0-9 ()./-]{4,20}[0-9]")
_HIDDEN: Final = "•••"
#: The last characters of an address of another kind that stay.
_TAIL: Final = 4


def masked_address(address: str | None) -> str | None:
    """Return an address of any channel with its middle hidden: `a•••@example.com`, `+49•••34`, `https://host/•••`."""
    if address is None:
        return None
    if email := _EMAIL.fullmatch(address.strip()):
        return f"{email[1][:1]}{_HIDDEN}@{email[2]}"
    if _PHONE.fullmatch(address):
        return f"{address[:3]}{_HIDDEN}{address[-2:]}"
    scheme, found, rest = address.partition("://")
    if found:
        return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}/{_HIDDEN}"
    return f"{_HIDDEN}{address[-_TAIL:]}" if len(address) > 2 * _TAIL else _HIDDEN


def masked_text(text: str | None) -> str | None:
    """Return a text with the email addresses and phone numbers in it hidden, such as a provider's error."""
    if text is None:
        return None
    text = _EMAIL.sub(lambda found: str(masked_address(found[0])), text)
    return _PHONE.sub(lambda found: str(masked_address(found[0])), text)


def masked_values(value: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return JSON with each of its texts and numbers hidden, and its names kept but for addresses in them."""
    if isinstance(value, dict):
        return {masked_text(name): masked_values(each) for name, each in value.items()}
    if isinstance(value, list):
        return [masked_values(each) for each in value]
    return value if value is None or isinstance(value, bool) else _HIDDEN
