"""Names and event type patterns. A pattern is an exact type or has a trailing wildcard (`order.*`, `*`)."""

import re
from typing import Final

from notifier.vocabulary.states import Status

PATTERN: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._:-]{0,127}|[A-Za-z0-9][A-Za-z0-9._:-]{0,126}\*|\*)")

#: The id of a user: any text that can be one segment of a path, so that every route can name every user. No slash and
#: no control character, since servers on the way undo `%2F`; and no `.` and `..`, which clients resolve. Match with
#: `fullmatch`; the pattern is valid in ECMA-262 too.
USER_ID: Final = re.compile(r"^(?!\.{1,2}$)[^/\x00-\x1f\x7f]{1,255}$")

#: The form of the names of templates and routes.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def matches(pattern: str, event_type: str) -> bool:
    """Return whether a pattern matches an event type."""
    if pattern.endswith("*"):
        return event_type.startswith(pattern[:-1])
    return event_type == pattern


#: The prefix of our own event types. Callers cannot post them, and status events cause no status events themselves.
OURS: Final = "notifier."


def status_event_type(status: Status) -> str:
    """Return the event type that announces a notification's change to this status."""
    return f"{OURS}notification.{status}"
