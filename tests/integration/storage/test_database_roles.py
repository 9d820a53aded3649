"""The role that the processes work as: it works with rows, owns nothing, and makes days by functions of the owner."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from deploy.commands import doctor_storage
from deploy.commands.doctor_checks import State
from deploy.embedded import EmbeddedPostgres
from notifier import migrations
from notifier.models import Base
from notifier.storage import dashboard_role, database_roles, partitions
from notifier.storage.database_roles import FUNCTIONS, Login, set_up
from notifier.vocabulary.errors import Conflict
from tests.conftest import APP, OWNER, as_login, clean_environment, engine_of
from tests.support.commands import manage, succeed

TODAY = datetime.now(UTC).date()
OLD = TODAY - timedelta(days=40)
#: A day with a partition that may be dropped.
OLD_EVENTS = partitions.partition_of("events", OLD)


def _refused(engine: Engine, statement: str) -> str:
    """The SQLSTATE with which a statement is refused; fails where it is not."""
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            connection.rollback()
            return str(getattr(error.orig, "pgcode", ""))
        connection.rollback()
    raise AssertionError(f"it was let do: {statement}")


INSUFFICIENT_PRIVILEGE = "42501"
#: Settings of functions whose plans a session keeps. Without the last, Postgres before 18 compiles them at each call.
KEEPING_PLANS = ["plan_cache_mode=force_generic_plan", "enable_seqscan=off", "jit=off"]
FORBIDDEN = (
    *(
        "DROP TABLE events",
        "DROP TABLE users CASCADE",
        "DROP SCHEMA public CASCADE",
        "TRUNCATE events",
        "TRUNCATE users",
    ),
    *(
        "ALTER TABLE events ADD a text",
        "ALTER TABLE notifications DISABLE TRIGGER ALL",
        "ALTER TABLE users RENAME TO x",
    ),
    *("CREATE TABLE mine ()", "CREATE TABLE public.mine ()", "CREATE VIEW mine AS SELECT 1", "CREATE SCHEMA mine"),
    *("CREATE INDEX ON users (email)", "DROP INDEX users_pkey", "CREATE EXTENSION dblink", "CREATE SEQUENCE mine"),
    "CREATE RULE mine AS ON SELECT TO users DO INSTEAD NOTHING",
    "CREATE TRIGGER mine BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION notifier_drop_day(text, date, boolean) RETURNS void LANGUAGE sql AS 'SELECT 1'",
    *(
        "CREATE ROLE mine",
        "ALTER ROLE CURRENT_USER CREATEDB",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "ALTER ROLE CURRENT_USER CREATEROLE",
    ),
    *("DROP ROLE notifier_owner", "ALTER ROLE notifier_owner PASSWORD 'x'", "GRANT notifier_owner TO CURRENT_USER"),
    *(
        "SET ROLE notifier_owner",
        "SET SESSION AUTHORIZATION notifier_owner",
        "SET ROLE notifier",
        "SET ROLE pg_monitor",
    ),
    *("ALTER TABLE events OWNER TO CURRENT_USER", "REASSIGN OWNED BY notifier_owner TO CURRENT_USER"),
    *("SELECT pg_read_file('/etc/passwd')", "SELECT pg_ls_dir('/')", "SELECT lo_import('/etc/passwd')"),
    *("COPY users TO PROGRAM 'cat'", "COPY users FROM PROGRAM 'id'", "COPY users TO '/tmp/x'"),
    *("SELECT * FROM pg_authid", "SELECT * FROM pg_shadow", "SELECT pg_reload_conf()"),
    *("INSERT INTO alembic_version VALUES ('x')", "UPDATE alembic_version SET version_num = 'x'"),
    *("DELETE FROM alembic_version", "SET session_replication_role = replica", "LOAD 'auto_explain'"),
    *("SELECT notifier_day_name('events', CURRENT_DATE, false)", "SELECT notifier_require_day('events', CURRENT_DATE)"),
    f"DROP TABLE {OLD_EVENTS}",
    f"ALTER TABLE events DETACH PARTITION {OLD_EVENTS}",
)


@pytest.fixture
def with_old_day(engine: Engine) -> Engine:
    """The processes' engine; the database has a day of events that is long over."""
    with engine.begin() as connection:
        partitions.make_day(connection, "events", OLD)
    return engine


