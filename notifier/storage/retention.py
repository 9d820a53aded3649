"""Retention: remove old rows, and keep those that live rows still need.

A day without needed rows is dropped, as a table: DROP TABLE of a partition locks the table for some milliseconds, files
are removed after the commit, and a crash in between leaves nothing behind. (DETACH PARTITION CONCURRENTLY would take a
weaker lock, but Postgres does not allow it for a table with a default partition.) A day with few needed rows is rebuilt
from them (storage.compaction). From other days, and from the default partitions, rows are deleted in batches
(notifier.storage.batch_deletes).

| of an old day        | it stays as long as                                                                      |
|----------------------|------------------------------------------------------------------------------------------|
| notification         | it is live, has a dead letter that stands, owes its next channel, has a sibling that may |
|                      | still owe one, or is a reminder by which an older live one knows that it was replaced     |
| attempt              | its notification does                                                                    |
| event                | it is to be fanned out, has a dead letter that stands, or any notification is of it      |
| attachment           | a notification names it                                                                  |

Any number of processes may purge: each step takes an advisory lock, and a process that finds it taken stops.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg2.errors import UndefinedTable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from notifier.security.audit_log import AuditLog
from notifier.storage import compaction
from notifier.storage.batch_deletes import (
    AROUND_MIDNIGHT,
    ATTACHMENTS,
    ATTEMPTS,
    EVENTS,
    EXPIRING,
    NOTIFICATIONS,
    OWES_IN_SQL,
    RetentionCutoffs,
)
from notifier.storage.partitions import drop_day, is_lock_timeout, partition_of, partitions_before
from notifier.vocabulary.errors import NotifierError
from notifier.vocabulary.ids import first_id_of

#: The order in which days are dropped and rows deleted: each kind is needed by those before it alone.
_ORDER: Final = ("notifications", "attempts", "events", "attachments")
#: The longest wait for an old partition's lock, and then its table's: others may queue behind it for so long.
_LOCK_TIMEOUT: Final = "200ms"
#: Tries for a lock before a purge leaves the rest for the next time, and the seconds between two of them.
_TRIES: Final = 5
_AFTER_NO_LOCK: Final = 1.0
#: Seconds between two steps at the least; and never less than the step took, so that half the time is others'.
_PAUSE: Final = 0.02

_PURGING: Final = 5_141_980_127  # the advisory lock of whoever purges


class PurgedElsewhere(NotifierError):
    """Another process is purging."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept, and dead letters (which keep theirs)."""

    rows: timedelta
    dead_letters: timedelta
    #: How long lines of the audit log are kept, and the log; without one they stay.
    audit: timedelta = timedelta.max
    audit_log: AuditLog | None = None

    def cutoffs(self) -> RetentionCutoffs:
        """Return the limits of what is old now. Days are UTC days, as partitions are."""
        return RetentionCutoffs(_ago(self.rows).date(), first_id_of(_ago(self.dead_letters)))


def _ago(span: timedelta) -> datetime:
    """Return the moment so long ago, 1971 at the earliest (no id is older): a hundred years mean for ever."""
    now = datetime.now(UTC)
    return now - min(span, now - datetime(1971, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one step: `rows` of a table deleted, or a partition dropped (its name, and None)."""

    table: str
    rows: int | None
    #: Rows of the partition that were copied to its replacement, if there is one.
    kept: int | None = None


# The queries that keep a day of each table. Each has an index; {part} is the day's own partition, and {others} leaves
# out rows that are dropped with the same day.
_STANDING: Final = "SELECT FROM dead_letters WHERE requeued_at IS NULL AND id >= :letters"
_KEEPERS: Final[Mapping[str, Mapping[str, str]]] = {
    "notifications": {
        "live": "SELECT FROM {part} WHERE due_at IS NOT NULL",
        "dead letters": f"{_STANDING} AND notification_id >= :low AND notification_id < :high",
        "owed channels": f"SELECT FROM {{part}} n WHERE {OWES_IN_SQL}",
    },
    "attempts": {"notifications": "SELECT FROM notifications WHERE id >= :low AND id < :high {others}"},
    "events": {
        "live": "SELECT FROM {part} WHERE due_at IS NOT NULL",
        "dead letters": f"{_STANDING} AND notification_id IS NULL AND event_id >= :low AND event_id < :high",
        "notifications": "SELECT FROM notifications WHERE event_id >= :low AND event_id < :high {others}",
    },
    # Coarse, since references are inside the contents: unreferenced attachments are deleted in batches.
    "attachments": {
        "notifications": "SELECT FROM {part} WHERE EXISTS"
        " (SELECT FROM notifications WHERE id >= :low AND id < :beyond {others})",
    },
}
_OTHERS: Final = "AND NOT (id >= :low AND id < :high)"
# Checked only before the lock is taken: it is slow, and its answer never turns from no to yes, because no reminder
# becomes older than another one.
_REPLACES: Final = """
    SELECT FROM notifications live JOIN {part} later USING (cancellation_key)
    WHERE live.id < :high AND live.due_at IS NOT NULL AND live.target_date IS NOT NULL
        AND later.target_date IS NOT NULL AND later.origin_id > live.origin_id
"""


@dataclass(frozen=True, slots=True)
class _Foresight:
    """Rows that will be gone by then: the notifications of the same day, and dead letters with ids under `letters`."""

    others: bool = False
    letters: UUID = UUID(int=0)


_NONE: Final = _Foresight()


def _has_rows(connection: Connection, question: str, table: str, day: date, gone: _Foresight = _NONE) -> bool:
    query = question.format(part=partition_of(table, day), others=_OTHERS if gone.others else "")
    midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    high, beyond = first_id_of(midnight), first_id_of(midnight + AROUND_MIDNIGHT)
    values = {"low": first_id_of(day), "high": high, "beyond": beyond, "letters": gone.letters}
    return bool(connection.scalar(text(f"SELECT EXISTS ({query})"), values))


def _keeper(connection: Connection, table: str, day: date, gone: _Foresight = _NONE) -> str | None:
    """Return the first thing that keeps a day of a table."""
    keepers = _KEEPERS[table].items()
    return next((what for what, question in keepers if _has_rows(connection, question, table, day, gone)), None)


def _replaces(connection: Connection, table: str, day: date) -> bool:
    return table == "notifications" and _has_rows(connection, _REPLACES, table, day)


@contextlib.contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Open a transaction in which no other process purges. Raises PurgedElsewhere."""
    with engine.begin() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _PURGING}):
            raise PurgedElsewhere("Another process is purging.")
        # Without statistics Postgres may read a whole day to see that nothing in it is live.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        yield connection


