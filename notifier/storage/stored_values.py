"""Stored values as Python reads them: no value can fail the statement that reads it.

By default psycopg2 parses a `json` column while it fetches, and raises for a moment beyond the years 1 to 9999. One
such value would fail all rows of its statement, after an UPDATE has claimed them. So JSON stays text until the code of
one row parses it, and a moment outside Python's calendar is read as the first or the last one.
"""

from datetime import UTC, datetime
from typing import Any, Final

from psycopg2.extensions import PYDATETIMETZ, new_type, register_type
from sqlalchemy import Engine, event

#: The longest time that a stored number of seconds is taken for: whatever a row says, it is counted with after reading.
_DAY: Final = 86_400
_JSON: Final = 114
_TIMESTAMPTZ: Final = 1184
#: A year from the calendar's ends, so that no time zone leads beyond it.
EARLIEST: Final = datetime(2, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9998, 12, 31, tzinfo=UTC)


def _moment(value: str | bytes | None, cursor: Any) -> datetime | None:  # noqa: ANN401 -- psycopg2's cursor
    if not isinstance(value, str):
        return None
    # As Postgres writes it: 2026-11-28 09:00:00+00, more digits of a year, ` BC` at the end, or infinity.
    if "0002" <= value[:4] < "9999" and value[4:5] == "-" and value[-1] != "C":
        moment: datetime = PYDATETIMETZ(value, cursor)
        return moment
    return EARLIEST if value[-1] == "C" or value[0] == "-" or value[:4] < "0002" else LATEST


def _text(value: str | bytes | None, cursor: Any) -> str | bytes | None:  # noqa: ANN401 -- psycopg2's cursor
    del cursor
    return value


_TYPES: Final = (
    new_type((_JSON,), "JSON_AS_TEXT", _text),
    new_type((_TIMESTAMPTZ,), "MOMENT_IN_THE_CALENDAR", _moment),
)


def read_without_fail(engine: Engine) -> Engine:
    """Have an engine's connections read stored values so."""

    @event.listens_for(engine, "connect")
    def _register(connection: Any, _: Any) -> None:  # noqa: ANN401 -- psycopg2's connection
        for each in _TYPES:
            register_type(each, connection)

    return engine


def seconds_until(moment: str) -> str:
    """Return the SQL for the seconds until a moment: 0 once it has passed, a day at the most, NULL if there is none."""
    seconds = f"least(greatest(extract(epoch FROM {moment} - now()), 0), {_DAY})"
    return f"CASE WHEN {moment} IS NOT NULL THEN CAST({seconds} AS double precision) END"


def bounded_seconds(column: str) -> str:
    """Return the SQL for a stored number of seconds: 0 if there is none, a day at the most."""
    return f"least(greatest(coalesce({column}, 0), 0), {_DAY})"
