"""Batch deletes: remove old rows without blocking anybody, and keep rows that live ones still need (see retention).

A batch determines which of its rows are needed, locks the others (skipping rows that another transaction has locked)
and checks again, in a new snapshot: rows that became live in between stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, text

from notifier.storage.personal_data import named_in
from notifier.vocabulary.ids import first_id_of, millisecond_of
from notifier.vocabulary.statistics import HOURS_KEPT, MINUTES_KEPT, Dimension

log = structlog.get_logger()

#: Rows of a batch: some tens of milliseconds. Attachments may have megabytes each.
_BATCH: Final = 1000
_LARGE: Final = 20
#: The ids of attachments and of the notifications that they come with are not further apart.
AROUND_MIDNIGHT: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class RetentionCutoffs:
    """The limits of what is old: ids of days before `before` (UTC), and dead letters with ids under `letters`."""

    before: date
    letters: UUID


#: A notification `n` that has yet to bring its next channel.
OWES_IN_SQL: Final = "n.next_channels IS NOT NULL AND n.status IN ('failed', 'skipped')"
# The ids that notifications name in their contents.
_NAMED: Final = f"""
    SELECT {named_in("content")} FROM notifications WHERE id >= :from AND id < :to AND content IS NOT NULL
"""
# A live row asks its siblings, once it fails, whether they arrived; a reminder asks for those that replace it.
_NEEDED_NOTIFICATIONS: Final = f"""
    SELECT n.id FROM notifications n WHERE n.id = ANY(:ids) AND (
        n.due_at IS NOT NULL OR {OWES_IN_SQL}
        OR EXISTS (SELECT FROM dead_letters d WHERE d.notification_id = n.id AND d.requeued_at IS NULL)
        OR n.siblings IS NOT NULL AND EXISTS (
            SELECT FROM notifications s WHERE s.id = ANY(n.siblings) AND s.next_channels IS NOT NULL
                AND (s.due_at IS NOT NULL OR s.status IN ('failed', 'skipped'))
        )
        OR n.cancellation_key IS NOT NULL AND n.target_date IS NOT NULL AND EXISTS (
            SELECT FROM notifications live WHERE live.cancellation_key = n.cancellation_key
                AND live.due_at IS NOT NULL AND live.target_date IS NOT NULL
        )
    )
"""
_NEEDED_ATTEMPTS: Final = """
    SELECT a.id FROM attempts a WHERE a.id = ANY(:ids) AND EXISTS (
        SELECT FROM notifications n WHERE n.id = a.notification_id AND n.id >= :from AND n.id < :to
    )
