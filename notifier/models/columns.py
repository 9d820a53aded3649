"""Lists of columns for SQL, taken from the models: a model is the one place that names a table's columns."""

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any, Final, cast

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from notifier.models.declarative import UNDRAFTED, Base

_POSTGRES: Final = postgresql.dialect()  # type: ignore[no-untyped-call]  # the dialects have no types


def names_of(model: type[Base]) -> tuple[str, ...]:
    """Return the names of a model's columns, in the model's order."""
    return tuple(name for name, _ in _columns(model))


def _columns(model: type[Base]) -> Iterator[tuple[str, Column[Any]]]:
    for column in cast("Table", model.__table__).columns:
        yield str(column.name), column  # SQLAlchemy's names are of a subclass of str, which orjson takes for no key


def types_of(model: type[Base]) -> dict[str, str]:
    """Return the SQL types of a model's columns, by name."""
    return {name: column.type.compile(_POSTGRES) for name, column in _columns(model)}


def drafted(model: type[Base]) -> dict[str, str]:
    """Return the SQL types of the columns that a draft of a new row may have: all but those marked as UNDRAFTED."""
    types = types_of(model)
    return {name: types[name] for name, column in _columns(model) if not column.info.keys() & UNDRAFTED.keys()}


def recordset(of: type[Any], model: type[Base], **beside: str) -> str:
    """Return the column definitions by which json_to_recordset reads a dataclass: those of the model's columns.

    `beside`: the SQL types of fields that are no columns. Raises LookupError as `in_order_of` does.
    """
    types = {**types_of(model), **beside}
    return ", ".join(f"{name} {types[name]}" for name in in_order_of(of, model, beside=beside))


def in_order_of(of: type[Any], model: type[Base], *, beside: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of a dataclass's fields, in its order: a row that is read so is made into it by position.

    Raises LookupError where a field is neither a column of the model nor named in `beside`.
    """
    names = tuple(each.name for each in dataclasses.fields(of))
    if unknown := set(names) - {*names_of(model), *beside}:
        raise LookupError(f"{of.__name__} has fields that {model.__tablename__} has no columns for: {unknown}")
    return names
