"""Request context: the request that caused a piece of work, and the trace that it belongs to.

Events and notifications store both, because the work may happen a year later, in another process, and after any number
of lost messages.
"""

import re
from dataclasses import dataclass
from typing import Final

#: https://www.w3.org/TR/trace-context/#traceparent-header, of the version that is known; ids of zeros mean none.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: Of a later version so much is known: that it begins in the same way.
_LATER: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request's id and its position in a trace, as W3C's traceparent. Either may be unknown."""

    request_id: str | None = None
    traceparent: str | None = None


UNKNOWN: Final = RequestContext()


def as_request_id(given: str | None) -> str | None:
    """Return a caller's request id if it is safe in logs, headers and a shell, else None."""
    return given if given and _REQUEST_ID.fullmatch(given) else None


def as_traceparent(given: str | None) -> str | None:
    """Return a caller's traceparent in the form of version 00, or None if it is invalid: then a new trace begins."""
    if not given or len(given) > 256:
        return None
    if _TRACEPARENT.fullmatch(given):
        return given
    later = None if given.startswith("00") else _LATER.fullmatch(given)
    return f"00-{later[1]}-{later[2]}-{later[3]}" if later else None
