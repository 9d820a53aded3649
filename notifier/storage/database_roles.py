"""The Postgres roles of Notifier: one owns the tables and migrates, the other works with rows alone.

They may have any names: the URLs decide which is which. The working role is the one in the owner's default privileges,
which grant it the tables that migrations create and the days that the owner's functions create (storage.partitions). A
database with a single role, which owns everything and works with it, needs no grants.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from notifier.models import Base
from notifier.storage.partitions import is_lock_timeout
from notifier.vocabulary.errors import Conflict, Unavailable

#: Names of the two roles where nobody chose others.
OWNER: Final = "notifier_owner"
APP: Final = "notifier_app"

#: Rights of a process on rows; and on the table that says which migrations there were.
_ROWS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
_READ_ONLY: Final = {"alembic_version": ("SELECT",)}
_SEQUENCES: Final = ("SELECT", "USAGE")
#: The functions that it may call: those of days run as the owner.
FUNCTIONS: Final = (
    "notifier_create_day(text, date, boolean)",
    "notifier_attach_day(text, date)",
    "notifier_drop_day(text, date, boolean)",
    "notifier_exchange_day(text, date)",
    "notifier_clock_work(text[])",
    "notifier_search(text, text, uuid, uuid[], text[], text[], integer)",
)

_ONE_AT_A_TIME: Final = 5_141_980_129  # an advisory lock
_LOCK_TIMEOUT: Final = "2s"
#: Seconds in which a table is tried to be taken over, and between two tries.
_PATIENCE: Final = 60.0
_PAUSE: Final = 0.5
_INSUFFICIENT_PRIVILEGE: Final = "42501"

_US: Final = text("SELECT rolname, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user")
_ROLE: Final = text("""
    SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS is_mighty,
        EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid) AS is_member,
        EXISTS (SELECT FROM pg_shdepend WHERE refobjid = pg_roles.oid AND deptype = 'o') AS owns
    FROM pg_roles WHERE rolname = :role
""")
#: Roles that the owner's new tables of this schema are granted to by default.
_APPS: Final = text("""
    SELECT DISTINCT CAST(grantee.rolname AS text) FROM pg_default_acl d, aclexplode(defaclacl) granted
    JOIN pg_roles grantee ON grantee.oid = granted.grantee
    WHERE defaclnamespace = CAST(current_schema() AS regnamespace) AND defaclobjtype = 'r' AND privilege_type = 'INSERT'
        AND defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND granted.grantee <> defaclrole
""")
_RELATIONS: Final = text("""
    SELECT CAST(relname AS text) AS name, relkind = 'S' AS is_sequence, CAST(pg_get_userbyid(relowner) AS text) AS owner
    FROM pg_class c WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'p', 'S')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = CAST('pg_class' AS regclass) AND objid = c.oid
            AND deptype = 'e')
    ORDER BY relispartition, relname
""")
#: Rights that a role holds on each relation.
_HELD: Final = text("""
    SELECT CAST(relname AS text) AS name, array_agg(privilege_type) AS rights FROM pg_class, aclexplode(relacl)
    WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'p', 'S')
        AND grantee = (SELECT oid FROM pg_roles WHERE rolname = :role)
    GROUP BY relname
""")
#: Relations that the processes need and this role may not use.
_LACKS: Final = text("""
    SELECT CAST(relname AS text) FROM pg_class c
    WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'p')
        AND (CAST(relname AS text) = ANY(:tables) OR relispartition)
        AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
            AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
    UNION ALL
    SELECT name FROM unnest(CAST(:functions AS text[])) AS needed(name)
    WHERE to_regprocedure(name) IS NOT NULL AND NOT has_function_privilege(to_regprocedure(name), 'EXECUTE')
""")
#: Our functions that are there, with their owners.
_OURS: Final = text("""
    SELECT CAST(proname AS text) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS signature,
        oidvectortypes(proargtypes) AS types, CAST(proname AS text) AS name,
        CAST(pg_get_userbyid(proowner) AS text) AS owner
    FROM pg_proc p WHERE pronamespace = CAST(current_schema() AS regnamespace) AND proname LIKE 'notifier\\_%'
