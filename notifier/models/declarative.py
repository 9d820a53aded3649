"""The declarative class of all models, and column types that SQLAlchemy does not have."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, MetaData, Text, Uuid, cast
from sqlalchemy.orm import DeclarativeBase, registry
from sqlalchemy.types import UserDefinedType


class JsonText(UserDefinedType[str]):
    """A Postgres `json` column, read and written as its text: keys in their order, numbers as they were written.

    (`jsonb`, or parsing on the way, would turn 1.10 into 1.1 and sort the keys.)
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:  # noqa: ANN401 -- SQLAlchemy's signature
        """Return the type's name in DDL."""
        return "JSON"

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """Read it as text, or psycopg2 would parse it."""
        return cast(column, Text)


class Base(DeclarativeBase):
    """Every table of Notifier."""

    # A registry, since Flask-SQLAlchemy derives a class from this one, and SQLAlchemy takes no map beside a registry.
    registry = registry(
        metadata=MetaData(
            naming_convention={
                "pk": "%(table_name)s_pkey",
                "ix": "%(table_name)s_%(column_0_N_name)s_idx",
                "uq": "%(table_name)s_%(column_0_N_name)s_key",
                "ck": "%(table_name)s_%(constraint_name)s_check",
            }
        ),
        type_annotation_map={datetime: DateTime(timezone=True), str: Text(), UUID: Uuid()},
    )


#: The mark of a column that no draft of a new row has a value for: the INSERT computes it, or a later step writes it.
#: A new column without it can be drafted at once (see notifier.planning.drafts).
UNDRAFTED: Final[dict[str, Any]] = {"undrafted": True}

#: Table options of a table that is range-partitioned by day on its UUIDv7 `id` (see notifier.storage.partitions).
BY_DAY = {"postgresql_partition_by": "RANGE (id)"}
