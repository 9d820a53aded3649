"""Personal data that sending leaves beside the notification itself: servers' answers, errors, copies of messages."""

import re
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

# Answers of servers repeat addresses; of our own words the class is kept ("http 400", "timeout"). A provider of others'
# may have written anything.
_FORM: Final = "[a-z0-9 ,_-]{1,40}"
_CLASS: Final = f"""
    CASE WHEN split_part(error, ':', 1) ~ '^{_FORM}$' THEN split_part(error, ':', 1) ELSE left(error, 0) END
"""
_WIPE: Final = (
    text(f"""
        UPDATE attempts SET response_excerpt = NULL, response_headers = NULL, error = {_CLASS}
        WHERE notification_id = ANY(:ids)
    """),
    text(f"UPDATE dead_letters SET error = {_CLASS} WHERE notification_id = ANY(:ids)"),
    text(f"UPDATE receipts SET error = {_CLASS} WHERE notification_id = ANY(:ids)"),
    text(f"UPDATE taken_receipts SET error = {_CLASS} WHERE notification_id = ANY(:ids)"),
    text("UPDATE resends SET explanation = NULL WHERE notification_id = ANY(:ids)"),
    text("DELETE FROM outbox WHERE notification_id = ANY(:ids)"),
    text("DELETE FROM dedup_keys WHERE notification_id = ANY(:ids)"),
)


def class_of(error: str | None) -> str | None:
    """Return the class of an error in our own words, such as "http 400"; empty where they are another's."""
    if error is None:
        return None
    words = error.partition(":")[0]
    return words if re.fullmatch(_FORM, words) else ""


def wipe(connection: Connection, notification_ids: Sequence[UUID]) -> None:
    """Remove personal data from the records about some notifications; the records stay, for the counts."""
    if notification_ids:
        for statement in _WIPE:
            connection.execute(statement, {"ids": list(notification_ids)})


def named_in(document: str) -> str:
    """Return SQL for the ids (UUIDv7) that a JSON column contains, one a row, for use after SELECT."""
    digits = "[0-9a-f]"
    pattern = f"{digits}{{8}}-{digits}{{4}}-7{digits}{{3}}-{digits}{{4}}-{digits}{{12}}"
    return f"CAST((regexp_matches(CAST({document} AS text), '{pattern}', 'g'))[1] AS uuid)"
