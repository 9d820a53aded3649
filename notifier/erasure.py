"""Erasing a person: their data goes, the counts stay, and what waits for them is cancelled."""

from typing import Final

from sqlalchemy import Connection, Engine, text

from notifier.channels import PENDING_IN_SQL, EventStatus, Status
from notifier.traces import wipe

#: Why a notification is cancelled whose user was deleted.
USER_DELETED: Final = "user_deleted"

_DELETE: Final = text("DELETE FROM users WHERE user_id = :user_id")
_LOCK: Final = text("SELECT id, event_id FROM notifications WHERE user_id = :user_id ORDER BY id FOR UPDATE")
_ATTACHMENTS: Final = text("""
    DELETE FROM attachments WHERE id IN (
        SELECT CAST(json_array_elements_text(content -> 'attachments') AS uuid) FROM notifications
        WHERE id = ANY(:ids) AND json_typeof(content -> 'attachments') = 'array'
    )
""")
# What is being sent loses its address too: a retry then finds nobody.
_NOTIFICATIONS: Final = text(f"""
    UPDATE notifications SET user_id = NULL, recipient = NULL, content = NULL, rule = NULL, judged = NULL,
        next_channels = NULL, cancellation_key = NULL, dedup_key = NULL, dedup_window = NULL,
        status = CASE WHEN status IN {PENDING_IN_SQL} THEN '{Status.CANCELLED}' ELSE status END,
        reason = CASE WHEN status IN {PENDING_IN_SQL} THEN '{USER_DELETED}' ELSE reason END,
        due_at = CASE WHEN status IN {PENDING_IN_SQL} THEN NULL ELSE due_at END
    WHERE id = ANY(:ids)
""")
# The events that named them, and those that nobody else heard of. One that was not fanned out makes nothing more.
_OWN_EVENTS: Final = "SELECT id FROM events WHERE user_id = :user_id ORDER BY id FOR UPDATE"
_EVENTS: Final = text(f"""
    UPDATE events e SET payload = '{{}}', recipient = NULL, user_id = NULL, due_at = NULL, error = NULL,
        cancellation_key = NULL, idempotency_key = NULL, dedup_key = NULL, dedup_window = NULL,
        status = CASE status WHEN '{EventStatus.ACCEPTED}' THEN '{EventStatus.PROCESSED}' ELSE status END
    WHERE e.id = ANY(:own) OR e.id = ANY(:heard) AND NOT EXISTS (
        SELECT FROM notifications n WHERE n.event_id = e.id AND n.recipient IS NOT NULL
    )
    RETURNING e.id
""")
# Callers make keys of addresses. Locked in the order in which intake writes them, else the two deadlock.
_IDEMPOTENCY_KEYS: Final = text("""
    WITH theirs AS MATERIALIZED (
        SELECT source, key FROM idempotency_keys WHERE ids && CAST(:ids AS uuid[]) ORDER BY source, key FOR UPDATE
    )
    DELETE FROM idempotency_keys known USING theirs WHERE known.source = theirs.source AND known.key = theirs.key
""")


def erase_user(engine: Engine, user_id: str) -> bool:
    """Delete a user, and what is known of them in events, notifications, attachments, attempts, letters and the outbox.

    Keys that callers gave (idempotency, deduplication, cancellation) go too: they are often made of addresses.

    Rows and their states stay, for the counts. The suppression list and opt-outs stay too: they are there to leave
    people alone, and whoever was erased must not be written to because of it. Partitions that were dropped hold
    nothing any more: a drop leaves no detached table behind. Returns false where there is no such user.
    """
    with engine.begin() as connection:
        # This waits for a fan-out that makes notifications for them (it keeps the user's row): those are then found.
        if not connection.execute(_DELETE, {"user_id": user_id}).rowcount:
            return False
        # An event that is in a fan-out by now waits for this transaction, so this one must not wait for it.
        _erase_traces(connection, user_id, f"{_OWN_EVENTS} SKIP LOCKED")
    with engine.begin() as connection:
        _erase_traces(connection, user_id, _OWN_EVENTS)
    return True


def _erase_traces(connection: Connection, user_id: str, own_events: str) -> None:
    own = list(connection.scalars(text(own_events), {"user_id": user_id}))
    rows = connection.execute(_LOCK, {"user_id": user_id}).all()
    ids = [row.id for row in rows]
    connection.execute(_ATTACHMENTS, {"ids": ids})
    connection.execute(_NOTIFICATIONS, {"ids": ids})
    wipe(connection, ids)
    heard = [row.event_id for row in rows if row.event_id]
    events = connection.scalars(_EVENTS, {"own": own, "heard": heard}).all()
    connection.execute(_IDEMPOTENCY_KEYS, {"ids": [*ids, *events]})
