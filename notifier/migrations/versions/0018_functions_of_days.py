"""Functions that make and drop the partitions of days for a role that owns no table.

They run as their owner, who owns the tables, whoever calls them: so each says by itself which tables it touches. A
table is one of four, a day is a date, and names are made of those alone; nothing that is not a day of such a table, or
a copy of one that is about to take its place, is made, dropped or attached. Names are looked for in the schema that the
tables are in, whatever the caller's search path is.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

_CHECKED = """
    CREATE FUNCTION notifier_day_name(parent text, day date, spare boolean) RETURNS text
    LANGUAGE plpgsql STABLE AS $$
    BEGIN
        IF parent IS NULL OR parent <> ALL ('{events,notifications,attempts,attachments}') THEN
            RAISE EXCEPTION 'not a table that is partitioned by day' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF day IS NULL OR spare IS NULL OR day NOT BETWEEN '1970-01-01' AND (now() AT TIME ZONE 'UTC')::date + 400 THEN
            RAISE EXCEPTION 'not a day that has a partition' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        RETURN parent || '_' || to_char(day, 'YYYYMMDD') || CASE WHEN spare THEN '_kept' ELSE '' END;
    END $$
"""
_REQUIRED = """
    CREATE FUNCTION notifier_require_day(parent text, day date) RETURNS text
    LANGUAGE plpgsql STABLE AS $$
    DECLARE name text := notifier_day_name(parent, day, false);
    BEGIN
        IF NOT EXISTS (
            SELECT FROM pg_inherits
            WHERE inhrelid = to_regclass(format('%I.%I', current_schema(), name))
                AND inhparent = to_regclass(format('%I.%I', current_schema(), parent))
        ) THEN
            RAISE EXCEPTION 'there is no partition %', name USING ERRCODE = 'undefined_table';
        END IF;
        RETURN name;
    END $$
"""
# A day that is not over yet is needed, whatever somebody's retention is.
_OVER = """
        IF day >= (now() AT TIME ZONE 'UTC')::date THEN
            RAISE EXCEPTION 'the day is not over' USING ERRCODE = 'invalid_parameter_value';
        END IF;
"""
_CREATE = """
    CREATE FUNCTION notifier_create_day(parent text, day date, spare boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE name text := notifier_day_name(parent, day, spare);
    BEGIN
        IF spare THEN
            PERFORM notifier_require_day(parent, day);
        END IF;
        EXECUTE format(
            'CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)'
            ' WITH (fillfactor = %4$s)',
            current_schema(), name, parent, CASE parent WHEN 'events' THEN 90 WHEN 'notifications' THEN 70 ELSE 100 END
        );
    END $$
"""
_ATTACH = """
    CREATE FUNCTION notifier_attach_day(parent text, day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        name text := notifier_day_name(parent, day, false);
        -- The first id of a UUIDv7's millisecond.
        low text := rpad(lpad(to_hex((day - date '1970-01-01') * 86400000::bigint), 12, '0'), 32, '0');
        high text := rpad(lpad(to_hex((day + 1 - date '1970-01-01') * 86400000::bigint), 12, '0'), 32, '0');
    BEGIN
        EXECUTE format(
            'ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
            current_schema(), parent, name, low, high
        );
    END $$
"""
_DROP = f"""
    CREATE FUNCTION notifier_drop_day(parent text, day date, spare boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE name text := notifier_day_name(parent, day, spare);
    BEGIN
        {_OVER.strip()}
        IF NOT spare THEN
            PERFORM notifier_require_day(parent, day);
        END IF;
        EXECUTE format('DROP TABLE %I.%I', current_schema(), name);
    END $$
"""
_EXCHANGE = f"""
    CREATE FUNCTION notifier_exchange_day(parent text, day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE name text := notifier_require_day(parent, day);
    BEGIN
        {_OVER.strip()}
        EXECUTE format('DROP TABLE %I.%I', current_schema(), name);
        EXECUTE format('ALTER TABLE %1$I.%2$I RENAME TO %3$I', current_schema(), name || '_kept', name);
        PERFORM notifier_attach_day(parent, day);
    END $$
"""
_FUNCTIONS = (
    "notifier_day_name(text, date, boolean)",
    "notifier_require_day(text, date)",
    "notifier_create_day(text, date, boolean)",
    "notifier_attach_day(text, date)",
    "notifier_drop_day(text, date, boolean)",
    "notifier_exchange_day(text, date)",
)


def upgrade() -> None:
    """Make them, for nobody but their owner; migrations grant them to who needs them."""
    for statement in (_CHECKED, _REQUIRED, _CREATE, _ATTACH, _DROP, _EXCHANGE):
        op.execute(statement)
    for function in _FUNCTIONS:
        op.execute(
            f"DO $$ BEGIN EXECUTE format("
            f"'ALTER FUNCTION {function} SET search_path = %I, pg_temp', current_schema()); END $$"
        )
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")


def downgrade() -> None:
    """Remove them."""
    for function in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION {function}")
