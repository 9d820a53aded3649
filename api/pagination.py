"""Pagination of a table, newest first. Ids sort by time, so the last id of a page is the cursor of the next one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import InstrumentedAttribute

from api.database import db
from api.schemas.pagination import as_cursor
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.ids import first_id_of

#: The longest that a filter without an index may search millions of rows for a rare value.
_LIMIT_TIME: Final = text("SET LOCAL statement_timeout = '5s'")
_QUERY_CANCELED: Final = "57014"


def page(query: Select[Any], id_column: InstrumentedAttribute[UUID], asked: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """Return one page of `query`: {"items", "next_cursor"}. New rows come before it, and do not shift it."""
    limit, cursor = asked["limit"], asked["cursor"]
    if cursor is not None:
        query = query.where(id_column < cursor)
    db.session.execute(_LIMIT_TIME)
    try:
        rows: Sequence[Any] = db.session.scalars(query.order_by(id_column.desc()).limit(limit + 1)).all()
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _QUERY_CANCELED:
            raise
        words = "This takes too long. Bound it in time, or add a filter that names fewer (see the documentation)."
        raise Invalid({"created_after": [words]}) from None
    more = len(rows) > limit
    return {"items": rows[:limit], "next_cursor": as_cursor(rows[limit - 1].id) if more else None}


def filtered(query: Select[Any], model: Any, asked: Mapping[str, Any], equal: Sequence[str]) -> Select[Any]:  # noqa: ANN401 -- a model class of any table
    """`query` with the filters that were given: equality for the columns in `equal`, and the time of creation.

    A tuple, such as `AddressFilter` makes, stands for any of its values.
    """
    for name in equal:
        column, value = getattr(model, name), asked[name]
        if value is not None:
            query = query.where(column.in_(value) if isinstance(value, tuple) else column == value)
    # On the id as well: it prunes partitions.
    if asked["created_after"] is not None:
        after = asked["created_after"]
        query = query.where(model.created_at > after, model.id >= first_id_of(after))
    if asked["created_before"] is not None:
        before = asked["created_before"]
        query = query.where(model.created_at < before)
    return query