def test_it_may_change_no_table_and_be_nobody_else(with_old_day: Engine) -> None:
    for statement in FORBIDDEN:
        assert _refused(with_old_day, statement) == INSUFFICIENT_PRIVILEGE, statement
    # These say nothing but a warning, and change nothing.
    with with_old_day.connect() as connection:
        for statement in ("GRANT SELECT ON users TO PUBLIC", "GRANT ALL ON events TO CURRENT_USER"):
            try:
                connection.execute(text(statement))
            except DBAPIError:
                connection.rollback()
        assert not connection.scalar(text("SELECT has_table_privilege('pg_monitor', 'users', 'SELECT')"))
        assert not connection.scalar(text("SELECT has_table_privilege('events', 'TRUNCATE')"))


HOSTILE = (
    *(
        "notifier_create_day('users', '2026-01-01', false)",
        "notifier_create_day('alembic_version', '2026-01-01', false)",
    ),
    *(
        "notifier_create_day('events; DROP TABLE users', '2026-01-01', false)",
        "notifier_create_day('', '2026-01-01', true)",
    ),
    *(
        "notifier_create_day('\"events\"', '2026-01-01', false)",
        "notifier_create_day('public.events', '2026-01-01', false)",
    ),
    *("notifier_create_day('EVENTS', '2026-01-01', false)", "notifier_create_day(NULL, '2026-01-01', false)"),
    *("notifier_create_day('events', NULL, false)", "notifier_create_day('events', '2026-01-01', NULL)"),
    *("notifier_create_day('events', 'infinity', false)", "notifier_create_day('events', '-infinity', false)"),
    *("notifier_create_day('events', '20260-01-01', false)", "notifier_create_day('events', '0044-03-15 BC', false)"),
    *("notifier_create_day('events', '1969-12-31', false)", "notifier_create_day('events', CURRENT_DATE + 500, false)"),
    # No spare of a day that there is not.
    "notifier_create_day('events', '2001-01-01', true)",
    *("notifier_attach_day('users', '2026-01-01')", "notifier_attach_day('events', '2001-01-01')"),
    *("notifier_attach_day('pg_temp.events', '2001-01-01')", "notifier_attach_day(NULL, NULL)"),
    *("notifier_drop_day('users', '2026-01-01', false)", "notifier_drop_day('events', '2001-01-01', false)"),
    *("notifier_drop_day('events', '2001-01-01', true)", "notifier_drop_day('events_default', '2001-01-01', false)"),
    *("notifier_drop_day('events', NULL, false)", "notifier_drop_day(NULL, '2001-01-01', false)"),
    # A day that is not over.
    *(
        "notifier_drop_day('events', CURRENT_DATE + 1, false)",
        "notifier_drop_day('notifications', CURRENT_DATE + 1, false)",
    ),
    f"notifier_drop_day('events', '{TODAY}', false)",
    f"notifier_exchange_day('events', '{TODAY}')",
    # There is nothing to exchange it for.
    f"notifier_exchange_day('events', '{OLD}')",
    *("notifier_exchange_day('users', '2026-01-01')", "notifier_exchange_day('events', '2001-01-01')"),
)


def _relations(engine: Engine) -> set[str]:
    query = "SELECT relname || pg_get_expr(relpartbound, oid) FROM pg_class WHERE relpartbound IS NOT NULL"
    with engine.connect() as connection:
        tables = connection.scalars(
            text("SELECT CAST(oid AS text) || relname FROM pg_class WHERE relkind IN ('r', 'p')")
        )
        return {*tables, *connection.scalars(text(query))}


