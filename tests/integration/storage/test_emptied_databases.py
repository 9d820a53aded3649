"""A database that a test gives back is as a new one for the next test, or is not used again."""

from typing import Any

import psycopg2
import pytest

from deploy.embedded import EmbeddedPostgres
from tests.conftest import OWNER
from tests.support.databases import Databases

_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"
_USERS = """
    INSERT INTO users (id, user_id, push_tokens, timezone, attributes, preferences, created_at, updated_at)
    SELECT gen_random_uuid(), n::text, '{}', 'UTC', '{}', '{}', now(), now() FROM generate_series(1, %s) n
"""


class _Own(Databases):
    """Databases beside those of other tests."""

    def _new_name(self) -> str:
        return f"own_{super()._new_name()}"


@pytest.fixture(scope="module")
def own(postgres: EmbeddedPostgres) -> Databases:
    return _Own(postgres, "notifier_template", owner=OWNER.name)


def _everything(cursor: Any) -> dict[str, str | None]:
    """Every row of every table by the table's name, and where the sequences are."""
    cursor.execute(_TABLES)
    found = {}
    for (table,) in cursor.fetchall():
        cursor.execute(f"SELECT json_agg(each ORDER BY each::text)::text FROM {table} each")
        found[table] = cursor.fetchone()[0]
    cursor.execute("SELECT json_agg(each)::text FROM (SELECT sequencename, last_value FROM pg_sequences) each")
    found["sequences"] = cursor.fetchone()[0]
    return found


def test_an_emptied_database_is_as_a_new_one(own: Databases) -> None:
    contents = []
    for users in (50, 5000, 50):
        name = own.take()
        with own.cursor(name) as cursor:
            contents.append(_everything(cursor))
            cursor.execute(_USERS, (users,))
            cursor.execute("DELETE FROM signing_keys; UPDATE listeners SET version = 7")
            cursor.execute("SELECT nextval(seqrelid) FROM pg_sequence")
        made = own.made
        own.give_back(name)
    assert contents[0] == contents[1] == contents[2]
    assert contents[0]["listeners"], "there is something to compare"
    own.take()
    assert own.made == made, "it was used again"


@pytest.mark.parametrize(
    "change",
    [
        "CREATE INDEX ON users (email)",
        "ALTER TABLE users ALTER COLUMN email SET NOT NULL",
        "GRANT SELECT ON users TO pg_monitor",
        "ALTER TABLE notifications DISABLE TRIGGER ALL",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        f"{_USERS % 50}; ANALYZE users",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
    ],
)
def test_one_that_was_changed_is_not_used_again(own: Databases, change: str) -> None:
    name = own.take()
    with own.cursor(name) as cursor:
        cursor.execute(change)
    made = own.made
    own.give_back(name)
    own.take()
    assert own.made == made + 1


def test_nobody_finds_one_that_is_being_emptied(own: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    name, empty_out = own.take(), Databases._empty_out
    emptied: list[str] = []

    def looking(databases: Databases, cursor: Any) -> bool:
        with pytest.raises(psycopg2.OperationalError, match="does not exist"), databases.cursor(name):
            pass
        emptied.append(name)
        return empty_out(databases, cursor)

    monkeypatch.setattr(Databases, "_empty_out", looking)
    own.give_back(name)
    assert emptied == [name]