def _is_there(connection: Connection, table: str, day: date) -> bool:
    """Return whether a day has not been dropped meanwhile: purges of two processes may take turns, step by step."""
    return connection.scalar(text("SELECT to_regclass(:part)"), {"part": partition_of(table, day)}) is not None


def _is_free(engine: Engine, table: str, day: date) -> bool:
    """Return whether a day of a table is there and nothing in it is needed."""
    with _alone(engine) as connection:
        if not _is_there(connection, table, day):
            return False
        return not (_keeper(connection, table, day) or _replaces(connection, table, day))


def _wait_no_longer(connection: Connection) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))


def _drop(engine: Engine, table: str, day: date) -> Step | None:
    """Drop a day of a table, unless something in it is needed. Raises OperationalError where it gets no lock."""
    if not _is_free(engine, table, day):
        return None
    part = partition_of(table, day)
    with _alone(engine) as connection:
        if not _is_there(connection, table, day):
            return None
        _wait_no_longer(connection)
        # First lock the day alone, and only against writers: nobody else notices while we check once more.
        connection.execute(text(f"LOCK TABLE ONLY {part} IN EXCLUSIVE MODE"))
        if _keeper(connection, table, day):
            return None
        # Then against its readers, or we would wait for them with the whole table locked.
        connection.execute(text(f"LOCK TABLE ONLY {part} IN ACCESS EXCLUSIVE MODE"))
        drop_day(connection, table, day)
    return Step(part, None)


def _compact(engine: Engine, table: str, day: date) -> Step | None:
    """Rebuild a day from its needed rows, if they are few. Raises OperationalError if it gets no lock."""
    if table not in compaction.COMPACTED:
        return None
    with _alone(engine) as connection:
        if not _is_there(connection, table, day):
            return None
        copy = compaction.copy(connection, table, day)
        if copy is None:
            return None
        _wait_no_longer(connection)
        kept = copy.exchange(connection)
    return None if kept is None else Step(partition_of(table, day), None, kept)


def _old_days(connection: Connection, before: date) -> list[tuple[str, date]]:
    """Return (table, day) in the order in which they may be dropped."""
    found = partitions_before(connection, before)
    return sorted(found, key=lambda each: (_ORDER.index(each[0]), each[1]))


def _go_through_days(
    engine: Engine, before: date, blocked: set[date], act: Callable[[Engine, str, date], Step | None]
) -> Iterator[Step]:
    """Drop or compact the old days; add those without a lock to `blocked`, and after some tries all the rest."""
    with engine.connect() as connection:
        days = _old_days(connection, before)
    for table, day in days:
        if day in blocked:
            continue
        if len(blocked) >= _TRIES:
            blocked.add(day)
            continue
        try:
            if step := act(engine, table, day):
                yield step
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            blocked.add(day)
            time.sleep(_AFTER_NO_LOCK)