def test_functions_of_the_owner_touch_days_of_ours_alone(with_old_day: Engine) -> None:
    before = _relations(with_old_day)
    for call in HOSTILE:
        assert _refused(with_old_day, f"SELECT {call}") in {"22023", "42P01", "42P07"}, call
    assert _relations(with_old_day) == before


def test_what_a_caller_puts_in_their_way_is_not_found(with_old_day: Engine, super_engine: Engine) -> None:
    """Temporary tables and a search path of the caller's own, and tables of these names in another schema."""
    with super_engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA mine AUTHORIZATION {APP.name}"))
        connection.execute(text(f"GRANT TEMPORARY ON DATABASE {super_engine.url.database} TO {APP.name}"))
    with with_old_day.connect() as connection:
        for schema in ("pg_temp", "mine"):
            connection.execute(text(f"CREATE TABLE {schema}.events (LIKE public.events) PARTITION BY RANGE (id)"))
            connection.execute(text(f"CREATE TABLE {schema}.{OLD_EVENTS} PARTITION OF {schema}.events DEFAULT"))
        connection.execute(
            text("CREATE FUNCTION mine.to_char(date, text) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$")
        )
        connection.execute(
            text(
                "CREATE FUNCTION mine.notifier_day_name(text, date, boolean) RETURNS text LANGUAGE sql"
                " AS $$ SELECT 'users' $$"
            )
        )
        connection.execute(text("SET search_path = pg_temp, mine, pg_catalog, public"))
        partitions.drop_day(connection, "events", OLD)
        left = connection.scalars(
            text("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = :name"), {"name": OLD_EVENTS}
        ).all()
    assert len(left) == 2
    assert "public" not in left
    with super_engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('public.users')"))


def test_days_are_made_dropped_and_exchanged(with_old_day: Engine) -> None:
    before = {each for each in _relations(with_old_day) if OLD_EVENTS in each}
    with with_old_day.begin() as connection:
        partitions.create_day(connection, "events", OLD, spare=True)
        connection.execute(text(f"INSERT INTO {OLD_EVENTS}_kept SELECT * FROM {OLD_EVENTS}"))
        partitions.exchange_day(connection, "events", OLD)
    after = {each for each in _relations(with_old_day) if OLD_EVENTS in each}
    assert len(after) == len(before) == 2
    assert {each.partition("events_")[2] for each in after} == {each.partition("events_")[2] for each in before}
    with with_old_day.begin() as connection:
        partitions.create_day(connection, "events", OLD, spare=True)
        partitions.drop_day(connection, "events", OLD, spare=True)
        partitions.drop_day(connection, "events", OLD)
    assert not [each for each in _relations(with_old_day) if OLD_EVENTS in each]


def test_a_day_has_the_bounds_of_its_ids(with_old_day: Engine) -> None:
    low, high = (partitions.first_id_of(OLD + timedelta(days=n)) for n in (0, 1))
    with with_old_day.connect() as connection:
        bound = connection.scalar(
            text("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = :name"), {"name": OLD_EVENTS}
        )
    assert bound == f"FOR VALUES FROM ('{low}') TO ('{high}')"


def test_rights_are_those_and_no_others(engine: Engine) -> None:
    """Every table that there is, days and what a migration will make among them."""
    with engine.connect() as connection:
        found = {
            row.relname: row
            for row in connection.execute(
                text("""
                    SELECT relname, has_table_privilege(c.oid, 'SELECT') AS reads,
                        has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
                            AND has_table_privilege(c.oid, 'DELETE') AS writes,
                        has_table_privilege(c.oid, 'TRUNCATE, REFERENCES, TRIGGER') AS more,
                        pg_get_userbyid(relowner) AS owner
                    FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
                """)
            )
        }
        callable_ones = connection.scalars(
            text("""
                SELECT proname || '(' || oidvectortypes(proargtypes) || ')' FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'notifier%'
                    AND has_function_privilege(oid, 'EXECUTE')
            """)
        ).all()
    assert Base.metadata.tables.keys() < found.keys()
    for name, row in found.items():
        assert (row.owner, row.reads, row.more) == (OWNER.name, True, False), name
        assert row.writes == (name != "alembic_version"), name
    assert set(callable_ones) == set(FUNCTIONS)