"""
# By the range of ids, and not one by one: each of some forty partitions is asked once a batch, and not for every event.
_NEEDED_EVENTS: Final = """
    SELECT event_id FROM notifications WHERE event_id >= :first AND event_id <= :last
    UNION ALL SELECT event_id FROM dead_letters
    WHERE notification_id IS NULL AND requeued_at IS NULL AND event_id >= :first AND event_id <= :last
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """The last id that was looked at, and how many rows were deleted."""

    last: UUID
    deleted: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """How the old rows of one table are deleted."""

    table: str
    #: Which of its rows are looked at.
    finished: str
    #: SQL for those among `:ids` that are needed; `:first` and `:last` of them, `:from` and `:to` an hour around.
    needed: str
    #: Dependent rows that are deleted too; also bounded by `:from` and `:to`, which prunes partitions.
    along: tuple[str, ...] = ()
    #: Days that they are kept beyond the others.
    longer: int = 0
    size: int = _BATCH

    def batch(self, connection: Connection, after: UUID, before: UUID) -> Batch | None:
        """Delete those of the next rows between two ids that nobody needs; None where there are no more."""
        page = text(f"""
            SELECT id FROM {self.table} WHERE id > :after AND id < :before AND {self.finished}
            ORDER BY id LIMIT {self.size}
        """)
        ids = list(connection.scalars(page, {"after": after, "before": before}))
        if not ids:
            return None
        free = self._free(connection, ids)
        if free:
            lock = text(
                f"SELECT id FROM {self.table} WHERE id = ANY(:ids) AND {self.finished} ORDER BY id"
                " FOR UPDATE SKIP LOCKED"
            )
            free = self._free(connection, list(connection.scalars(lock, {"ids": free})))
        for statement in (*self.along, f"DELETE FROM {self.table} WHERE id = ANY(:ids)") if free else ():
            connection.execute(text(statement), _around(free))
        return Batch(ids[-1], len(free))

    def _free(self, connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
        """Return the ids that nothing needs."""
        needed = set(connection.scalars(text(self.needed), _around(ids))) if ids else set()
        return [each for each in ids if each not in needed]


def _around(ids: Sequence[UUID]) -> dict[str, object]:
    """Return bounds for sorted ids: the first and the last, and the ids of an hour before and after."""
    hour = AROUND_MIDNIGHT // timedelta(milliseconds=1)
    return {
        "ids": list(ids),
        "first": ids[0],
        "last": ids[-1],
        "from": UUID(int=max(0, millisecond_of(ids[0]) - hour) << 80),
        "to": UUID(int=millisecond_of(ids[-1]) + hour << 80),
    }


NOTIFICATIONS: Final = Sweep(
    "notifications",
    "due_at IS NULL",
    _NEEDED_NOTIFICATIONS,
    along=("DELETE FROM attempts WHERE notification_id = ANY(:ids) AND id >= :from AND id < :to",),
)
ATTEMPTS: Final = Sweep("attempts", "true", _NEEDED_ATTEMPTS)
EVENTS: Final = Sweep("events", "due_at IS NULL", _NEEDED_EVENTS)
# A day longer: at midnight an attachment may be older than the notification that it came with.
ATTACHMENTS: Final = Sweep("attachments", "true", _NAMED, longer=1, size=_LARGE)


@dataclass(frozen=True, slots=True)
class Expiry:
    """A table whose rows have a lifetime of their own, and how expired rows are deleted."""

    table: str
    #: Its primary key.
    key: str
    #: SQL for the expired rows, and the order of their deletion (one with an index, if the table may be large).
    is_over: str
    order: str
    #: SQL for expired rows that an operator should be told about.
    is_noteworthy: str = "false"

    def batch(self, connection: Connection, cutoffs: RetentionCutoffs) -> tuple[int, bool]:
        """Delete a batch; returns how many rows that were, and whether it was the last one."""
        delete = text(f"""
            DELETE FROM {self.table} WHERE {self.is_over} AND ({self.key}) IN (
                SELECT {self.key} FROM {self.table} WHERE {self.is_over} ORDER BY {self.order} LIMIT {_BATCH}
                FOR UPDATE SKIP LOCKED
            ) RETURNING {self.is_noteworthy}
        """)
        deleted = list(connection.scalars(delete, _moments(cutoffs)))
        if any(deleted):
            log.warning("purged_what_stood", table=self.table, rows=sum(deleted))
        return len(deleted), len(deleted) < _BATCH

    def count(self, connection: Connection, cutoffs: RetentionCutoffs) -> int:
        """Count the expired rows."""
        count = text(f"SELECT count(*) FROM {self.table} WHERE {self.is_over}")
        return int(connection.scalar(count, _moments(cutoffs)) or 0)


def _moments(cutoffs: RetentionCutoffs) -> dict[str, object]:
    before = datetime.combine(cutoffs.before, time(), UTC)
    return {"letters": cutoffs.letters, "before": before, "rows": first_id_of(before)}


_STATISTICS_KEY: Final = "dimension, moment, channel, name"


def _statistics_over(kept: timedelta) -> str:
    """Return SQL for old statistics. It names the dimensions, so that the primary key finds them."""
    dimensions = ", ".join(f"'{each}'" for each in Dimension)
    return f"dimension IN ({dimensions}) AND moment < now() - interval '{kept // timedelta(hours=1)} hours'"


#: Dead letters first, also open ones, which nobody has handled in all that time: the rows that they kept follow.
EXPIRING: Final = (
    Expiry("dead_letters", "id", "id < :letters", "id", "requeued_at IS NULL"),
    Expiry("idempotency_keys", "source, key", "expires_at <= now()", "expires_at"),
    Expiry("dedup_keys", "channel, address, key", "until <= now()", "until"),
    Expiry("outbox", "id", "created_at < :before", "id"),
    Expiry("resends", "id", "id < :rows", "id"),
    Expiry("taken_receipts", "id", "id < :rows", "id"),
    Expiry("erasures", "id", "id < :rows AND due_at IS NULL", "id"),
    Expiry("dead_letter_acts", "id", "id < :rows AND (finished_at IS NOT NULL OR stopped_at IS NOT NULL)", "id"),
    Expiry("receipts", "id", "keep_until <= now()", "due_at"),
    Expiry("heartbeats", "name", "seen_at <= now() - interval '1 day'", "name"),
    Expiry("stats_minutes", _STATISTICS_KEY, _statistics_over(MINUTES_KEPT), _STATISTICS_KEY),
    Expiry("stats_hours", _STATISTICS_KEY, _statistics_over(HOURS_KEPT), _STATISTICS_KEY),
)
