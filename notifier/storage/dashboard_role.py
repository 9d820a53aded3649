"""The database role for dashboards, and its read permissions: no address, no content, no personal data.

Anybody who can see a dashboard can send its data source any SQL, so the grants are the boundary, column by column. The
role's settings (read only, a time limit) limit mistakes; a session could change them for itself.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from notifier.vocabulary.errors import Conflict, Invalid

ROLE: Final = "notifier_reader"


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


#: Counts alone, under the names of event types, sources and providers.
_STATISTICS: Final = _names(
    "dimension moment channel name accepted sent rejected unsent ambiguous retries delivered failed call_buckets"
    " wait_buckets"
)

#: Table → the columns that it may read. One that the database does not have yet is left out until it has.
GRANTED: Final[Mapping[str, frozenset[str]]] = {
    "events": _names(
        "id event_type source status channel category critical priority template on_ambiguous dedup_window dedup_scope"
        " send_at expires_at occurred_at created_at cancelled_at due_at handovers fan_out_after request_id traceparent"
    ),
    "notifications": _names(
        "id event_id event_type source channel category critical priority queue status reason due_at send_at"
        " expires_at claims silent_claim attempts tries lost created_at sent_at delivered_at deferred_at origin_id"
        " route template template_id template_version on_ambiguous dedup_window dedup_scope next_channels siblings"
        " follows subscription_id request_id traceparent waits_for"
    ),
    "attempts": _names("id notification_id number provider outcome status_code fault duration_ms started_at timing"),
    "receipts": _names("id notification_id provider kind happened_at due_at keep_until"),
    "taken_receipts": _names("id notification_id provider kind happened_at taken_at applied"),
    "resends": _names("id notification_id how asked_at status reason sent_at delivered_at attempts"),
    "dead_letters": _names(
        "id notification_id event_id claims channel event_type reason attempts created_at requeued_at"
    ),
    **dict.fromkeys(("stats_minutes", "stats_hours"), _STATISTICS),
    "stats_progress": _names("name until"),
}

#: The columns of those tables that it may not read. Keys are the callers' own words, errors the vendors', who quote
#: addresses; an explanation reveals a person's interests, a reminder their appointments.
WITHHELD: Final[Mapping[str, frozenset[str]]] = {
    "events": _names(
        "payload recipient user_id cancellation_key idempotency_key dedup_key error target_date lead_time timezone"
    ),
    "notifications": _names(
        "recipient user_id content rule explanation judged cancellation_key dedup_key target_date lead_time timezone"
    ),
    "attempts": _names("message_id error response_excerpt request_headers response_headers"),
    "receipts": _names("message_id error"),
    "taken_receipts": _names("message_id error"),
    "resends": _names("asked_by explanation"),
    "dead_letters": frozenset({"error"}),
    **dict.fromkeys(("stats_minutes", "stats_hours", "stats_progress"), frozenset()),
}

#: The tables of which it may read nothing.
WITHHELD_TABLES: Final = _names(
    "alembic_version api_keys attachments audit audit_chain dead_letter_acts dedup_keys endpoints erasures heartbeats"
    " holds idempotency_keys listeners opt_outs outbox providers recoveries routes signing_keys subscriptions"
    " suppressions templates users"
)

#: Settings at the beginning of each of its sessions.
_SETTINGS: Final = {
    "default_transaction_read_only": "on",
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}
#: The most connections that it may have.
CONNECTIONS: Final = 10

_ONE_AT_A_TIME: Final = 5_141_980_128  # an advisory lock
_INSUFFICIENT_PRIVILEGE: Final = "42501"

#: The roles of the processes: they may write new rows.
_WRITE: Final = text("""
    SELECT EXISTS (SELECT FROM pg_default_acl, aclexplode(defaclacl) granted JOIN pg_roles r ON r.oid = granted.grantee
        WHERE rolname = :role AND privilege_type = 'INSERT')
""")
_US: Final = text("SELECT rolname, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
_MORE: Final = text("""
    SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
        OR EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid)
        OR EXISTS (SELECT FROM pg_shdepend WHERE refobjid = pg_roles.oid AND deptype = 'o')
    FROM pg_roles WHERE rolname = :role
""")
_COLUMNS: Final = text("""
    SELECT relname, attname, has_column_privilege(:role, c.oid, attnum, 'SELECT'),
        has_table_privilege(:role, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
            OR has_column_privilege(:role, c.oid, attnum, 'INSERT, UPDATE, REFERENCES')
    FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
    WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'p', 'v', 'm', 'f')
        AND attnum > 0 AND NOT attisdropped
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = CAST('pg_class' AS regclass) AND objid = c.oid
            AND deptype = 'e')