def test_the_doctor_says_what_it_lacks(engine: Engine, owner_engine: Engine) -> None:
    """As after a restore without grants, or where an old clock has made a day as another."""
    [well] = doctor_storage.role(engine)
    assert (well.state, well.says) == (State.OK, f"{APP.name} works with rows, and owns no table")
    with owner_engine.begin() as connection:
        day = partitions.partition_of("events", TODAY)
        connection.execute(text(f"REVOKE DELETE ON {day} FROM {APP.name}"))
        connection.execute(text(f"REVOKE EXECUTE ON FUNCTION notifier_drop_day FROM {APP.name}"))
    [ill] = doctor_storage.role(engine)
    assert ill.state is State.FAILED
    assert ill.says == f"{APP.name} may not use {day}, notifier_drop_day(text, date, boolean)"
    migrations.upgrade(owner_engine)
    assert [each.state for each in doctor_storage.role(engine)] == [State.OK]


def test_functions_are_for_nobody_else_and_have_a_search_path(engine: Engine) -> None:
    with engine.connect() as connection:
        found = connection.execute(
            text("""
                SELECT proname, proconfig, EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
                    WHERE grantee = 0) AS for_all, pg_get_userbyid(proowner) AS owner
                FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'notifier%'
            """)
        ).all()
    assert len(found) == 9
    for row in found:
        settings = KEEPING_PLANS if row.proname in {"notifier_search", "notifier_clock_work"} else []
        assert (row.proconfig, row.for_all, row.owner) == (
            [*settings, "search_path=public, pg_temp"],
            False,
            OWNER.name,
        )


