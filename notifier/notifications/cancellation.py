"""Cancellation: by id, by key, and by a later reminder that replaces an earlier one.

A cancellation is one guarded UPDATE, with a truthful result under a race: either no further attempt is made, or the
notification was or is being sent. A worker's claim is guarded the same way, so exactly one of the two wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from notifier.planning.plans import Row
from notifier.vocabulary.deferrals import UNEXPLAINED_IN_SQL
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import PENDING_IN_SQL, EventStatus, Status

_REASON: Final = f"""
    CASE WHEN n.lost > 0 OR EXISTS (
        SELECT FROM attempts a WHERE a.notification_id = n.id AND a.outcome = 'ambiguous'
    ) THEN '{Reason.MAY_HAVE_BEEN_SENT}' END
"""
# Notifications that are being sent, or are dead already, must not go on to their next channel either.
_CANCELLED: Final = f"""
    next_channels = NULL,
    status = CASE WHEN n.status IN {PENDING_IN_SQL} THEN '{Status.CANCELLED}' ELSE n.status END,
    reason = CASE WHEN n.status IN {PENDING_IN_SQL} THEN {_REASON} ELSE n.reason END,
    explanation = CASE WHEN n.status IN {PENDING_IN_SQL} THEN NULL ELSE n.explanation END,
    rule = CASE WHEN n.status IN {PENDING_IN_SQL} THEN NULL ELSE n.rule END,
    waits_for = CASE WHEN n.status IN {PENDING_IN_SQL} THEN NULL ELSE n.waits_for END,
    due_at = CASE WHEN n.status IN {PENDING_IN_SQL} THEN NULL ELSE n.due_at END
"""
_CANCEL: Final = text(f"UPDATE notifications n SET {_CANCELLED} WHERE n.id = ANY(:ids) RETURNING n.status")
#: A source, or null for all of them.
_IS_OWN: Final = "(CAST(:source AS text) IS NULL OR source = :source)"
# The events first: this waits for a fan-out that holds them, whose notifications the next statement then sees.
_CANCEL_EVENTS: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM events WHERE cancellation_key = :key AND {_IS_OWN} AND status = '{EventStatus.ACCEPTED}'
            AND cancelled_at IS NULL ORDER BY id FOR UPDATE
    )
    UPDATE events e SET cancelled_at = now() FROM locked WHERE e.id = locked.id
    RETURNING NOT EXISTS (SELECT FROM notifications n WHERE n.event_id = e.id)
""")
_LOCK_BY_KEY: Final = text(f"""
    SELECT id FROM notifications
    WHERE cancellation_key = :key AND {_IS_OWN} AND (status IN {PENDING_IN_SQL} OR next_channels IS NOT NULL)
    ORDER BY id FOR UPDATE
""")
_TOO_LATE: Final = text(f"""
    SELECT count(*) FROM notifications WHERE cancellation_key = :key AND {_IS_OWN}
        AND status IN ('{Status.SENDING}', '{Status.SENT}', '{Status.DELIVERED}')
""")


def cancel(engine: Engine, notification_id: UUID) -> bool:
    """Cancel one notification; false if it was or is being sent, or has ended otherwise.

    True means that no further attempt is made, also if it was cancelled before. Raises LookupError if there is no such
    notification.
    """
    with engine.begin() as connection:
        status = connection.scalar(_CANCEL, {"ids": [notification_id]})
    if status is None:
        raise LookupError(notification_id)
    return bool(status == Status.CANCELLED)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """How many notifications, and events that have none yet, were cancelled, and for how many it was too late."""

    cancelled: int
    too_late: int


def cancel_by_key(engine: Engine, key: str, source: str | None = None) -> Cancelled:
    """Cancel all notifications of a source (None: of all sources) with a cancellation key, as far as possible.

    The key may be used again for later ones.
    """
    values = {"key": key, "source": source}
    with engine.begin() as connection:
        # An event that has notifications already is counted by them.
        events = sum(connection.scalars(_CANCEL_EVENTS, values))
        ids = list(connection.scalars(_LOCK_BY_KEY, values))
        statuses = connection.scalars(_CANCEL, {"ids": ids}).all()
        too_late = connection.scalar(_TOO_LATE, values) or 0
    return Cancelled(events + sum(status == Status.CANCELLED for status in statuses), too_late)


# There is a later reminder of the same source for the same recipient, of the same type, under the same key.
_LATER: Final = """
    (n.cancellation_key IS NOT NULL AND n.target_date IS NOT NULL AND EXISTS (
        SELECT FROM notifications later WHERE later.cancellation_key = n.cancellation_key AND later.source = n.source
            AND later.target_date IS NOT NULL AND later.origin_id > n.origin_id
            AND later.event_type IS NOT DISTINCT FROM n.event_type AND later.channel = n.channel
            AND later.recipient = n.recipient
    ))
"""
_LOCK_SUPERSEDED: Final = text(f"""
    SELECT id FROM notifications n WHERE cancellation_key = ANY(:keys) AND status IN {PENDING_IN_SQL} AND {_LATER}
    ORDER BY id FOR UPDATE
""")
_REPLACE: Final = text(f"""
    UPDATE notifications SET status = '{Status.CANCELLED}', reason = '{Reason.REPLACED}', {UNEXPLAINED_IN_SQL},
        due_at = NULL, next_channels = NULL
    WHERE id = ANY(:ids)
""")


_SUPERSEDED: Final = text(f"SELECT id FROM notifications n WHERE id = ANY(:ids) AND {_LATER}")


def superseded(connection: Connection, notification_ids: Sequence[UUID]) -> frozenset[UUID]:
    """Return the reminders that a later one has replaced."""
    if not notification_ids:
        return frozenset()
    return frozenset(connection.scalars(_SUPERSEDED, {"ids": list(notification_ids)}))


def replace_older(connection: Connection, rows: Sequence[Row]) -> None:
    """Cancel pending reminders that some of these new rows have replaced, in the connection's transaction.

    The later of two reminders stands, whichever was created first. Two that are created at the same moment may both
    remain; the gate finds that when they are to be sent (see notifier.delivery.gate).
    """
    keys = {row["cancellation_key"] for row in rows if row.get("cancellation_key") and row.get("target_date")}
    if keys:
        ids = list(connection.scalars(_LOCK_SUPERSEDED, {"keys": sorted(keys)}))
        connection.execute(_REPLACE, {"ids": ids})
