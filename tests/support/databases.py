"""Databases as the migrations leave them, for tests: one that was used is emptied and used again, under another name.

To make a database of a thousand files and to remove it takes a hundred times as long as most tests that need one.
"""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, Final

import psycopg2

from deploy.embedded import EmbeddedPostgres

#: Where a change of a database leaves its mark, but for rows in our own tables. Statistics of columns too: a plan of
#: the next test may depend on them.
_CATALOGS: Final = (
    *("pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_inherits", "pg_trigger", "pg_rewrite"),
    *("pg_proc", "pg_type", "pg_namespace", "pg_extension", "pg_policy", "pg_default_acl", "pg_event_trigger"),
    *("pg_statistic", "pg_statistic_ext", "pg_publication", "pg_subscription", "pg_largeobject_metadata", "pg_depend"),
)
#: Each row of a catalog has the number of the transaction that wrote it, and one that is deleted is missing.
_STATE: Final = " UNION ALL ".join(
    (
        *(f"SELECT count(*), coalesce(max(xmin::text::bigint), 0) FROM {catalog}" for catalog in _CATALOGS),
        "SELECT count(*), 0 FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
        " WHERE datname = current_database()",
        "SELECT count(*), 0 FROM pg_prepared_xacts WHERE database = current_database()",
        "SELECT coalesce(hashtext(datacl::text), 0), datconnlimit FROM pg_database WHERE datname = current_database()",
    )
)
_TABLES_WITH_ROWS: Final = """
    SELECT quote_ident(relname), pg_relation_size(oid) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0
"""
_RESTART_SEQUENCES: Final = """
    SELECT setval(seqrelid, seqstart, false) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL
"""
#: Bytes up to which the rows of a table are deleted. To truncate one makes files anew, and writes to the catalogs.
_SMALL: Final = 64 * 1024
_END_OTHERS: Final = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()
"""


State = tuple[tuple[int, int], ...]


class Databases:
    """The databases of one Postgres, for one thread."""

    def __init__(self, postgres: EmbeddedPostgres, template: str, *, owner: str) -> None:
        """`template`: the database as the migrations leave it, to which nobody is connected."""
        self._postgres = postgres
        self._make = f"TEMPLATE {template} STRATEGY file_copy OWNER {owner}"
        self._numbers = itertools.count(1)
        #: How many were made; all others are such as were emptied.
        self.made = 0
        #: Empty databases, and the state of their catalogs since they were emptied.
        self._empty: list[tuple[str, State]] = []
        self._states: dict[str, State] = {}
        self._first_state: State | None = None
        self._first_rows: dict[str, str] = {}
        #: The superuser's connection to no test's database, once there is one.
        self._connection: Any = None

    def take(self) -> str:
        """Return the name of a database that nobody else has, or had."""
        if self._empty:
            name, self._states[name] = self._empty.pop()
            return name
        name = self._new_name()
        self._execute(f"CREATE DATABASE {name} {self._make}")
        self.made += 1
        self._states[name] = self._first_state or self._look_at_first(name)
        return name

    def _new_name(self) -> str:
        return f"test_{next(self._numbers)}"

    def _look_at_first(self, name: str) -> State:
        with self.cursor(name) as cursor:
            self._first_rows = {table: _rows(cursor, table) for table in _sizes(cursor)}
            self._first_state = _state(cursor)
        return self._first_state

    def give_back(self, name: str) -> None:
        """Empty a database for the next test, unless more than rows was changed in it, or somebody does not let it go.

        It has another name from then on: an engine or a thread that a test left behind finds none, and so leaves
        nothing behind in an empty one.
        """
        before, new_name = self._states.pop(name), self._new_name()
        with contextlib.suppress(psycopg2.Error):
            self._execute(_END_OTHERS, (name,))
            self._execute(f"ALTER DATABASE {name} RENAME TO {new_name}")
            with self.cursor(new_name) as cursor:
                cursor.execute("SET lock_timeout = '5s'; SET session_replication_role = replica")
                if _state(cursor) != before:
                    return
                is_same = self._empty_out(cursor)
                state = before if is_same else _state(cursor)
            self._empty.append((new_name, state))

    def _empty_out(self, cursor: Any) -> bool:
        """Leave the rows of the template alone in a database. Returns whether its catalogs are as they were."""
        sizes = _sizes(cursor)
        large = [table for table, size in sizes.items() if size > _SMALL]
        if large:
            cursor.execute(f"TRUNCATE {', '.join(large)} CASCADE")
        for table in sizes.keys() - set(large):
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute(_RESTART_SEQUENCES)
        for table, rows in self._first_rows.items():
            cursor.execute(f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s)", (rows,))
        cursor.execute("SELECT pg_stat_reset()")
        return not large

    def _execute(self, statement: str, values: tuple[str, ...] = ()) -> None:
        """Execute a statement outside of the tests' databases."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect("postgres")
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)

    def close(self) -> None:
        """Give the connection to the server up."""
        if self._connection is not None:
            self._connection.close()

    def _connect(self, database: str) -> Any:
        connection = psycopg2.connect(self._postgres.url(database))
        connection.autocommit = True
        return connection

    @contextlib.contextmanager
    def cursor(self, database: str) -> Iterator[Any]:
        """A cursor of a superuser in a database; each statement is a transaction."""
        connection = self._connect(database)
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


def _state(cursor: Any) -> State:
    cursor.execute(_STATE)
    return tuple(cursor.fetchall())


def _sizes(cursor: Any) -> dict[str, int]:
    """Return the tables that have rows, or had some, and their sizes in bytes."""
    cursor.execute(_TABLES_WITH_ROWS)
    return dict(cursor.fetchall())


def _rows(cursor: Any, table: str) -> str:
    cursor.execute(f"SELECT json_agg(each)::text FROM {table} each")
    return str(cursor.fetchone()[0])