def test_a_table_that_a_migration_makes_is_granted_as_it_comes(engine: Engine, owner_engine: Engine) -> None:
    with owner_engine.begin() as connection:
        connection.execute(text("CREATE TABLE made_later (id bigserial PRIMARY KEY)"))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO made_later DEFAULT VALUES"))
        connection.execute(text("DELETE FROM made_later"))
    # A grant that somebody took away, or gave, is brought back by the next migration.
    with owner_engine.begin() as connection:
        connection.execute(text(f"REVOKE ALL ON made_later FROM {APP.name}; GRANT TRUNCATE ON users TO {APP.name}"))
        connection.execute(text("GRANT EXECUTE ON FUNCTION notifier_drop_day TO PUBLIC"))
    migrations.upgrade(owner_engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO made_later DEFAULT VALUES"))
    assert _refused(engine, "TRUNCATE users") == INSUFFICIENT_PRIVILEGE
    with engine.connect() as connection:
        assert not connection.scalar(
            text("SELECT has_function_privilege('pg_monitor', 'notifier_drop_day(text, date, boolean)', 'EXECUTE')")
        )


# --- making them


class Roles:
    """Roles of a test's own, in a database of its own that a superuser made and owns."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.suffix = uuid4().hex[:12]
        self.database = f"roles_{self.suffix}"
        self.owner = Login(f"owner_{self.suffix}", 'o\'wner: "100%" @/')
        self.app = Login(f"app_{self.suffix}", 'a\'pp: "100%" @/')
        postgres.create_database(self.database)
        self.url = postgres.url(self.database)
        self.engine = engine_of(self.url)
        self._engines = [self.engine]

    def of(self, login: Login) -> Engine:
        """An engine of one who logs in."""
        self._engines.append(engine_of(as_login(self.url, login)))
        return self._engines[-1]

    def remove(self) -> None:
        """Leave nothing behind: roles are the whole server's."""
        for engine in self._engines[1:]:
            engine.dispose()
        with self.engine.begin() as connection:
            made = connection.scalars(
                text("SELECT rolname FROM pg_roles WHERE rolname LIKE :like"), {"like": f"%{self.suffix}"}
            )
            for name in made.all():
                connection.execute(text(f'REASSIGN OWNED BY "{name}" TO CURRENT_USER'))
                connection.execute(text(f'DROP OWNED BY "{name}"'))
                connection.execute(text(f'DROP ROLE "{name}"'))
        self.engine.dispose()


@pytest.fixture
def roles(postgres: EmbeddedPostgres) -> Iterator[Roles]:
    made = Roles(postgres)
    try:
        yield made
    finally:
        made.remove()


def test_a_database_of_one_superuser_is_taken_over(roles: Roles) -> None:
    """As compose and the embedded stack had it before there were roles."""
    migrations.upgrade(roles.engine)
    with roles.engine.begin() as connection:
        partitions.make_day(connection, "events", OLD)
        connection.execute(text("CREATE TABLE somebody_s_own ()"))
    state = doctor_storage.role(roles.engine)
    assert [(each.state, "is a superuser" in each.says) for each in state] == [(State.NOTE, True)]

    done = set_up(roles.engine, roles.owner, roles.app)
    assert f"Made the role {roles.app.name}." in done
    assert set_up(roles.engine, roles.owner, roles.app) == [], "again, without harm"
    app, owner = roles.of(roles.app), roles.of(roles.owner)
    with app.begin() as connection:
        connection.execute(text("UPDATE events SET error = 'x'"))
        partitions.drop_day(connection, "events", OLD)
    for statement in ("DROP TABLE users", "CREATE TABLE mine ()", "CREATE TEMPORARY TABLE mine ()", "TRUNCATE events"):
        assert _refused(app, statement) == INSUFFICIENT_PRIVILEGE
    with roles.engine.connect() as connection:
        assert connection.scalar(
            text("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'somebody_s_own'")
        )
        attributes = connection.execute(
            text(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit, rolcanlogin"
                " FROM pg_roles WHERE rolname IN (:app, :owner)"
            ),
            {"app": roles.app.name, "owner": roles.owner.name},
        )
        assert {tuple(row) for row in attributes} == {(False,) * 6 + (True,)}
    assert [each.state for each in doctor_storage.role(app)] == [State.OK]
    assert ["owns the tables" in each.says for each in doctor_storage.role(owner)] == [True]
    # Migrations go on as the owner.
    migrations.downgrade(owner, "0017")
    migrations.upgrade(owner)
    with app.begin() as connection:
        partitions.make_day(connection, "events", OLD)


def test_an_owner_who_may_make_roles_needs_no_superuser(roles: Roles) -> None:
    """As on the servers of a cloud."""
    with roles.engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {roles.owner.name} LOGIN CREATEROLE PASSWORD 'x'"))
        connection.execute(text(f"ALTER DATABASE {roles.database} OWNER TO {roles.owner.name}"))
    owner = roles.of(Login(roles.owner.name, "x"))
    migrations.upgrade(owner)
    set_up(owner, Login(roles.owner.name, "x"), roles.app)
    app = roles.of(roles.app)
    assert _refused(app, "DROP TABLE users") == INSUFFICIENT_PRIVILEGE
    assert partitions.make_partitions(app, partitions.DAYS_AHEAD + 1)
    # One role for all goes on as it did.
    assert partitions.make_partitions(owner, partitions.DAYS_AHEAD + 2)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("SUPERUSER", "is a superuser"),
        ("CREATEROLE", "is a superuser"),
        ("BYPASSRLS", "is a superuser"),
        ("IN ROLE pg_read_all_data", "is a member of another"),
    ],
)
def test_a_role_that_may_more_is_not_taken(roles: Roles, attributes: str, said: str) -> None:
    with roles.engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {roles.app.name} {attributes}"))
    with pytest.raises(Conflict, match=said):
        set_up(roles.engine, roles.owner, roles.app)
    with roles.engine.connect() as connection:
        assert not connection.scalar(
            text("SELECT count(*) FROM pg_roles WHERE rolname = :name"), {"name": roles.owner.name}
        )


