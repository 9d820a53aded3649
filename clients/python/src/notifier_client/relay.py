"""The relay: moves events from a service's own table to Notifier, each exactly once by its key.

A service that must send only if its own transaction commits writes a row into its relay table, in that transaction.
The relay locks rows, posts them with their keys as idempotency keys, and marks them in the transaction that locked
them. A relay that dies in between leaves them as they were; the next one posts them again, and Notifier answers with
the events that it has. So nothing is lost, and nothing is sent twice while Notifier remembers the keys.

Rows that Notifier refuses are parked with its words, and hold up no others. Where it cannot be reached, or refuses the
relay itself (its API key, its rate), everything waits.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from notifier_client.client import Client
from notifier_client.errors import ApiError, InvalidRequest, NoAnswer, ServerError, TooLarge
from notifier_client.relay_batch import LARGEST, Blocked, line_of, post, refused, words
from notifier_client.relay_table import DEFAULT_NAME, Connection, Lag, RelayTable, Result, Row
from notifier_client.retries import doubled

log = logging.getLogger(__name__)

#: The most that one request carries, in bytes of events; one event alone may have more.
_MOST_BYTES: Final = 4 << 20
#: Rows of one request at the most: as many as the API takes, unless it is told otherwise.
MOST_ROWS: Final = 1000
#: Seconds: the first and the longest wait after a failure, each twice as long as the one before.
_BACKOFF: Final = (1.0, 60.0)
#: The longest wait that an answer may ask for, in seconds.
_LONGEST_ASKED: Final = 3600.0
#: Seconds for which a row waits that Notifier fails on: the first wait and the longest.
_ASIDE: Final = (5.0, 300.0)
#: Rows that may be set aside; with more, the fault is not theirs.
_MOST_ASIDE: Final = 1000
#: Rows in a row that fail alone; with more, the fault is not theirs.
_MOST_ALONE: Final = 5
#: Seconds between reports while nothing is wrong, and between two deletions of what was sent.
_REPORT_EVERY: Final = 10.0
_DELETE_EVERY: Final = 60.0
#: Rows of one deletion, and deletions in a row.
_DELETED_AT_ONCE: Final = 5000
_DELETIONS: Final = 20
#: Seconds after which a wait looks whether it is to end: a signal may reach another thread, which wakes nobody.
_LOOK: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The outcome of some batches."""

    #: Events that Notifier has now; `duplicates` of them it had already.
    sent: int = 0
    duplicates: int = 0
    #: Rows that it refused for good.
    refused: int = 0
    #: Rows that it failed on. They wait.
    failed: int = 0

    def __add__(self, other: "Moved") -> "Moved":
        """Add the counts of another."""
        return Moved(
            sent=self.sent + other.sent,
            duplicates=self.duplicates + other.duplicates,
            refused=self.refused + other.refused,
            failed=self.failed + other.failed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The work of a relay since its last report, and the rows that wait."""

    moved: Moved
    #: None where the database could not be asked.
    lag: Lag | None
    #: Why nothing can be sent now.
    blocked: str | None = None


def log_report(report: Report) -> None:
    """Log a report, as a warning where the relay is blocked."""
    moved, lag = report.moved, report.lag
    done = f"sent {moved.sent} (duplicates {moved.duplicates}), refused {moved.refused}, failed {moved.failed}"
    waits = "waiting unknown" if lag is None else f"waiting {lag.waiting}, oldest {lag.oldest or 0:.0f} s"
    if report.blocked is None:
        log.info("relay: %s; %s", done, waits)
    else:
        log.warning("relay blocked: %s; %s; %s", report.blocked, done, waits)


def relay_once(connection: Connection, client: Client, *, table: str = DEFAULT_NAME, batch: int = 500) -> Moved:
    """Move all rows that wait over a connection of the caller's, which is left open, and return their outcome.

    The connection must not commit by itself, and have no transaction open: each batch is a transaction of its own.
    Raises Blocked, and RelayError for a table that is none.
    """
    relay = Relay(lambda: connection, client, table=table, batch=batch)
    relay.table.check(connection)
    return relay.drain(connection)


class Relay:
    """Moves the rows of one table. Several may work on the same one; one object is for one thread."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        client: Client,
        *,
        table: str | RelayTable = DEFAULT_NAME,
        batch: int = 500,
        interval: timedelta = timedelta(seconds=1),
        keep: timedelta | None = timedelta(days=7),
        hold: timedelta = timedelta(minutes=2),
        report: Callable[[Report], None] = log_report,
    ) -> None:
        """Raise ValueError for a table, or a number of rows, that cannot be.

        `connect`: opens a connection, which the relay closes. `batch`: rows of one request. `interval`: between looks
        while nothing waits. `keep`: how long rows stay that were sent; None for ever. `hold`: the longest that Postgres
        keeps rows for a relay that it hears nothing of; more than the client takes for one request.
        """
        if not 1 <= batch <= MOST_ROWS:
            raise ValueError(f"batch must be from 1 to {MOST_ROWS}")
        if min(interval, hold) <= timedelta() or (keep is not None and keep < timedelta()):
            raise ValueError("interval and hold must be more than nothing, and keep not less")
        self.table = table if isinstance(table, RelayTable) else RelayTable(table)
        self._connect = connect
        self._transport = client._transport  # of the same package
        self._batch = self._limit = batch
        self._interval = interval.total_seconds()
        self._keep = keep
        self._hold = hold
        self._report = report
        #: Row → when it may be tried again, on the monotonic clock, and the wait before that.
        self._aside: dict[int, tuple[float, float]] = {}
        self._failed_alone = 0
        self._moved = Moved()
        self._reported = self._deleted = 0.0

    def run(self, stop: threading.Event) -> None:
        """Move rows until `stop` is set; a batch that was begun is ended. Raises no error of Notifier or Postgres."""
        connection: Connection | None = None
        failures = 0
        while not stop.is_set():
            retry_after: float | None = None
            try:
                connection = connection or self._connect()
                self.drain(connection, stop)
                self._delete_sent(connection, stop)
            except Exception as error:
                if not isinstance(error, Blocked) and not _is_of_database(error):
                    raise
                why = str(error) if isinstance(error, Blocked) else f"Postgres: {_first_line(error)}"
                connection = self._recover(connection, error)
                self._tell(connection, blocked=why)
                retry_after = getattr(error, "retry_after", None)
                failures += 1
            else:
                failures = 0
                self._tell_now_and_then(connection)
            _wait(stop, self._interval if not failures else _backoff(failures, retry_after))
        if connection is not None:
            self._tell(connection)
            _close(connection)

    def drain(self, connection: Connection, stop: threading.Event | None = None) -> Moved:
        """Move all rows that wait, batch by batch. Raises Blocked, or an error of the driver's."""
        moved = Moved()
        while stop is None or not stop.is_set():
            step, more = self._move_batch(connection)
            moved += step
            if not more:
                break
            if stop is not None:
                self._tell_now_and_then(connection)
        return moved

    def delete_sent(self, connection: Connection) -> int:
        """Delete the rows that were sent longer ago than they are kept; returns how many."""
        deleted = 0
        for _ in range(_DELETIONS if self._keep is not None else 0):
            count = self.table.delete_sent(connection, before=self._keep or timedelta(), limit=_DELETED_AT_ONCE)
            connection.commit()
            deleted += count
            if count < _DELETED_AT_ONCE:
                break
        return deleted

    # --- one batch

    def _move_batch(self, connection: Connection) -> tuple[Moved, bool]:
        """Move up to a batch in one transaction, and return its outcome and whether more may wait."""
        try:
            return self._move(connection)
        except BaseException:
            with suppress(Exception):
                connection.rollback()
            raise

    def _move(self, connection: Connection) -> tuple[Moved, bool]:
        self.table.begin(connection, hold=self._hold)
        aside = self._set_aside_now()
        rows, more = self.table.take(connection, self._limit, most_bytes=_MOST_BYTES, largest=LARGEST, aside=aside)
        lines = [(row, line_of(row)) for row in rows]
        sendable = [(row, line) for row, line in lines if isinstance(line, bytes)]
        try:
            answers = post(self._transport, sendable) if sendable else []
        except (TooLarge, InvalidRequest) as error:
            if len(sendable) > 1:  # this API takes less at once
                connection.rollback()
                self._limit = len(sendable) // 2
                return Moved(), True
            if not isinstance(error, TooLarge):
                raise _blocked_by(error) from None
            answers = [refused(row.id, f"{error.status} {error.type}: {error.detail}") for row, _ in sendable]
        except (ApiError, NoAnswer) as error:
            failed = self._isolate(connection, [row for row, _ in sendable], error)
            if failed is None:
                raise _blocked_by(error) from None
            return failed, True
        if sendable:
            self._failed_alone = 0
            self._limit = min(self._limit + max(self._limit // 8, 1), self._batch)
        results = [*(line for _, line in lines if isinstance(line, Result)), *answers]
        if results:
            self.table.mark(connection, results)
        connection.commit()
        moved = _counted(results)
        self._moved += moved
        for each in answers:
            if each.is_settled:
                self._aside.pop(each.id, None)
            else:
                self._set_aside(each.id)
        return moved, more

    def _isolate(self, connection: Connection, rows: Sequence[Row], error: ApiError | NoAnswer) -> Moved | None:
        """After a failure that one row may have caused: send fewer at once, and a lone row later than the others.

        Returns the outcome where the relay may go on at once, or None where it must wait.
        """
        is_fault = isinstance(error, ServerError) and error.status == 500
        if not is_fault and not (isinstance(error, NoAnswer) and error.may_have_arrived):
            return None
        if len(rows) > 1:
            connection.rollback()
            self._limit = len(rows) // 2
            return Moved() if is_fault else None
        self.table.mark(connection, [Result(id=row.id, error=words(str(error))) for row in rows])
        connection.commit()
        moved = Moved(failed=len(rows))
        self._moved += moved
        for row in rows:
            self._set_aside(row.id)
        self._failed_alone += 1
        return moved if is_fault and self._failed_alone < _MOST_ALONE else None

    def _set_aside(self, id_: int) -> None:
        """Have a row wait that Notifier fails on. Raises Blocked where so many do that the fault is not theirs."""
        if len(self._aside) >= _MOST_ASIDE and id_ not in self._aside:
            raise Blocked(f"Notifier fails on more than {_MOST_ASIDE} rows.")
        _, waited = self._aside.get(id_, (0.0, 0.0))
        wait = min(max(waited * 2, _ASIDE[0]), _ASIDE[1])
        self._aside[id_] = (time.monotonic() + wait, wait)

    def _set_aside_now(self) -> list[int]:
        """Return the rows whose wait goes on; forget those whose wait is long over, since another relay sent them."""
        now = time.monotonic()
        self._aside = {id_: (until, wait) for id_, (until, wait) in self._aside.items() if now < until + _ASIDE[1]}
        return [id_ for id_, (until, _) in self._aside.items() if until > now]

    # --- the loop's parts

    def _recover(self, connection: Connection | None, error: Exception) -> Connection | None:
        """Return the connection if it can be used on."""
        if connection is None or isinstance(error, Blocked):
            return connection
        _close(connection)
        return None

    def _delete_sent(self, connection: Connection, stop: threading.Event) -> None:
        now = time.monotonic()
        if not stop.is_set() and now >= self._deleted + _DELETE_EVERY:
            self._deleted = now
            self.delete_sent(connection)

    def _tell_now_and_then(self, connection: Connection | None) -> None:
        if self._moved != Moved() and time.monotonic() >= self._reported + _REPORT_EVERY:
            self._tell(connection)

    def _tell(self, connection: Connection | None, blocked: str | None = None) -> None:
        lag = None
        if connection is not None:
            with suppress(Exception):  # it is told of what is wrong, and must not fail for it
                lag = self.table.lag(connection)
            with suppress(Exception):
                connection.rollback()
        moved, self._moved = self._moved, Moved()
        self._reported = time.monotonic()
        self._report(Report(moved=moved, lag=lag, blocked=blocked))


def _counted(results: Sequence[Result]) -> Moved:
    sent = sum(each.event_id is not None for each in results)
    refused = sum(each.is_refused for each in results)
    duplicates = sum(each.is_duplicate for each in results)
    return Moved(sent=sent, duplicates=duplicates, refused=refused, failed=len(results) - sent - refused)


def _blocked_by(error: ApiError | NoAnswer) -> Blocked:
    return Blocked(str(error), retry_after=getattr(error, "retry_after", None))


def _is_of_database(error: Exception) -> bool:
    """Return whether an error is one of the driver's, by the names that PEP 249 gives them."""
    return not {"DatabaseError", "InterfaceError"}.isdisjoint(each.__name__ for each in type(error).__mro__)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _backoff(failures: int, retry_after: float | None) -> float:
    """Return the seconds to wait: up to twice as long with each failure, and no less than was asked for."""
    most = doubled(_BACKOFF[0], failures - 1, _BACKOFF[1])
    return min(retry_after or 0.0, _LONGEST_ASKED) + random.uniform(most / 2, most)  # noqa: S311 -- spreads load, and guards nothing


def _wait(stop: threading.Event, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, _LOOK)):
        pass


def _close(connection: Connection) -> None:
    with suppress(Exception):
        connection.close()
