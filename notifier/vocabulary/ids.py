"""UUIDv7 (RFC 9562, section 5.7): ids that sort by the millisecond in which they were created.

New records get a random id. A derived id is for records that must get the same id when they are created twice.
"""

import hashlib
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_EPOCH = datetime.fromtimestamp(0, UTC)


def new_id() -> UUID:
    """Return a new UUIDv7 of this millisecond, greater than all ids that this process created before."""
    return uuid7()


def millisecond_of(value: UUID) -> int:
    """Return the Unix time in milliseconds that the first 48 bits of a UUIDv7 hold."""
    return value.int >> 80


def time_of(value: UUID) -> datetime:
    """Return the time that a UUIDv7 holds, in UTC, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=millisecond_of(value))


def derived_id(millisecond: int, *parts: object) -> UUID:
    """Derive a UUIDv7 of `millisecond` from `parts`: its other 74 bits are SHA-256 over them.

    Equal parts give equal ids. Parts are joined by NUL, which none of them may contain; None is written as an empty
    part.
    """
    text = "\0".join(["" if part is None else str(part) for part in parts])
    random = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big") >> 6  # 74 bits
    return UUID(int=millisecond << 80 | _VERSION | (random >> 62) << 64 | _VARIANT | random & (1 << 62) - 1)


def first_id_of(moment: datetime | date) -> UUID:
    """Return the smallest UUID of a moment (or of a day's first moment, UTC): a lower bound for a range of ids."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80)


def first_id_after(moment: datetime) -> UUID:
    """Return the smallest UUID of the millisecond after a moment: all ids of the moment and before are smaller."""
    return UUID(int=(millisecond_of(first_id_of(moment)) + 1) << 80)


def bounds_of_millisecond(value: UUID) -> tuple[UUID, UUID]:
    """Return the smallest and the greatest UUID with the first 48 bits of a given one: those of its millisecond."""
    first = millisecond_of(value) << 80
    return UUID(int=first), UUID(int=first | (1 << 80) - 1)
