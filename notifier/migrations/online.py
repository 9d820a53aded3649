"""Online migrations: make an index without stopping writers, and drop one that another replaces.

CREATE INDEX CONCURRENTLY cannot run in a transaction, nor on a partitioned table at all. So it runs on a connection of
its own, and a revision that uses it does nothing else: its statements are repeated where it was interrupted.
"""

from collections.abc import Sequence
from typing import Final

from alembic import op
from sqlalchemy import Connection, text

from notifier.migrations import LOCK_TIMEOUT

_PARTITIONS: Final = text("""
    SELECT CAST(relname AS text) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = CAST(:table AS regclass) ORDER BY relname
""")
#: Whether a partition has its part of an index already: it was made meanwhile, and brought it.
_HAS_ITS_PART: Final = text("""
    SELECT count(*) FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid
    WHERE inhparent = to_regclass(:index) AND indrelid = to_regclass(:partition)
""")
#: An index whose building was interrupted stays behind, and is of no use.
_BROKEN: Final = text("""
    SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass(:index) AND NOT indisvalid
""")


def create_index(name: str, table: str, definition: str) -> None:
    """Make an index on a plain table: create_index("users_locale_idx", "users", "(locale)")."""
    if _only_written_down([f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} {definition}"]):
        return
    with _own_connection() as connection:
        _build(connection, name, table, definition)


def create_index_on_partitions(name: str, table: str, definition: str) -> None:
    """Make an index on a partitioned table: on the parent alone, then on each day, then the days' become its parts.

    Days that are made meanwhile bring theirs.
    """
    parent = f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} {definition}"
    if _only_written_down([parent]):
        return
    with _own_connection() as connection:
        _quickly(connection, parent)
        for partition in connection.scalars(_PARTITIONS, {"table": table}).all():
            if connection.scalar(_HAS_ITS_PART, {"index": name, "partition": partition}):
                continue
            index = f"{partition}_{name.removeprefix(f'{table}_')}"
            _build(connection, index, partition, definition)
            _quickly(connection, f"ALTER INDEX {name} ATTACH PARTITION {index}")


def drop_replaced_index(name: str, replacement: str) -> None:
    """Drop the index of a partitioned table once another one serves its queries, also those of the release before.

    Postgres cannot drop it concurrently. It is gone in no time, and its lock is waited for within LOCK_TIMEOUT.
    """
    statement = f"DROP INDEX IF EXISTS {name}"
    if not _only_written_down([f"-- replaced by: {replacement}\n{statement}"]):
        with _own_connection() as connection:
            _quickly(connection, statement)


def _own_connection() -> Connection:
    return op.get_bind().engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _only_written_down(statements: Sequence[str]) -> bool:
    """Whether the SQL is only asked for, as the linter does; then it is given these."""
    if not op.get_context().as_sql:
        return False
    for statement in statements:
        op.execute(statement)
    return True


def _build(connection: Connection, name: str, table: str, definition: str) -> None:
    if connection.scalar(_BROKEN, {"index": name}):
        connection.execute(text(f"DROP INDEX CONCURRENTLY {name}"))
    connection.execute(text(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} {definition}"))


def _quickly(connection: Connection, statement: str) -> None:
    """Run a statement whose lock holds others up, within LOCK_TIMEOUT: the runner tries the revision again."""
    # Statements that are sent as one text are one transaction.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {statement}")