""")


@dataclass(frozen=True, slots=True)
class Change:
    """The change that was made to the role."""

    #: It was not there before.
    created: bool
    #: `table.column` that it can read now and could not before; the other way round; and all that it can.
    granted: tuple[str, ...]
    revoked: tuple[str, ...]
    readable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """(table, column) pairs: all that there are, those it can read, those it can do anything more with."""

    present: frozenset[tuple[str, str]]
    readable: frozenset[tuple[str, str]]
    excessive: frozenset[tuple[str, str]]


def set_up(engine: Engine, password: str, role: str = ROLE) -> Change:
    """Make the role, or bring it up to date: password, settings, grants. All of it or nothing; runs again without harm.

    The password leaves this process as a SCRAM verifier only, so that no log of Postgres can have it. Raises Invalid
    where the name is none; Conflict where the database's user may not make roles, where the role may do more than this
    gives it, and where the database is not migrated.
    """
    if not re.fullmatch(r"(?!pg_)[a-z_][a-z0-9_]{0,62}", role):
        raise Invalid({"role": ["It is 1 to 63 small letters, digits and underscores, and does not begin with pg_."]})
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
        us, may_create = connection.execute(_US).one()
        if role == us or connection.scalar(_WRITE, {"role": role}):
            raise Conflict(f"{role} is a role that must go on writing. Choose another name.")
        if not may_create:
            raise Conflict(
                f"The database user {us} may not create roles, so nothing was changed. Run this once with a"
                f" NOTIFIER_ADMIN_DATABASE_URL whose user may, or let a superuser allow it: ALTER ROLE {us} CREATEROLE."
            )
        try:
            return _set_up(connection, password, role)
        except ProgrammingError as error:
            if getattr(error.orig, "pgcode", None) != _INSUFFICIENT_PRIVILEGE:
                raise
            said = str(error.orig).strip().splitlines()[0]
            raise Conflict(f"The database user {us} may not do all of it, so nothing was changed: {said}") from None


def _set_up(connection: Connection, password: str, role: str) -> Change:
    more = connection.execute(_MORE, {"role": role}).scalar()
    created = more is None
    if created:
        connection.execute(text(f'CREATE ROLE "{role}" NOINHERIT'))
    elif more:
        raise Conflict(
            f"The role {role} is there already, and it is a superuser, has rights of that kind, is a member of another"
            " role, or owns something. Drop it, or choose another name."
        )
    _log_in(connection, password, role)
    before = _seen(connection, role)
    _grant(connection, before, role)
    after = _seen(connection, role)
    if after.excessive or after.readable - _wanted(after):
        surplus = sorted(".".join(each) for each in after.excessive | after.readable - _wanted(after))
        raise Conflict(
            f"Nothing was changed: {role} could do more than read what is harmless, with {_some(surplus)}. Somebody has"
            " granted that to PUBLIC, or to the role; revoke it first."
        )
    return Change(
        created,
        tuple(sorted(".".join(each) for each in after.readable - before.readable)),
        tuple(sorted(".".join(each) for each in before.readable - after.readable)),
        tuple(sorted(".".join(each) for each in after.readable)),
    )


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _log_in(connection: Connection, password: str, role: str) -> None:
    """Set the role's password and settings, and give it access to the tables."""
    driver: Any = connection.connection.driver_connection
    verifier = encrypt_password(password, role, scope=driver, algorithm="scram-sha-256")
    connection.execute(
        text(f'ALTER ROLE "{role}" LOGIN CONNECTION LIMIT {CONNECTIONS} PASSWORD :verifier'), {"verifier": verifier}
    )
    for name, value in _SETTINGS.items():
        connection.execute(text(f"ALTER ROLE \"{role}\" SET {name} = '{value}'"))
    database, schema, may_connect, may_use = connection.execute(
        text(
            "SELECT quote_ident(current_database()), quote_ident(current_schema()),"
            " has_database_privilege(:role, current_database(), 'CONNECT'),"
            " has_schema_privilege(:role, current_schema(), 'USAGE')"
        ),
        {"role": role},
    ).one()
    if not may_connect:
        connection.execute(text(f'GRANT CONNECT ON DATABASE {database} TO "{role}"'))
    if not may_use:
        connection.execute(text(f'GRANT USAGE ON SCHEMA {schema} TO "{role}"'))


def _seen(connection: Connection, role: str) -> _Seen:
    rows = connection.execute(_COLUMNS, {"role": role}).all()
    return _Seen(
        frozenset((table, column) for table, column, _, _ in rows),
        frozenset((table, column) for table, column, readable, _ in rows if readable),
        frozenset((table, column) for table, column, _, excessive in rows if excessive),
    )


def _wanted(seen: _Seen) -> frozenset[tuple[str, str]]:
    return frozenset((table, column) for table, columns in GRANTED.items() for column in columns) & seen.present


def _grant(connection: Connection, seen: _Seen, role: str) -> None:
    """Revoke excess grants, table by table, and add missing ones."""
    wanted = _wanted(seen)
    if {table for table, _ in wanted} != GRANTED.keys():
        raise Conflict("The database is not migrated: run manage.py migrate first.")
    spoilt = {table for table, _ in seen.excessive | seen.readable - wanted}
    for table in sorted(spoilt):
        connection.execute(text(f'REVOKE ALL ON "{table}" FROM "{role}"'))
    for table in sorted(GRANTED):
        missing = {column for name, column in wanted if name == table}
        if table not in spoilt:
            missing -= {column for name, column in seen.readable if name == table}
        if missing:
            columns = ", ".join(f'"{column}"' for column in sorted(missing))
            connection.execute(text(f'GRANT SELECT ({columns}) ON "{table}" TO "{role}"'))