""")


@dataclass(frozen=True, slots=True)
class Login:
    """A role's name and password."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """The standing of the role that asks in its database."""

    name: str
    is_superuser: bool
    #: It owns tables, and so may change and drop them.
    owns_tables: bool
    #: Tables and functions that it needs and may not use.
    lacks: tuple[str, ...]


def role_status(connection: Connection) -> RoleStatus:
    """Return what the role of this connection owns and may do in the database."""
    name, is_superuser, _ = connection.execute(_US).one()
    owns = any(each.owner == name for each in connection.execute(_RELATIONS))
    lacks = connection.scalars(_LACKS, {"functions": list(FUNCTIONS), "tables": list(Base.metadata.tables)}).all()
    return RoleStatus(name, is_superuser, owns, tuple(lacks))


def set_up(engine: Engine, owner: Login, app: Login) -> list[str]:
    """Create the two roles, or bring them up to date: passwords, ownership, grants. It is safe to repeat.

    `engine` belongs to a superuser; or to the owner itself, who keeps its tables, if it may create roles. Returns the
    changes, a line each. Passwords leave this process as SCRAM verifiers only, so that no log of Postgres can contain
    them. Raises Conflict if a role is not as required, or the user of `engine` may not change it; Unavailable if a
    table is in use for too long to change its owner.
    """
    if owner.name == app.name:
        raise Conflict(f"DATABASE_URL and NOTIFIER_MIGRATION_DATABASE_URL name the same role, {owner.name}.")
    for login in (owner, app):
        if not re.fullmatch(r"(?!pg_)[a-z_][a-z0-9_]{0,62}", login.name) or not login.password:
            raise Conflict("Each URL must name a role of small letters, digits and underscores, and its password.")
    done: list[str] = []
    try:
        with engine.begin() as connection:
            done += _make_roles(connection, owner, app)
        done += _take_over(engine, owner.name)
        with engine.begin() as connection:
            _let_in(connection, owner.name, app.name)
            done += _grant(connection, owner.name, [app.name])
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        said = str(error.orig).strip().splitlines()[0]
        raise Conflict(f"This database user may not do all of it: {said}") from None
    return done


def _make_roles(connection: Connection, owner: Login, app: Login) -> Iterator[str]:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
    us, is_superuser, may_create = connection.execute(_US).one()
    if us == owner.name and is_superuser:
        yield f"{us}, who owns the tables, is a superuser: the functions that make days run with its rights."
    if app.name == us:
        raise Conflict(f"{us} is the user of DATABASE_URL itself, which must not own what it works with.")
    if us != owner.name and not is_superuser:
        raise Conflict(f"The database user {us} is neither a superuser nor {owner.name}, so nothing was changed.")
    if not (is_superuser or may_create):
        raise Conflict(
            f"The database user {us} may not create roles, so nothing was changed: ALTER ROLE {us} CREATEROLE."
        )
    for login in (owner, app):
        if login.name == us:
            continue
        found = connection.execute(_ROLE, {"role": login.name}).one_or_none()
        if found is None:
            connection.execute(text(f'CREATE ROLE "{login.name}" NOINHERIT'))
            yield f"Made the role {login.name}."
        elif found.is_mighty or (login is app and (found.is_member or found.owns)):
            raise Conflict(
                f"The role {login.name} is there already, and is a superuser, has rights of that kind"
                + (", is a member of another, or owns something." if login is app else ".")
                + " Nothing was changed: choose another name."
            )
        driver: Any = connection.connection.driver_connection
        verifier = encrypt_password(login.password, login.name, scope=driver, algorithm="scram-sha-256")
        connection.execute(text(f'ALTER ROLE "{login.name}" LOGIN PASSWORD :verifier'), {"verifier": verifier})


