"""What sending leaves of a person beside the notification itself: answers of servers, errors, copies of messages."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

# Answers of servers repeat addresses; of our own words the class is kept.
_WIPE: Final = (
    text("""
        UPDATE attempts SET response_excerpt = NULL, response_headers = NULL, error = split_part(error, ':', 1)
        WHERE notification_id = ANY(:ids)
    """),
    text("UPDATE dead_letters SET error = split_part(error, ':', 1) WHERE notification_id = ANY(:ids)"),
    text("UPDATE receipts SET error = split_part(error, ':', 1) WHERE notification_id = ANY(:ids)"),
    text("DELETE FROM outbox WHERE notification_id = ANY(:ids)"),
    text("DELETE FROM dedup_keys WHERE notification_id = ANY(:ids)"),
)


def wipe(connection: Connection, notification_ids: Sequence[UUID]) -> None:
    """Remove personal data from what was recorded about some notifications; the records stay, for the counts."""
    if notification_ids:
        for statement in _WIPE:
            connection.execute(statement, {"ids": list(notification_ids)})


def named_in(document: str) -> str:
    """SQL for the ids (UUIDv7) that a JSON column names, one a row: where it belongs after SELECT."""
    digits = "[0-9a-f]"
    pattern = f"{digits}{{8}}-{digits}{{4}}-7{digits}{{3}}-{digits}{{4}}-{digits}{{12}}"
    return f"CAST((regexp_matches(CAST({document} AS text), '{pattern}', 'g'))[1] AS uuid)"
