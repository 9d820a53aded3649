"""Email attachments: stored beside the notifications that name them, and read only when one is sent.

Attachments are written before the notifications that name them. A file that nothing names, after a failure in between,
does no harm: it is dropped with its day's partition.
"""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, delete, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from notifier.models import Attachment as Stored
from notifier.providers.protocol import Attachment
from notifier.vocabulary.ids import new_id

log = structlog.get_logger()

_STORE: Final = text("""
    INSERT INTO attachments (id, name, content_type, content)
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:names AS text[]), CAST(:types AS text[]), CAST(:contents AS bytea[])
    )
""")


def store(engine: Engine, attachments: Sequence[Attachment]) -> list[UUID]:
    """Keep files, in a transaction of its own; returns their ids, in order."""
    ids = [new_id() for _ in attachments]
    if not ids:
        return []
    values = {
        "ids": ids,
        "names": [each.name for each in attachments],
        "types": [each.content_type for each in attachments],
        "contents": [each.content for each in attachments],
    }
    with engine.begin() as connection:
        connection.execute(_STORE, values)
    return ids


def drop(engine: Engine, ids: Sequence[UUID]) -> None:
    """Remove files that no notification names. Raises nothing: a remaining file does no harm."""
    if not ids:
        return
    try:
        with engine.begin() as connection:
            connection.execute(delete(Stored).where(Stored.id.in_(ids)))
    except SQLAlchemyError as error:
        log.warning("attachments_not_dropped", error=type(error).__name__, attachments=len(ids))


def sizes(connection: Connection, ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the size of each file in bytes; missing files are left out."""
    if not ids:
        return {}
    # Read from where a large value's place is noted, without the value.
    size = func.octet_length(Stored.content).label("size")
    found = connection.execute(select(Stored.id, size).where(Stored.id.in_(sorted(ids))))
    return {row.id: row.size for row in found}


def load(connection: Connection, ids: Collection[UUID]) -> dict[UUID, Attachment]:
    """Load the files; missing files are left out."""
    if not ids:
        return {}
    query = select(Stored.id, Stored.name, Stored.content_type, Stored.content).where(Stored.id.in_(sorted(ids)))
    return {row.id: Attachment(row.name, row.content_type, row.content) for row in connection.execute(query)}
