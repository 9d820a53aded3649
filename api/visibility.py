"""Visibility of data by caller: readers see addresses, others see the values that they sent themselves."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask import g

from api.auth import caller
from api.services import services
from notifier.security.api_keys import Scope

#: The query parameter by which an administrator asks to see credentials.
REVEAL: Final = "reveal"


def shows_addresses() -> bool:
    """Return whether the caller may see addresses and texts that it did not send itself."""
    return Scope.READ in caller().scopes


def reveals() -> bool:
    """Return whether an administrator asks to see credentials too."""
    return getattr(g, "reveals", False) is True


def remember_given(fields: Mapping[str, Any]) -> None:
    """Remember the fields of this request, in the form in which they are stored: its answer may show them."""
    g.given = frozenset(_texts(fields)) | getattr(g, "given", frozenset())


def was_given(value: object) -> bool:
    """Return whether this request itself contained a value."""
    whole = services().wiring.seals.opened_or_kept(value) if isinstance(value, str) else value
    return whole in getattr(g, "given", frozenset())


def _texts(value: object) -> Iterator[str]:
    """Return every text within some fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
