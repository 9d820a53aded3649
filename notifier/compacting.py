"""Compaction: an old day of which little is still needed is made anew with just that.

Deleting the rest row by row would take minutes for a million rows, and leave its disk space to a table that no new rows
come to. So what is needed is copied into a new partition, which takes the old one's place. Nobody but who changes rows
of that very day waits for the copy; the table itself is locked for the exchange alone, some milliseconds.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from notifier.ids import first_id_of
from notifier.partitions import attach_day, create_day, partition_of
from notifier.sweeping import OWES_IN_SQL

#: Rows that are copied at the most: some hundred milliseconds. A day that needs more is left as it is.
MOST: Final = 10_000
#: Smaller partitions are not worth it, in bytes; and so many bytes there must be for each row that is copied.
_SMALLEST: Final = 1024 * 1024
_BYTES_A_ROW: Final = 4096

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
    SELECT later.id FROM notifications live JOIN {part} later USING (cancellation_key)
    WHERE live.id < :high AND live.due_at IS NOT NULL AND live.target_date IS NOT NULL
        AND later.target_date IS NOT NULL
"""
#: The tables whose days can be made anew, in the order in which they are.
COMPACTED: Final = tuple(_NEEDED)


def _ask(connection: Connection, question: str, table: str, day: date) -> set[UUID]:
    query = text(f"{question.format(part=partition_of(table, day))} LIMIT {MOST + 1}")
    return set(connection.scalars(query, {"low": first_id_of(day), "high": first_id_of(day + timedelta(days=1))}))


def replacing(connection: Connection, table: str, day: date) -> set[UUID]:
    """The ids of reminders of a day for which older ones are still live; MOST and one more at the most."""
    return _ask(connection, _REPLACING, table, day) if table == "notifications" else set()


def needed(connection: Connection, table: str, day: date, replaces: set[UUID]) -> list[UUID] | None:
    """The ids of a day that are needed, in order; None where they are too many, or too little else is there."""
    ids = replaces | _ask(connection, _NEEDED[table], table, day)
    size = connection.scalar(text("SELECT pg_table_size(to_regclass(:part))"), {"part": partition_of(table, day)})
    if len(ids) > MOST or (size or 0) < max(_SMALLEST, len(ids) * _BYTES_A_ROW):
        return None
    return sorted(ids)


def compact(connection: Connection, table: str, day: date, ids: list[UUID]) -> int:
    """Make a day anew with the rows of these ids alone; returns how many there are.

    In the transaction at hand, which has locked the day for writers. Raises OperationalError where it gets no lock.
    """
    part, kept = partition_of(table, day), f"{partition_of(table, day)}_kept"
    create_day(connection, table, kept)
    copied = connection.execute(text(f"INSERT INTO {kept} SELECT * FROM {part} WHERE id = ANY(:ids)"), {"ids": ids})
    # Not before now: who reads the day waits from here on, and soon everybody.
    connection.execute(text(f"LOCK TABLE ONLY {part} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text(f"DROP TABLE {part}"))
    connection.execute(text(f"ALTER TABLE {kept} RENAME TO {part}"))
    attach_day(connection, table, day)
    return copied.rowcount
