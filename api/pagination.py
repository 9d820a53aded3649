"""Pagination of a table, newest first. Ids sort by time, so the last id of a page is the cursor of the next one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, union_all
from sqlalchemy.orm import InstrumentedAttribute

from api.database import db
from api.schemas.pagination import as_cursor
from notifier.storage.time_limits import in_time
from notifier.vocabulary.ids import first_id_after, first_id_of


def page(
    query: Select[Any],
    id_column: InstrumentedAttribute[UUID],
    asked: Mapping[str, Any],
    *,
    ways: Sequence[ColumnElement[bool]] = (),
    windows: Iterable[ColumnElement[bool]] | None = None,
) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """Return one page of `query`: {"items", "next_cursor"}. New rows come before it, and do not shift it.

    `ways`: conditions of which each row of `query` meets exactly one; each is asked with an index of its own.
    `windows`: conditions, each wider than the one before, which let the newest rows through first.
    """
    limit, cursor = asked["limit"], asked["cursor"]
    if cursor is not None:
        query = query.where(id_column < cursor)
    newest_first = query.order_by(id_column.desc()).limit(limit + 1)
    with in_time(db.session, "created_after"):
        if ways:
            ids = _newest_ids([newest_first.with_only_columns(id_column).where(way) for way in ways], limit + 1)
            # Asked for again by all filters: a row that has changed in between may match them no longer.
            of_page = query.where(id_column.in_(ids[:limit])).order_by(id_column.desc())
            rows: Sequence[Any] = db.session.scalars(of_page).all()
        else:
            each = (newest_first,) if windows is None else (newest_first.where(window) for window in windows)
            rows = _first_full(each, limit + 1)
            ids = [row.id for row in rows]
    return {"items": rows[:limit], "next_cursor": as_cursor(ids[limit - 1]) if len(ids) > limit else None}


def _newest_ids(queries: Sequence[Select[Any]], wanted: int) -> Sequence[UUID]:
    """Return the newest ids of several queries, each of which gives its newest ones."""
    each = union_all(*queries) if len(queries) > 1 else queries[0]
    return sorted(db.session.scalars(each), reverse=True)[:wanted]


def _first_full(queries: Iterable[Select[Any]], wanted: int) -> Sequence[Any]:
    """Return the rows of the first query that has as many as are wanted, or of the last one."""
    rows: Sequence[Any] = ()
    for query in queries:
        rows = db.session.scalars(query).all()
        if len(rows) == wanted:
            break
    return rows


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
        query = query.where(model.created_at < before, model.id < first_id_after(before))
    return query