def test_roles_that_cannot_be_meant_are_refused(roles: Roles) -> None:
    us = Login("notifier", "x")
    for owner, app in (
        (roles.owner, roles.owner),
        (roles.owner, us),
        (roles.owner, Login(roles.app.name, "")),
        (roles.owner, Login('a" SUPERUSER', "x")),
        (Login("pg_monitor", "x"), roles.app),
    ):
        with pytest.raises(Conflict):
            set_up(roles.engine, owner, app)
    with roles.engine.begin() as connection:
        connection.execute(text("GRANT CREATE ON SCHEMA public TO PUBLIC"))
    set_up(roles.engine, roles.owner, roles.app)  # which revokes it
    with roles.engine.begin() as connection:
        connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {roles.app.name}"))
    with pytest.raises(Conflict, match="may make tables here"):
        set_up(roles.engine, roles.owner, roles.app)


def test_the_commands_from_an_empty_database(roles: Roles, postgres: EmbeddedPostgres) -> None:
    urls = {
        "DATABASE_URL": as_login(roles.url, roles.app),
        "NOTIFIER_MIGRATION_DATABASE_URL": as_login(roles.url, roles.owner),
        "NOTIFIER_ADMIN_DATABASE_URL": roles.url,
    }
    said = succeed("roles", environment={**clean_environment(), **urls})
    assert f"{roles.owner.name} owns the tables, and {roles.app.name} works with their rows." in said
    # Each with the least that it needs.
    owners = {name: urls[name] for name in ("NOTIFIER_MIGRATION_DATABASE_URL",)}
    assert "Migrated to" in succeed("migrate", environment={**clean_environment(), **owners})
    apps = {"DATABASE_URL": urls["DATABASE_URL"]}
    assert "Nothing waits." in succeed(
        "status", environment={**clean_environment(), **apps, "REDIS_URL": "redis://127.0.0.1:9"}
    )
    assert manage("roles", environment={**clean_environment(), **apps}).returncode == 1
    assert "is not set" in manage("roles", environment={**clean_environment(), **apps}).stderr
    said += succeed("roles", environment={**clean_environment(), **urls})
    # An operator who forgets whose the tables are is told.
    migrations.downgrade(roles.of(roles.owner), "0017")
    forgot = manage("migrate", environment={**clean_environment(), **apps})
    assert (forgot.returncode, "Traceback" in forgot.stderr) == (1, False)
    assert f"{roles.app.name} may not change the tables" in forgot.stderr
    migrations.upgrade(roles.of(roles.owner))
    app = roles.of(roles.app)
    with app.connect() as connection:
        lines = connection.execute(text("SELECT action, outcome, target FROM audit ORDER BY at")).all()
    assert [(line.action, line.outcome) for line in lines] == [("migrate", "done"), ("roles", "done")]
    log = (postgres.folder / "logs/postgres.log").read_text(errors="replace")
    for password in (roles.owner.password, roles.app.password, "100%"):
        assert password not in said + str(lines) + log
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(as_login(roles.url, Login(roles.app.name, "another")))
    assert _refused(app, "DROP TABLE users") == INSUFFICIENT_PRIVILEGE
    with app.connect() as connection:
        assert database_roles.role_status(connection) == database_roles.RoleStatus(roles.app.name, False, False, ())


def test_the_reader_is_not_made_of_the_processes_role(super_engine: Engine, engine: Engine) -> None:
    with pytest.raises(Conflict, match="must go on writing"):
        dashboard_role.set_up(super_engine, "x", APP.name)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM users"))


def test_processes_run_as_that_role(new_database: Callable[[], str]) -> None:
    """The whole suite does, so that a grant that is missing fails it."""
    assert f"//{APP.name}:" in new_database()