def _take_over(engine: Engine, owner: str) -> Iterator[str]:
    """Give the owner our tables and functions that are another's, one by one: so nobody waits behind us for long."""
    ours = {*Base.metadata.tables, *_READ_ONLY}
    with engine.connect() as connection:
        us = connection.execute(_US).one().rolname
        schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
        foreign = [each for each in connection.execute(_RELATIONS) if each.owner != owner and not each.is_sequence]
        statements = [
            f'ALTER TABLE {schema}."{each.name}" OWNER TO "{owner}"'
            for each in foreign
            if each.name in ours or re.sub(r"_(default|\d{8}(_kept)?)$", "", each.name) in ours
        ]
        statements += [
            f'ALTER FUNCTION {schema}.{each.name}({each.types}) OWNER TO "{owner}"'
            for each in connection.execute(_OURS)
            if each.owner != owner
        ]
    if us == owner and statements:
        raise Conflict(f"{len(statements)} tables and functions are not those of {owner}: a superuser must run this.")
    for statement in statements:
        _insist(engine, statement)
    if statements:
        yield f"{owner} owns {len(statements)} tables and functions that were another's."


def _insist(engine: Engine, statement: str) -> None:
    """Run a statement whose lock holds others up, until it gets it. Raises Unavailable."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with engine.begin() as connection:
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
                connection.execute(text(statement))
                return
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            if time.monotonic() > until:
                raise Unavailable("A long transaction holds a table; what was done stays. Run it again.") from error
        time.sleep(_PAUSE)


def _let_in(connection: Connection, owner: str, app: str) -> None:
    """Let both into the database and its schema, where the owner alone may make anything."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
    us = connection.execute(_US).one().rolname
    database, schema = connection.execute(
        text("SELECT quote_ident(current_database()), quote_ident(current_schema())")
    ).one()
    if us != owner:
        connection.execute(text(f'ALTER DATABASE {database} OWNER TO "{owner}"'))
        connection.execute(text(f'GRANT CREATE, USAGE ON SCHEMA {schema} TO "{owner}"'))
    connection.execute(text(f'GRANT CONNECT ON DATABASE {database} TO "{app}"'))
    connection.execute(text(f'GRANT USAGE ON SCHEMA {schema} TO "{app}"'))
    # As Postgres before 15 has it, and 15 and later for temporary tables.
    connection.execute(text(f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC"))
    connection.execute(text(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"))
    coming = f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" IN SCHEMA {schema} GRANT'
    connection.execute(text(f'{coming} {", ".join(_ROWS)} ON TABLES TO "{app}"'))
    connection.execute(text(f'{coming} {", ".join(_SEQUENCES)} ON SEQUENCES TO "{app}"'))
    may_make = connection.scalar(
        text(
            "SELECT has_schema_privilege(:role, current_schema(), 'CREATE')"
            " OR has_database_privilege(:role, current_database(), 'CREATE')"
        ),
        {"role": app},
    )
    if may_make:
        raise Conflict(f"{app} may make tables here: somebody has granted CREATE to it, or to PUBLIC. Revoke it first.")


def grant(engine: Engine) -> list[str]:
    """Grant, as the owner, the rights that the working roles need; returns the changes, a line each.

    It runs after each migration. The owner's default privileges tell the roles.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
        us = connection.execute(_US).one().rolname
        return list(_grant(connection, us, list(connection.scalars(_APPS))))


def _grant(connection: Connection, owner: str, apps: list[str]) -> Iterator[str]:
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    relations = [each for each in connection.execute(_RELATIONS) if each.owner == owner]
    functions = {f"{each.name}({each.types})" for each in connection.execute(_OURS) if each.owner == owner}
    for function in sorted(functions):
        connection.execute(text(f"REVOKE ALL ON FUNCTION {schema}.{function} FROM PUBLIC"))
    for app in apps:
        changed = 0
        holds = {name: set(rights) for name, rights in connection.execute(_HELD, {"role": app})}
        for each in relations:
            wanted = set(_SEQUENCES if each.is_sequence else _READ_ONLY.get(each.name, _ROWS))
            held = holds.get(each.name, set())
            what = "SEQUENCE" if each.is_sequence else "TABLE"
            for verb, rights, preposition in (("GRANT", wanted - held, "TO"), ("REVOKE", held - wanted, "FROM")):
                if rights:
                    listed = ", ".join(sorted(rights))
                    connection.execute(text(f'{verb} {listed} ON {what} {schema}."{each.name}" {preposition} "{app}"'))
                    changed += 1
        for function in sorted(functions & set(FUNCTIONS)):
            connection.execute(text(f'GRANT EXECUTE ON FUNCTION {schema}.{function} TO "{app}"'))
        if changed:
            yield f"{app} may work with the rows of {changed} tables more."
