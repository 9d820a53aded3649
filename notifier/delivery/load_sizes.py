"""Load sizes: how many rows of a batch are read at once, by their bytes.

A message names up to 500 rows, and each may have as much as NOTIFIER_MAX_EVENT_BYTES. A worker that read all of them,
in each of its threads, would need gigabytes: so a batch whose rows are large is worked off in parts.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, TextClause, text

#: Bytes of content that one thread reads at once, about: of one row it may be more. In memory it is several times that.
MOST: Final = 4 * 1024 * 1024
#: So many rows, of the usual limit at the most, are not weighed: that would cost more than it can save.
_FEW: Final = 16

_OF_NOTIFICATIONS: Final = text("""
    SELECT n.id, coalesce(octet_length(CAST(n.content AS text)), 0)
        + coalesce((SELECT octet_length(CAST(e.payload AS text)) FROM events e WHERE e.id = n.event_id), 0) AS size
    FROM notifications n WHERE n.id = ANY(:ids)
""")
_OF_EVENTS: Final = text("SELECT id, octet_length(CAST(payload AS text)) AS size FROM events WHERE id = ANY(:ids)")


def of_notifications(engine: Engine, ids: Sequence[UUID]) -> list[list[UUID]]:
    """Return the ids of notifications in parts, each of which can be read at once."""
    return _weighed(engine, _OF_NOTIFICATIONS, ids)


def of_events(engine: Engine, ids: Sequence[UUID]) -> list[list[UUID]]:
    """Return the ids of events in parts, each of which can be read at once."""
    return _weighed(engine, _OF_EVENTS, ids)


def _weighed(engine: Engine, query: TextClause, ids: Sequence[UUID]) -> list[list[UUID]]:
    if len(ids) <= _FEW:
        return [list(ids)] if ids else []
    with engine.connect() as connection:
        sizes = {row.id: row.size for row in connection.execute(query, {"ids": list(ids)})}
    return in_parts_of(ids, sizes, MOST)


def in_parts_of(ids: Sequence[UUID], sizes: Mapping[UUID, int], most: int) -> list[list[UUID]]:
    """Return `ids` in parts, in order, none of over `most` bytes but one of a single row. `sizes`: in bytes."""
    parts: list[list[UUID]] = []
    room = -1
    for row_id in ids:
        size = sizes.get(row_id, 0)
        if size > room or not parts:
            parts.append([])
            room = most
        parts[-1].append(row_id)
        room -= size
    return parts
