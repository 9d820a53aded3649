"""The role that dashboards ask with: it reads what is harmless, and nothing else."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg2
import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from notifier import migrations
from notifier.models import Base
from notifier.storage import dashboard_role
from notifier.vocabulary.errors import Conflict, Invalid
from tests.conftest import QUICK, clean_environment, engine_of
from tests.support.commands import manage, succeed

PASSWORD = "what the reader's says: 'quoted' \"and\" 100%"


@pytest.fixture
def engine(super_engine: Engine) -> Engine:
    """Roles are made by who may."""
    return super_engine


@pytest.fixture
def role(engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a role of the test's own: databases of one server share their roles."""
    name = re.sub(r"\W", "_", request.node.name.lower())[:60]
    yield name
    with engine.begin() as connection:
        if connection.scalar(text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)"), {"role": name}):
            connection.execute(text(f'DROP OWNED BY "{name}"'))
            connection.execute(text(f'DROP ROLE "{name}"'))


@pytest.fixture
def as_role(database_url: str) -> Iterator[Callable[[str], Engine]]:
    """Engines of those who log in with PASSWORD."""
    made: list[Engine] = []

    def make(role: str) -> Engine:
        url = make_url(database_url).set(username=role, password=PASSWORD)
        made.append(engine_of(url.render_as_string(hide_password=False)))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def test_each_column_is_granted_or_withheld() -> None:
    """A new column, or a new table, must be decided about: may whoever sees a dashboard read it?"""
    tables = {name: {column.name for column in table.columns} for name, table in Base.metadata.tables.items()}
    assert tables.keys() - dashboard_role.GRANTED.keys() | {"alembic_version"} == dashboard_role.WITHHELD_TABLES
    for name, granted in dashboard_role.GRANTED.items():
        assert not granted & dashboard_role.WITHHELD[name]
        decided = granted | dashboard_role.WITHHELD[name]
        assert tables[name] - decided == set(), "neither granted nor withheld"
        assert decided - tables[name] == set(), "no such column"


def test_what_names_somebody_is_withheld() -> None:
    for name in ("recipient", "user_id", "payload", "content", "error", "response_excerpt", "request_headers"):
        assert not any(name in columns for columns in dashboard_role.GRANTED.values())


def test_it_reads_what_is_granted_and_nothing_else(engine: Engine, role: str, as_role: Callable[[str], Engine]) -> None:
    done = dashboard_role.set_up(engine, PASSWORD, role)
    assert done.created
    with engine.connect() as connection:
        columns = connection.execute(
            text(
                "SELECT relname, attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid"
                " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0"
            )
        ).all()
    readable = set()
    with as_role(role).connect() as connection:
        for table, column in columns:
            with suppress(ProgrammingError):
                connection.execute(text(f'SELECT "{column}" FROM "{table}" LIMIT 1'))
                readable.add(f"{table}.{column}")
            connection.rollback()
    assert readable == set(done.readable)
    assert {name.partition(".")[0] for name in readable} == dashboard_role.GRANTED.keys()
    assert readable <= {f"{table}.{column}" for table, granted in dashboard_role.GRANTED.items() for column in granted}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM notifications",
        "SELECT n FROM notifications n",
        "SELECT count(*) FROM users",
        "INSERT INTO dead_letters (id) VALUES (gen_random_uuid())",
        "SET TRANSACTION READ WRITE; DELETE FROM events",
        "SET TRANSACTION READ WRITE; CREATE TABLE mine ()",
        "COPY notifications (recipient) TO STDOUT",
        "SELECT pg_read_file('/etc/passwd')",
        "ALTER ROLE CURRENT_USER SUPERUSER",
    ],
)
def test_it_can_do_nothing_more(engine: Engine, role: str, as_role: Callable[[str], Engine], statement: str) -> None:
    dashboard_role.set_up(engine, PASSWORD, role)
    with as_role(role).connect() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"))
        connection.commit()
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
            connection.execute(text(statement))


def test_statistics_give_nothing_away(engine: Engine, role: str, as_role: Callable[[str], Engine]) -> None:
    dashboard_role.set_up(engine, PASSWORD, role)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO receipts SELECT gen_random_uuid(), gen_random_uuid(), 'sms', 'bounced', 'm',"
                " 'ada@example.com', now(), now(), now() FROM generate_series(1, 500)"
            )
        )
        connection.execute(text("ANALYZE receipts"))
    query = text("SELECT attname FROM pg_stats WHERE tablename = 'receipts'")
    with engine.connect() as connection:
        assert {"error", "provider"} <= set(connection.scalars(query))
    with as_role(role).connect() as connection:
        seen = set(connection.scalars(query))
    assert seen == dashboard_role.GRANTED["receipts"]


def test_its_sessions_are_read_only_and_short(engine: Engine, role: str, as_role: Callable[[str], Engine]) -> None:
    dashboard_role.set_up(engine, PASSWORD, role)
    with as_role(role).connect() as connection:
        for name, value in {"transaction_read_only": "on", "statement_timeout": "10s", "lock_timeout": "2s"}.items():
            assert connection.scalar(text(f"SHOW {name}")) == value
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT rolconnlimit, rolinherit FROM pg_roles WHERE rolname = :r"), {"r": role}
        )
        assert found.one() == (dashboard_role.CONNECTIONS, False)


