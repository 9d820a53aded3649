"""UUIDv7 (RFC 9562, section 5.7): ids that sort by the millisecond in which they were made.

A random one for what is new; a derived one where making the same thing twice must make the same id.
"""

import hashlib
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62


def new_id() -> UUID:
    """A fresh UUIDv7 of this millisecond, greater than those that this process made before it."""
    return uuid7()


def millisecond_of(value: UUID) -> int:
    """The Unix time in milliseconds that a UUIDv7 carries in its first 48 bits."""
    return value.int >> 80


def time_of(value: UUID) -> datetime:
    """The moment a UUIDv7 carries, in UTC, exact to the millisecond."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=millisecond_of(value))


def derived_id(millisecond: int, *parts: object) -> UUID:
    """A UUIDv7 of `millisecond` whose other 74 bits are SHA-256 over `parts`: the same parts make the same id.

    Parts are joined by NUL, which none of them may contain; None is written as an empty part.
    """
    text = "\0".join("" if part is None else str(part) for part in parts)
    random = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big") >> 6  # 74 bits
    return UUID(int=millisecond << 80 | _VERSION | (random >> 62) << 64 | _VARIANT | random & (1 << 62) - 1)


def first_id_of(moment: datetime | date) -> UUID:
    """The smallest UUID of a moment (or of a day's first moment, UTC): a lower bound in a range of ids."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    milliseconds = (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80)
