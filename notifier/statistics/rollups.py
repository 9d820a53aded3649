"""Roll-ups: the clock counts each minute that is over, and each hour from its minutes.

Nothing is counted where events are accepted or notifications sent. A pass reads what is stored: attempts by when they
began, notifications and dead letters by the time in their ids. Some rows come late: an attempt is recorded when it has
ended, fan-out may lag behind, receipts take hours. So several passes follow each other, each over every minute:

    fresh      as soon as the minute is over
    settled    three minutes later: every attempt that a provider answered in time is recorded by then
    late       an hour later
    final      a day later

A minute's rows are replaced in one transaction, which also moves the pass on. So a pass that is cut off anywhere, or
runs twice, counts nothing twice, and one that was away goes on where it was, minute by minute. One process at a time
counts: each transaction takes an advisory lock.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from notifier.runtime.isolation import is_away, kind_of
from notifier.statistics.histogram import BUCKETS
from notifier.statistics.minute_counts import COUNTS, MINUTE, MOST_NAMES, ROWS, Counts, read_minute
from notifier.vocabulary.ids import first_id_of, time_of
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.statistics import MINUTES_KEPT, OTHERS, Dimension

log = structlog.get_logger()

#: How far back the first run begins at the most.
_FIRST_SPAN: Final = timedelta(hours=1)
#: A minute that takes longer than this, in seconds, is left out: others wait behind it.
_LONGEST: Final = 120
#: Seconds between two minutes at the least; and never less than the one before took, so that half the time is others'.
_PAUSE: Final = 0.01

_COUNTING: Final = 5_141_980_131  # the advisory lock of whoever counts
_QUERY_CANCELED: Final = "57014"


@dataclass(frozen=True, slots=True)
class Pass:
    """One reading of every minute, so long after its end."""

    name: str
    age: timedelta


FRESH: Final = Pass("fresh", timedelta())
SETTLED: Final = Pass("settled", timedelta(minutes=3))
PASSES: Final = (FRESH, SETTLED, Pass("late", timedelta(hours=1)), Pass("final", timedelta(days=1)))

_TRY_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(:lock)")
_POSITION: Final = text("""
    SELECT date_trunc('minute', now(), 'UTC') AS now,
        (SELECT until FROM stats_progress WHERE name = :name) AS until
""")
_FIRST_ID: Final = text("SELECT id FROM notifications WHERE id >= :first ORDER BY id LIMIT 1")
_MOVE_ON: Final = text("""
    INSERT INTO stats_progress (name, until) VALUES (:name, :until)
    ON CONFLICT (name) DO UPDATE SET until = excluded.until
""")
_COLUMNS: Final = f"dimension, channel, name, {', '.join(COUNTS)}, call_buckets, wait_buckets"
_SIZE: Final = " + ".join(ROWS)
_KEPT_ROWS: Final = text(f"""
    SELECT coalesce(sum({_SIZE}), 0)
    FROM stats_minutes WHERE dimension = '{Dimension.CHANNEL}' AND moment = :minute
""")
#: Named, so that the primary key finds a moment's rows.
_DIMENSIONS: Final = ", ".join(f"'{each}'" for each in Dimension)
_DELETE: Final = text(f"DELETE FROM stats_minutes WHERE dimension IN ({_DIMENSIONS}) AND moment = :minute")
_INSERT: Final = text(f"""
    INSERT INTO stats_minutes (moment, {_COLUMNS}) SELECT :minute, {_COLUMNS}
    FROM json_to_recordset(CAST(:rows AS json)) AS given(dimension text, channel text, name text,
        {", ".join(f"{each} bigint" for each in COUNTS)}, call_buckets bigint[], wait_buckets bigint[])
""")


def _summed(buckets: str) -> str:
    """Return SQL that adds up histograms, bucket by bucket. They may be short of their last buckets."""
    sums = ", ".join(f"coalesce(sum({buckets}[{place}]), 0)" for place in range(1, BUCKETS + 1))
    return f"CAST(ARRAY[{sums}] AS bigint[]) AS {buckets}"


#: SQL for the columns of figures, added up.
SUMS: Final = ", ".join(
    [*(f"CAST(sum({each}) AS bigint) AS {each}" for each in COUNTS), *map(_summed, ("call_buckets", "wait_buckets"))]
)
_DELETE_HOUR: Final = text(f"DELETE FROM stats_hours WHERE dimension IN ({_DIMENSIONS}) AND moment = :hour")
# Sixty minutes may name more event types than one: again the most frequent have rows of their own.
_MAKE_HOUR: Final = text(f"""
    INSERT INTO stats_hours (moment, {_COLUMNS})
    WITH minutes AS MATERIALIZED (
        SELECT * FROM stats_minutes WHERE dimension IN ({_DIMENSIONS})
            AND moment >= :hour AND moment < CAST(:hour AS timestamptz) + interval '1 hour'
    ), named AS (
        SELECT dimension, name, row_number() OVER (
            PARTITION BY dimension ORDER BY name = '{OTHERS}', sum({_SIZE}) DESC, name) AS place
        FROM minutes WHERE dimension IN ('{Dimension.EVENT_TYPE}', '{Dimension.SOURCE}') GROUP BY 1, 2
    ), loud AS (
        SELECT m.*, CASE WHEN place > {MOST_NAMES} THEN '{OTHERS}' ELSE m.name END AS shown
        FROM minutes m LEFT JOIN named USING (dimension, name)
    )
    SELECT :hour, dimension, channel, shown, {SUMS} FROM loud GROUP BY dimension, channel, shown
