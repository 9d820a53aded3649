"""Daily partitions. A UUIDv7 sorts by time: a range of ids is a range of time, and retention drops whole tables."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from notifier.vocabulary.ids import first_id_of

#: Tables that are partitioned by day on `id`. How full their pages are packed says notifier_create_day: rows that are
#: updated several times keep some room on their own page.
TABLES: Final = ("events", "notifications", "attempts", "attachments")
#: Days made ahead of today.
DAYS_AHEAD: Final = 7

_DAY_PARTITION: Final = re.compile(rf"(?P<table>{'|'.join(TABLES)})_(?P<day>[0-9]{{8}})")
_MAKING: Final = 5_141_980_126  # the advisory lock of whoever makes partitions


def partition_of(table: str, day: date) -> str:
    """Return the name of a day's partition."""
    return f"{table}_{day:%Y%m%d}"


def partitions_before(connection: Connection, day: date) -> list[tuple[str, date]]:
    """Return the (table, day) of the partitions of all days before one, in no order."""
    names = connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"))
    found = (_DAY_PARTITION.fullmatch(name) for name in names)
    days = [(each["table"], date.fromisoformat(each["day"])) for each in found if each]
    return [each for each in days if each[1] < day]


def is_lock_timeout(error: OperationalError) -> bool:
    """Return whether a statement gave up waiting for a lock (lock_not_available)."""
    return getattr(error.orig, "pgcode", None) == "55P03"


def _missing(connection: Connection, today: date, days_ahead: int) -> Iterator[tuple[str, date]]:
    there = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))
    for day in (today + timedelta(days=n) for n in range(-1, days_ahead + 1)):
        for table in TABLES:
            if partition_of(table, day) not in there:
                yield table, day


def missing_days(engine: Engine, days_ahead: int) -> list[str]:
    """Return the names of the partitions that are missing for today and so many days ahead."""
    today = datetime.now(UTC).date()
    with engine.connect() as connection:
        return [partition_of(*each) for each in _missing(connection, today, days_ahead) if each[1] >= today]


def make_day(connection: Connection, table: str, day: date) -> None:
    """Make a day's partition, and move its rows there from the default one."""
    name, low, high = partition_of(table, day), first_id_of(day), first_id_of(day + timedelta(days=1))
    default = f"{table}_default"
    # Locked first: a row that lands in the default partition between the move and the attach would fail the attach.
    connection.execute(text(f"LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE"))
    create_day(connection, table, day)
    connection.execute(
        text(
            f"WITH moved AS (DELETE FROM {default} WHERE id >= :low AND id < :high RETURNING *)"
            f" INSERT INTO {name} SELECT * FROM moved"
        ),
        {"low": low, "high": high},
    )
    attach_day(connection, table, day)


# Processes own no table: functions of the owner (migration 0018) do owner's work, each on one day of our tables.


def create_day(connection: Connection, table: str, day: date, *, spare: bool = False) -> None:
    """Create a table of the shape of a day's partition, with its indexes; it is none yet. `spare`: beside the day's."""
    values = {"table": table, "day": day, "spare": spare}
    connection.execute(text("SELECT notifier_create_day(:table, :day, :spare)"), values)


def spare_of(table: str, day: date) -> str:
    """Return the name of a day's spare table."""
    return f"{partition_of(table, day)}_kept"


def attach_day(connection: Connection, table: str, day: date) -> None:
    """Make the table that has the name of a day's partition one."""
    connection.execute(text("SELECT notifier_attach_day(:table, :day)"), {"table": table, "day": day})


def drop_day(connection: Connection, table: str, day: date, *, spare: bool = False) -> None:
    """Drop a day that is over, or its spare table."""
    values = {"table": table, "day": day, "spare": spare}
    connection.execute(text("SELECT notifier_drop_day(:table, :day, :spare)"), values)


def exchange_day(connection: Connection, table: str, day: date) -> None:
    """Put the spare table of a day that is over in its place."""
    connection.execute(text("SELECT notifier_exchange_day(:table, :day)"), {"table": table, "day": day})


def make_partitions(engine: Engine, days_ahead: int = DAYS_AHEAD) -> list[str]:
    """Make the partitions of yesterday, today and `days_ahead` days that are missing; returns their names.

    Each in a transaction of its own, moving its rows out of the default partition. Where a lock is not to be
    had at once the rest is left for the next call, so that nothing queues up behind us. Any number of
    processes may call it.
    """
    made = []
    with engine.connect() as connection:
        wanted = list(_missing(connection, datetime.now(UTC).date(), days_ahead))
    for table, day in wanted:
        try:
            with engine.begin() as connection:
                connection.execute(text("SET LOCAL lock_timeout = '2s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MAKING})
                if (table, day) in _missing(connection, day, 0):
                    make_day(connection, table, day)
                    made.append(partition_of(table, day))
        except OperationalError as error:
            if is_lock_timeout(error):
                break
            raise
    return made
