"""Deadlines: close a connection to Postgres that does not answer in time, whatever keeps it silent.

TCP detects a peer that is gone, but not a server, a proxy or a disk that hangs while its sockets stay open. So psycopg2
does not wait in libpq but here, for everything it waits for (connecting, statements, COMMIT, the check of a connection
before it is lent), and no longer than its engine allows. A longer wait raises OperationalError and closes the
connection; SQLAlchemy then replaces all others of its pool that are as old.

Deadlines set no session state and ask for nothing when a session starts, because PgBouncer would refuse that. The
server's own deadlines, which end first, go with the first statement of each transaction.
"""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_WRITE, STATUS_READY, STATUS_SETUP, connection, set_wait_callback
from sqlalchemy import Connection, Engine, event

#: Seconds to connect, and seconds until a connection that was idle must answer.
CONNECTING: Final = 3.0
IDLE: Final = 2.0
#: Seconds for work on whole tables: commands, migrations, the purge.
_LONGEST: Final = 3600.0
_OPTION: Final = "deadlines"

_thread = threading.local()


@dataclass(slots=True)
class Deadlines:
    """How long an engine's connections wait, in seconds."""

    #: For an answer.
    answer: float = _LONGEST
    #: Of the server: for a statement, and for a lock within it.
    statement: float | None = None
    lock: float | None = None

    @property
    def prefix(self) -> str:
        """Return the statements that set the server's deadline; empty without a deadline."""
        named = (("statement_timeout", self.statement), ("lock_timeout", self.lock))
        return "".join(f"SET LOCAL {name} = {round(each * 1000)}; " for name, each in named if each is not None)


class BoundConnection(connection):
    """A connection that is closed where it does not answer within `answers_within` seconds."""

    answers_within: float = IDLE


def wait_within_deadlines() -> None:
    """Have psycopg2 wait here, for all connections of this process. Those that are no BoundConnections wait long."""
    set_wait_callback(_wait)


def with_deadlines(engine: Engine) -> Engine:
    """Return an engine whose connections, which must be BoundConnections, wait as `bound` says; at first long."""
    wait_within_deadlines()
    engine.update_execution_options(**{_OPTION: Deadlines()})

    @event.listens_for(engine, "engine_connect")
    def _lent(lent: Connection) -> None:
        allow(lent, _deadlines_of(lent).answer)

    @event.listens_for(engine, "checkin")
    def _returned(driver: Any, _: Any) -> None:  # noqa: ANN401 -- psycopg2's connection
        if isinstance(driver, BoundConnection):  # raising here would cost the pool a place
            driver.answers_within = IDLE

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _first(lent: Connection, _: Any, sql: str, values: Any, *__: Any) -> tuple[str, Any]:  # noqa: ANN401 -- SQLAlchemy's
        driver: Any = lent.connection.driver_connection
        # With autocommit too, statements that are sent as one are one transaction.
        is_first = driver.status == STATUS_READY and not _is_patient()
        return (_deadlines_of(lent).prefix + sql if is_first else sql), values

    return engine


def bound(engine: Engine, answer: float, *, statement: float, lock: float | None = None) -> None:
    """Have the connections of an engine wait for so many seconds at the most: see Deadlines."""
    deadlines: Deadlines | None = engine.get_execution_options().get(_OPTION)
    if deadlines is not None:
        deadlines.answer, deadlines.statement, deadlines.lock = answer, statement, lock


def _deadlines_of(lent: Connection) -> Deadlines:
    found: Deadlines = lent.get_execution_options()[_OPTION]
    return found


def allow(lent: Connection, seconds: float) -> None:
    """Have one connection wait for so many seconds at the most, until it is returned."""
    driver: Any = lent.connection.driver_connection
    if isinstance(driver, BoundConnection):
        driver.answers_within = seconds


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give this thread so many seconds for all that it asks of Postgres."""
    before = getattr(_thread, "until", None)
    until = time.monotonic() + seconds
    _thread.until = until if before is None else min(until, before)
    try:
        yield
    finally:
        _thread.until = before


def left() -> float | None:
    """Return the seconds that this thread has left; None where nobody gave it any."""
    until = getattr(_thread, "until", None)
    return None if until is None else max(0.0, until - time.monotonic())


@contextmanager
def patiently() -> Iterator[None]:
    """Give this thread a long deadline for Postgres, for work on whole tables."""
    before, _thread.is_patient = _is_patient(), True
    try:
        yield
    finally:
        _thread.is_patient = before


def _is_patient() -> bool:
    return getattr(_thread, "is_patient", False)


def _seconds(waiting: Any) -> float:  # noqa: ANN401 -- psycopg2's connection
    """Return how long a connection that begins to wait may do so."""
    if waiting.status == STATUS_SETUP:
        most = CONNECTING
    else:
        most = getattr(waiting, "answers_within", _LONGEST)
        if most > IDLE and _is_patient():
            most = _LONGEST
    mine = left()
    return most if mine is None else min(most, mine)


def _wait(waiting: Any) -> None:  # noqa: ANN401 -- psycopg2's connection
    """Wait until a connection has finished its work. An exception raised here closes it."""
    until = time.monotonic() + _seconds(waiting)
    while (state := waiting.poll()) != POLL_OK:
        # select() knows the first 1,024 files of a process alone.
        poller = select.poll()
        poller.register(waiting.fileno(), select.POLLOUT if state == POLL_WRITE else select.POLLIN)
        left = until - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            raise psycopg2.OperationalError("Postgres did not answer in time")