def _delete_rows(engine: Engine, before: date, blocked: Collection[date]) -> Iterator[Step]:
    """Delete unneeded rows of the days that are needed, and of the default partitions, in batches."""
    for sweep in (NOTIFICATIONS, ATTEMPTS, EVENTS, ATTACHMENTS):
        for low, high in _between(blocked, before - timedelta(days=sweep.longer)):
            after = low
            while True:
                with _alone(engine) as connection:
                    batch = sweep.batch(connection, after, high)
                if batch is None:
                    break
                after = batch.last
                yield Step(sweep.table, batch.deleted)


def _between(blocked: Collection[date], before: date) -> Iterator[tuple[UUID, UUID]]:
    """Yield the ids between the days that are left whole: after the one, before the other."""
    low = UUID(int=0)
    for day in sorted(day for day in blocked if day < before):
        yield low, first_id_of(day)
        low = UUID(int=first_id_of(day + timedelta(days=1)).int - 1)
    yield low, first_id_of(before)


def _delete_expired(engine: Engine, cutoffs: RetentionCutoffs) -> Iterator[Step]:
    """Delete the expired rows that have a lifetime of their own."""
    for expiry in EXPIRING:
        while True:
            with _alone(engine) as connection:
                deleted, is_last = expiry.batch(connection, cutoffs)
            yield Step(expiry.table, deleted)
            if is_last:
                break


def _delete_audit(retention: Retention) -> Iterator[Step]:
    """Delete old lines of the audit log, in batches."""
    while retention.audit_log is not None:
        deleted = retention.audit_log.expire(_ago(retention.audit))
        yield Step("audit", deleted)
        if not deleted:
            break


def _steps(engine: Engine, retention: Retention) -> Iterator[Step]:
    cutoffs = retention.cutoffs()
    yield from _delete_expired(engine, cutoffs)
    yield from _delete_audit(retention)
    blocked: set[date] = set()
    yield from _go_through_days(engine, cutoffs.before, blocked, _drop)
    freed = False
    for steps in (
        # A day that is dropped the next time is left whole; one that cannot be made anew now loses rows meanwhile.
        _go_through_days(engine, cutoffs.before, {*blocked}, _compact),
        _delete_rows(engine, cutoffs.before, blocked),
    ):
        for step in steps:
            freed = freed or step.rows != 0
            yield step
    if freed or blocked:
        # An event's day is free once its notifications are gone, and a lock may be free by now.
        yield from _go_through_days(engine, cutoffs.before, set(), _drop)


def purge(engine: Engine, retention: Retention) -> Iterator[Step]:
    """Drop and delete old rows, step by step; each step is a transaction, and other work runs between them.

    The caller may stop iterating at any time; the next purge continues. Raises PurgedElsewhere if another process is
    purging.
    """
    steps = _steps(engine, retention)
    while True:
        began = time.monotonic()
        step = next(steps, None)
        if step is None:
            return
        took = time.monotonic() - began
        yield step
        time.sleep(max(_PAUSE, took))


@dataclass(frozen=True, slots=True)
class Day:
    """An old day of a table: its partition, its bytes on disk, and the reason why it cannot be dropped."""

    partition: str
    bytes: int
    keeper: str | None


def survey(engine: Engine, retention: Retention) -> Iterator[Day]:
    """Yield the old days, and which of them a purge would drop at once."""
    cutoffs, going = retention.cutoffs(), set()
    with engine.connect() as connection:
        days = _old_days(connection, cutoffs.before)
    for table, day in days:
        found = _look_at(engine, table, day, _Foresight(day in going, cutoffs.letters))
        if found is None:
            continue
        if found.keeper is None and table == _ORDER[0]:
            going.add(day)
        yield found


def _look_at(engine: Engine, table: str, day: date, gone: _Foresight) -> Day | None:
    """Return what a day of a table is; None where a purge has dropped it meanwhile."""
    part = partition_of(table, day)
    try:
        with engine.begin() as connection:
            # Nobody drops it while we look.
            connection.execute(text(f"LOCK TABLE ONLY {part} IN ACCESS SHARE MODE"))
            size = connection.scalar(text("SELECT pg_total_relation_size(to_regclass(:part))"), {"part": part})
            keeper = _keeper(connection, table, day, gone)
            if keeper is None and _replaces(connection, table, day):
                keeper = "reminders"
    except ProgrammingError as error:
        if isinstance(error.orig, UndefinedTable):
            return None
        raise
    return Day(part, int(size or 0), keeper)


def count_expired(engine: Engine, retention: Retention) -> dict[str, int]:
    """Count the rows whose own lifetime is over, by table."""
    cutoffs = retention.cutoffs()
    with engine.connect() as connection:
        counts = {expiry.table: expiry.count(connection, cutoffs) for expiry in EXPIRING}
    if retention.audit_log is not None:
        counts["audit"] = retention.audit_log.count_expired(_ago(retention.audit))
    return counts
