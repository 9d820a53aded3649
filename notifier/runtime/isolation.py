"""Isolation: a row that breaks the code, or that the database refuses, fails alone; its batch continues.

Code that works on a batch runs behind one of two boundaries:

    attempt   for code that reads one row's data: an exception is the row's own failure
    in_parts  for code that works on many rows at once: if it fails, it is repeated in halves, down to single rows

Handlers, providers and their libraries may raise exceptions that are not Exceptions (sys.exit(), KeyboardInterrupt,
GreenletExit, asyncio.CancelledError). Those would pass every `except Exception` and silently end the thread, so
`contained` converts them to an Exception where they leave that code. A row that kills its worker is found by its lease
(notifier.scheduling.due).
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

log = structlog.get_logger()

Row = TypeVar("Row")
Made = TypeVar("Made")

#: Classes of SQLSTATE that blame the data, also where psycopg2 calls the error operational: data exception, integrity
#: constraint, program limit exceeded (a key that is too long for its index).
_OF_DATA: Final = frozenset({"22", "23", "54"})
#: SQLSTATE classes of a server that cannot work, also where psycopg2 calls the error internal or a programming error:
#: connection, transaction state (read-only, as in a failover), authorization, no such database, deadlock and other
#: rollbacks, resources (disk, memory, connections), object not in the required state (a lock), intervention (shutdown),
#: system error, configuration, internal error.
_OF_SERVER: Final = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX"})
#: The words for the classes that are not just an absence.
_WHY: Final = {"25": "Postgres takes no writes now.", "53": "Postgres has run out of space, memory or connections."}
_AWAY: Final = "Postgres cannot be reached."
#: SQLSTATEs of a table, a column, a type, a function or an index that the database does not have (undefined_table,
#: undefined_column, undefined_object, undefined_function, invalid_column_reference).
_MISSING: Final = frozenset({"42P01", "42703", "42704", "42883", "42P10"})
#: The message shown where the database is older than the release.
MIGRATE: Final = "The database is not migrated for this release yet; run 'manage.py migrate'."


class BaseExceptionRaised(Exception):
    """Code that is not ours raised something that is no Exception; that is the cause."""


def contained(work: Callable[..., Made], *args: object) -> Made:
    """Call code that may raise anything, and raise only Exceptions: BaseExceptionRaised replaces other exceptions.

    StopIteration is replaced too, because an iterating caller would take it for the end of its own rows.
    """
    try:
        return work(*args)
    except StopIteration as error:
        raise BaseExceptionRaised(kind_of(error)) from error
    except Exception:
        raise
    except BaseException as error:
        raise BaseExceptionRaised(kind_of(error)) from error


def is_unmigrated(error: BaseException) -> bool:
    """Return whether an error says that the database lacks a migration of this release."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) in _MISSING


def is_away(error: Exception) -> bool:
    """Return whether an error concerns the database as a whole, which cannot work now, and not the data.

    The API, workers and the clock all decide by this function. A database that is not migrated yet counts as away, too:
    waiting work continues once it is migrated.
    """
    if is_unmigrated(error) or isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = _class_of(error)
    # Without a code it is the driver that speaks: it has no connection any more.
    return state in _OF_SERVER or (isinstance(error, OperationalError | InterfaceError) and state not in _OF_DATA)


def is_of_data(error: Exception) -> bool:
    """Return whether an error may well be the fault of the data that a caller sent, so that it is of no use again."""
    if not isinstance(error, DBAPIError):
        return not isinstance(error, PoolTimeout)  # it could not even be made into a statement
    state = _class_of(error)
    return state in _OF_DATA or (not state and isinstance(error, DataError | IntegrityError))


def why_away(error: Exception) -> str:
    """Return the message for a caller when the database cannot work now, without any data."""
    return MIGRATE if is_unmigrated(error) else _WHY.get(_class_of(error), _AWAY)


def _class_of(error: Exception) -> str:
    """Return the class of an error's SQLSTATE; empty where it has none."""
    return (getattr(getattr(error, "orig", None), "pgcode", None) or "")[:2]


def kind_of(error: BaseException) -> str:
    """Return the class of an error and the database's code, if any. A message would repeat the row's data."""
    if isinstance(error, BaseExceptionRaised) and error.__cause__ is not None:
        return kind_of(error.__cause__)
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return f"{type(origin).__name__} {getattr(origin, 'pgcode', None) or ''}".strip()


class Broken(Exception):
    """A row cannot go through a step, because of its own data; the text says which and why, without the data."""


def broken(step: str, error: Exception, row_id: UUID | str) -> Broken:
    """Return the failure of a row that broke a step, and log it."""
    log.warning("row_broken", step=step, row=str(row_id), error=kind_of(error))
    return Broken(f"{step}: its data cannot be used ({kind_of(error)})")


def attempt(step: str, row_id: UUID | str, work: Callable[[], Made]) -> Made | Broken:
    """Return the result of `work` on one row's data, or its failure."""
    try:
        return contained(work)
    except Exception as error:
        return broken(step, error, row_id)


def in_parts(
    rows: Sequence[Row], work: Callable[[Sequence[Row]], None], give_up: Callable[[Row, Exception], None]
) -> None:
    """Do the work on all rows at once, and if that fails, in parts; `give_up` gets the rows that fail alone.

    `work` leaves nothing behind if it raises: it is one transaction. Raises its error if the database is away, and
    nothing else.
    """
    try:
        contained(work, rows)
    except Exception as error:
        if is_away(error):
            raise
        if len(rows) <= 1:
            for row in rows:
                _give_up(row, error, give_up)
            return
        middle = len(rows) // 2
        in_parts(rows[:middle], work, give_up)
        in_parts(rows[middle:], work, give_up)


def _give_up(row: Row, error: Exception, give_up: Callable[[Row, Exception], None]) -> None:
    try:
        give_up(row, error)
    except Exception as again:
        if is_away(again):
            raise
        # Nothing can be said of it in the database: it is left to its lease, and its neighbours go on.
        log.warning("row_left", error=kind_of(again), because=kind_of(error))
