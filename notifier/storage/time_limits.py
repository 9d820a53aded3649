"""Time limits of questions: one that would read too much ends after some seconds, and says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from notifier.vocabulary.errors import Invalid

#: The longest, in seconds, that a filter without an index may search millions of rows for a rare value.
_LONGEST: Final = 5.0
_LIMIT_TIME: Final = text("SELECT set_config('statement_timeout', :milliseconds, true)")
_QUERY_CANCELED: Final = "57014"


class TooLong(Invalid):
    """A question takes too long: it should be bounded."""


@contextmanager
def in_time(database: Any, member: str, seconds: float = _LONGEST) -> Iterator[None]:  # noqa: ANN401 -- a connection or a session, scoped or not
    """Give each statement of the transaction some seconds. Raises TooLong where one needs more.

    `member`: the member of the request that could bound it.
    """
    database.execute(_LIMIT_TIME, {"milliseconds": str(round(seconds * 1000))})
    try:
        yield
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _QUERY_CANCELED:
            raise
        words = "This takes too long. Bound it in time, or add a filter that names fewer (see the documentation)."
        raise TooLong({member: [words]}) from None