""")


def roll_up(engine: Engine) -> Iterator[datetime]:
    """Count all minutes that are due, pass by pass; yields each minute once it is counted, with pauses for others.

    The caller may stop at any time; the next run goes on. Ends at once where another process counts. Raises the errors
    of a Postgres that is away; a minute that cannot be counted is logged and left out.
    """
    for each in PASSES:
        while True:
            began = time.monotonic()
            counted = _count_next(engine, each)
            if counted is None:
                break
            yield counted
            time.sleep(max(_PAUSE, time.monotonic() - began))


def _count_next(engine: Engine, current: Pass) -> datetime | None:
    """Count the next minute of a pass; None where none is due, or another process counts."""
    minute: datetime | None = None
    try:
        with engine.begin() as connection:
            minute = _next_minute(connection, current)
            if minute is not None:
                _count_minute(connection, current, minute)
    except SQLAlchemyError as error:
        is_too_long = getattr(getattr(error, "orig", None), "pgcode", None) == _QUERY_CANCELED
        if minute is None or (is_away(error) and not is_too_long):
            raise
        log.warning("minute_not_counted", minute=minute.isoformat(), step=current.name, error=kind_of(error))
        _leave_out(engine, current, minute)
    return minute


def _next_minute(connection: Connection, current: Pass) -> datetime | None:
    """Take the lock, and return the minute that a pass counts next."""
    if not connection.scalar(_TRY_LOCK, {"lock": _COUNTING}):
        return None
    now, until = connection.execute(_POSITION, {"name": current.name}).one()
    if until is None:
        until = _first_minute(connection, now)
        # Written at once: a pass that comes a day later begins here, and not where it is by then.
        connection.execute(_MOVE_ON, {"name": current.name, "until": until})
    # Rows of minutes are kept no longer. And one that was counted ahead of its time is counted again.
    minute: datetime = min(max(until, now - MINUTES_KEPT + MINUTE), now)
    return minute if minute + MINUTE + current.age <= now else None


def _first_minute(connection: Connection, now: datetime) -> datetime:
    """Return where the first run begins: at the first notification within _FIRST_SPAN, now where there is none."""
    first: UUID | None = connection.scalar(_FIRST_ID, {"first": first_id_of(now - _FIRST_SPAN)})
    return now if first is None else min(now, time_of(first).replace(second=0, microsecond=0))


def _count_minute(connection: Connection, current: Pass, minute: datetime) -> None:
    connection.execute(text(f"SET LOCAL statement_timeout = '{_LONGEST}s'"))
    _replace(connection, minute, read_minute(connection, minute))
    _make_hour(connection, minute)
    _move_on(connection, current, minute)


def _leave_out(engine: Engine, current: Pass, minute: datetime) -> None:
    """Go on behind a minute that cannot be counted. Its hour is made of the others, if it can be made."""
    with engine.begin() as connection:
        if _next_minute(connection, current) == minute:
            with contextlib.suppress(SQLAlchemyError), connection.begin_nested():
                _make_hour(connection, minute)
            _move_on(connection, current, minute)


def _make_hour(connection: Connection, minute: datetime) -> None:
    """Make the rows of an hour from those of its minutes, if this is the last of them."""
    if minute.minute == 59:
        hour = {"hour": minute.replace(minute=0)}
        connection.execute(_DELETE_HOUR, hour)
        connection.execute(_MAKE_HOUR, hour)


def _move_on(connection: Connection, current: Pass, minute: datetime) -> None:
    connection.execute(_MOVE_ON, {"name": current.name, "until": minute + MINUTE})


def _replace(connection: Connection, minute: datetime, found: list[Counts]) -> None:
    """Replace the rows of a minute, unless fewer rows of the deliveries are left than were counted before.

    Then retention, or somebody, has deleted some of them since.
    """
    size = sum(each.size for each in found if each.dimension == Dimension.CHANNEL)
    if size < int(connection.scalar(_KEPT_ROWS, {"minute": minute}) or 0):
        return
    connection.execute(_DELETE, {"minute": minute})
    if found:
        connection.execute(_INSERT, {"minute": minute, "rows": to_json([each.row() for each in found])})
