"""Checks of a connection before it is lent: a pooled one may have died since it was used last.

A round trip finds every dead connection; a batch of one row would make three of them, and five others. So of a
connection that was used within the last second only the socket is polled: a close by the server (a restart, an
administrator's command) shows there. A server that hangs shows nothing; then the statement's deadline ends the wait.
"""

import select
import time
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

#: Of a connection that was returned so many seconds ago, or less, only the socket is polled.
_RECENT: Final = 1.0
_RETURNED_AT: Final = "returned_at"
_CLOSED_OR_READABLE: Final = select.POLLIN | select.POLLRDHUP  # POLLHUP and POLLERR are implied


def with_checks(engine: Engine) -> Engine:
    """Return an engine that lends no dead connection. Its pool need not ping by itself."""

    @event.listens_for(engine, "checkin")
    def _returned(driver: Any, record: Any) -> None:  # noqa: ANN401 -- psycopg2's connection, SQLAlchemy's record
        if driver is not None:
            record.info[_RETURNED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _check(driver: Any, record: Any, _: Any) -> None:  # noqa: ANN401 -- the same
        returned_at: float | None = record.info.get(_RETURNED_AT)
        if returned_at is None:  # it was just made
            return
        if time.monotonic() - returned_at <= _RECENT and _is_silent(driver):
            return
        if not _answers(engine, driver):
            raise InvalidatePoolError  # the pool also replaces connections of the same age

    return engine


def _is_silent(driver: Any) -> bool:  # noqa: ANN401 -- psycopg2's connection
    """Return whether the server has neither closed a connection nor said anything over it."""
    if driver.closed:
        return False
    poll = select.poll()
    poll.register(driver.fileno(), _CLOSED_OR_READABLE)
    return not poll.poll(0)


def _answers(engine: Engine, driver: Any) -> bool:  # noqa: ANN401 -- psycopg2's connection
    try:
        return bool(engine.dialect.do_ping(driver))
    except engine.dialect.loaded_dbapi.Error:
        return False
