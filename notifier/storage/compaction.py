"""Compaction: rebuild an old day from the few rows that are still needed.

Deleting the other rows would take minutes for a million rows, and leave their disk space to a table that gets no new
rows. Instead, the needed rows are copied into a new partition that replaces the old one. Nobody waits for the copy: the
table is locked only to look for changes since, copy those, and exchange the partitions; some tens of milliseconds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from notifier.models import Base
from notifier.storage.batch_deletes import OWES_IN_SQL
from notifier.storage.partitions import create_day, drop_day, exchange_day, partition_of, spare_of
from notifier.vocabulary.ids import first_id_of

#: Rows that are copied at the most, and their bytes. A day that needs more is left as it is.
MOST: Final = 10_000
_MOST_BYTES: Final = 64 * 1024 * 1024
#: Smaller partitions are not worth it, in bytes; a partition must have so many times the bytes of its needed rows.
_SMALLEST: Final = 1024 * 1024
_TIMES: Final = 4
#: Bytes of a row beside its columns.
_ROW: Final = 32

# Each question has an index, and gives ids of one table that are needed; {part} is the day's own partition.
_NEEDED: Final[Mapping[str, str]] = {
    "notifications": f"""
        SELECT id FROM {{part}} WHERE due_at IS NOT NULL
        UNION SELECT n.id FROM {{part}} n WHERE {OWES_IN_SQL}
        UNION SELECT unnest(n.siblings) FROM {{part}} n WHERE n.next_channels IS NOT NULL
            AND (n.due_at IS NOT NULL OR {OWES_IN_SQL})
        UNION SELECT notification_id FROM dead_letters
            WHERE requeued_at IS NULL AND notification_id >= :low AND notification_id < :high
    """,
    "attempts": """
        SELECT a.id FROM notifications n JOIN {part} a ON a.notification_id = n.id WHERE n.id >= :low AND n.id < :high
    """,
    "events": """
        SELECT id FROM {part} WHERE due_at IS NOT NULL
        UNION SELECT event_id FROM notifications WHERE event_id >= :low AND event_id < :high
        UNION SELECT event_id FROM dead_letters
            WHERE requeued_at IS NULL AND notification_id IS NULL AND event_id >= :low AND event_id < :high
    """,
}
# By these an older reminder that is live knows that it was replaced. No quick question, so it is asked before the lock
# is taken; its answer only becomes smaller meanwhile, since no reminder becomes older than another one.
_REPLACING: Final = """
    SELECT later.id FROM {part} later
    WHERE later.cancellation_key IS NOT NULL AND later.target_date IS NOT NULL AND EXISTS (
        SELECT FROM notifications live WHERE live.cancellation_key = later.cancellation_key AND live.id < :high
            AND live.due_at IS NOT NULL AND live.target_date IS NOT NULL
    )
"""
#: The tables whose days can be made anew.
COMPACTED: Final = frozenset(_NEEDED)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a day's needed rows, in a table that is not a partition yet, within the open transaction."""

    table: str
    day: date
    #: The reminders by which older ones know that they were replaced.
    replacing: frozenset[UUID]
    #: The rows as they were copied, or as they were before: id → the transaction that wrote it.
    versions: Mapping[UUID, str]

    @property
    def _part(self) -> str:
        return partition_of(self.table, self.day)

    @property
    def _kept(self) -> str:
        return spare_of(self.table, self.day)

    def exchange(self, connection: Connection) -> int | None:
        """Put the copy in the day's place; returns how many rows it has, and None where too many are needed by now.

        Raises OperationalError where it gets no lock; the transaction has come to nothing then.
        """
        # A long reader of that very day is detected before anybody else has to wait with us.
        with connection.begin_nested() as probe:
            connection.execute(text(f"LOCK TABLE ONLY {self._part} IN ACCESS EXCLUSIVE MODE"))
            probe.rollback()
        # Everybody who needs the day locks the table first: locking the day first would risk a deadlock with them.
        connection.execute(text(f"LOCK TABLE ONLY {self.table} IN ACCESS EXCLUSIVE MODE"))
        ids = _needed(connection, self.table, self.day, self.replacing)
        if ids is None:
            drop_day(connection, self.table, self.day, spare=True)
            return None
        kept = self._catch_up(connection, ids)
        exchange_day(connection, self.table, self.day)
        return kept

    def _catch_up(self, connection: Connection, ids: Collection[UUID]) -> int:
        """Bring the copy up to date; returns how many rows it has then.

        Rows that are no longer needed are removed; changed and new rows are copied.
        """
        now = _versions(connection, self._part, ids)
        stale = [row_id for row_id, version in self.versions.items() if now.get(row_id) != version]
        fresh = [row_id for row_id, version in now.items() if self.versions.get(row_id) != version]
        connection.execute(text(f"DELETE FROM {self._kept} WHERE id = ANY(:ids)"), {"ids": stale + fresh})
        _copy_rows(connection, self._part, self._kept, fresh)
        return len(now)


def copy(connection: Connection, table: str, day: date) -> Copy | None:
    """Copy the needed rows of a day; None if they are too many, or most of the day."""
    replacing = _ask(connection, _REPLACING, table, day) if table == "notifications" else frozenset()
    ids = _needed(connection, table, day, replacing)
    if ids is None or not _is_worth_it(connection, table, day, ids):
        return None
    part = partition_of(table, day)
    # Before the copy: a row that changes in between is copied once more, rather than once too few.
    versions = _versions(connection, part, ids)
    create_day(connection, table, day, spare=True)
    _copy_rows(connection, part, spare_of(table, day), versions)
    return Copy(table, day, replacing, versions)


def _ask(connection: Connection, question: str, table: str, day: date) -> frozenset[UUID]:
    query = text(f"{question.format(part=partition_of(table, day))} LIMIT {MOST + 1}")
    return frozenset(connection.scalars(query, {"low": first_id_of(day), "high": first_id_of(day + timedelta(days=1))}))


def _needed(connection: Connection, table: str, day: date, replacing: frozenset[UUID]) -> frozenset[UUID] | None:
    """Return the ids of a day that are needed; None if there are too many."""
    ids = replacing | _ask(connection, _NEEDED[table], table, day)
    return ids if len(ids) <= MOST else None


def _is_worth_it(connection: Connection, table: str, day: date, ids: Collection[UUID]) -> bool:
    """Return whether the day is large, and only a small part of it is needed."""
    part = partition_of(table, day)
    columns = " + ".join(f"coalesce(pg_column_size({name}), 0)" for name in _columns(table))
    query = text(f"""
        SELECT pg_table_size(to_regclass(:part)), (
            SELECT coalesce(sum({columns} + {_ROW}), 0) FROM {part} WHERE id = ANY(:ids)
        )
    """)
    size, needed = connection.execute(query, {"part": part, "ids": list(ids)}).one()
    return bool(size >= max(_SMALLEST, _TIMES * needed) and needed <= _MOST_BYTES)


def _columns(table: str) -> list[str]:
    return [column.name for column in Base.metadata.tables[table].columns]


def _versions(connection: Connection, part: str, ids: Collection[UUID]) -> dict[UUID, str]:
    query = text(f"SELECT id, CAST(xmin AS text) AS xmin FROM {part} WHERE id = ANY(:ids)")
    return {row.id: row.xmin for row in connection.execute(query, {"ids": list(ids)})}


def _copy_rows(connection: Connection, source: str, target: str, ids: Collection[UUID]) -> None:
    connection.execute(text(f"INSERT INTO {target} SELECT * FROM {source} WHERE id = ANY(:ids)"), {"ids": list(ids)})