def test_running_it_again_changes_nothing_but_the_password(
    engine: Engine, role: str, database_url: str, as_role: Callable[[str], Engine]
) -> None:
    dashboard_role.set_up(engine, "another one", role)
    done = dashboard_role.set_up(engine, PASSWORD, role)
    assert (done.created, done.granted, done.revoked) == (False, (), ())
    with as_role(role).connect() as connection:
        assert connection.scalar(text("SELECT count(status) FROM notifications")) == 0
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(database_url, user=role, password="another one")


def test_grants_are_brought_back_to_what_they_should_be(engine: Engine, role: str) -> None:
    dashboard_role.set_up(engine, PASSWORD, role)
    with engine.begin() as connection:
        connection.execute(text(f'GRANT SELECT ON users TO "{role}"'))
        connection.execute(text(f'GRANT SELECT (recipient), UPDATE (status) ON notifications TO "{role}"'))
        connection.execute(text(f'REVOKE SELECT (outcome) ON attempts FROM "{role}"'))
    done = dashboard_role.set_up(engine, PASSWORD, role)
    assert done.granted == ("attempts.outcome",)
    assert "notifications.recipient" in done.revoked
    assert "users.email" in done.revoked
    assert "notifications.status" in done.readable
    assert dashboard_role.set_up(engine, PASSWORD, role).revoked == ()


def test_a_column_that_comes_later_is_granted_by_the_next_run(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE attempts RENAME timing TO timing_to_come"))
    assert "attempts.timing" not in dashboard_role.set_up(engine, PASSWORD, role).readable
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE attempts RENAME timing_to_come TO timing"))
        connection.execute(text("ALTER TABLE attempts ADD said text"))
    done = dashboard_role.set_up(engine, PASSWORD, role)
    assert done.granted == ("attempts.timing",)
    assert "attempts.said" not in done.readable


def test_what_everybody_may_read_is_refused(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON suppressions TO PUBLIC"))
    with pytest.raises(Conflict, match=r"Nothing was changed: .* suppressions\.address.* PUBLIC"):
        dashboard_role.set_up(engine, PASSWORD, role)
    with engine.connect() as connection:
        assert not connection.scalar(text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :r)"), {"r": role})


def test_a_role_that_may_do_more_is_left_alone(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f'CREATE ROLE "{role}" CREATEDB'))
    with pytest.raises(Conflict, match="is there already, and it"):
        dashboard_role.set_up(engine, PASSWORD, role)
    with engine.begin() as connection:
        connection.execute(text(f'ALTER ROLE "{role}" NOCREATEDB'))
        connection.execute(text(f'GRANT pg_read_all_data TO "{role}"'))
    with pytest.raises(Conflict, match="is there already, and it"):
        dashboard_role.set_up(engine, PASSWORD, role)


def test_the_user_of_the_database_itself_is_refused(engine: Engine) -> None:
    with pytest.raises(Conflict, match="must go on writing"):
        dashboard_role.set_up(engine, PASSWORD, str(engine.url.username))


@pytest.mark.parametrize("name", ["", "pg_reader", 'a"; DROP TABLE events', "Reader", "r" * 64])
def test_a_name_that_is_none_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(Invalid, match="role"):
        dashboard_role.set_up(engine, PASSWORD, name)


def test_a_database_without_tables_is_refused(engine: Engine, role: str) -> None:
    migrations.downgrade(engine, "base")
    with pytest.raises(Conflict, match=r"manage\.py migrate"):
        dashboard_role.set_up(engine, PASSWORD, role)


# --- from the shell


@pytest.fixture
def shell(database_url: str, engine: Engine) -> dict[str, str]:
    """The environment of somebody's shell, with a fresh database."""
    admin = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    urls = {"DATABASE_URL": database_url, "NOTIFIER_ADMIN_DATABASE_URL": admin, "REDIS_URL": "redis://127.0.0.1:9/0"}
    return {**clean_environment(), **QUICK, **urls, "NOTIFIER_READER_PASSWORD": PASSWORD}


def test_the_command_says_what_it_did(engine: Engine, role: str, shell: dict[str, str]) -> None:
    said = succeed("reader", "--role", role, environment=shell)
    assert f"Made: the role {role}" in said
    assert re.search(r"It may read \d+ columns of 10 tables, and nothing else\.", said)
    with engine.begin() as connection:
        connection.execute(text(f'REVOKE SELECT (outcome) ON attempts FROM "{role}"'))
    said = succeed("reader", "--role", role, environment=shell)
    assert f"Brought up to date: the role {role}" in said
    assert "Granted: attempts.outcome." in said
    assert PASSWORD not in said
    unset = manage("reader", "--role", role, environment={**shell, "NOTIFIER_READER_PASSWORD": ""})
    assert (unset.returncode, "NOTIFIER_READER_PASSWORD is not set" in unset.stderr) == (1, True)


def test_a_user_who_may_not_make_roles_is_told(
    engine: Engine, role: str, database_url: str, shell: dict[str, str]
) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'"))
    url = make_url(database_url).set(username=role, password="x").render_as_string(hide_password=False)
    done = manage("reader", environment={**shell, "NOTIFIER_ADMIN_DATABASE_URL": url})
    assert done.returncode == 1
    assert f"The database user {role} may not create roles, so nothing was changed." in done.stderr
