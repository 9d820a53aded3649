"""A function that finds rows by one text in any of their fields, with plans that are kept for the life of a session.

To plan over all days of a table takes some milliseconds, and to read the few rows that have a text takes none. So the
plans are made once, for any value (`plan_cache_mode`), and with indexes alone (`enable_seqscan`): a day that is empty
when the plan is made may be full when it is used. Before Postgres 18 a plan that cannot do without a sequential scan
counts as very expensive then, and would be compiled anew each time (`jit`). Each field is read up to a fixed number of
rows: of a number that is not known, Postgres would expect a tenth of the table.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0030"
down_revision = "0029"

#: The most rows of a field: more than are ever shown.
_MOST = 101

_SEARCH = f"""
    CREATE FUNCTION notifier_search(
        sought text, sought_user text, sought_id uuid, made uuid[], forms text[], emails text[], looked_at integer
    ) RETURNS TABLE (kind text, field text, id uuid)
    LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
    #variable_conflict use_column
    DECLARE form text;
    BEGIN
        -- Fields of which many rows may have the same: their indexes have the newest first.
        FOREACH form IN ARRAY forms LOOP
            RETURN QUERY
            SELECT 'notification', 'recipient', n.id FROM notifications n
            WHERE n.recipient = form ORDER BY n.id DESC LIMIT {_MOST};
        END LOOP;
        IF sought_user IS NOT NULL THEN
            RETURN QUERY
            SELECT 'notification', 'user_id', n.id FROM notifications n
            WHERE n.user_id = sought_user ORDER BY n.id DESC LIMIT {_MOST};
            RETURN QUERY
            SELECT 'event', 'user_id', e.id FROM events e
            WHERE e.user_id = sought_user ORDER BY e.id DESC LIMIT {_MOST};
        END IF;
        IF sought_id IS NOT NULL THEN
            RETURN QUERY
            SELECT 'notification', 'subscription_id', n.id FROM notifications n
            WHERE n.subscription_id = sought_id ORDER BY n.id DESC LIMIT {_MOST};
        END IF;
        RETURN QUERY
        SELECT 'notification', 'message_id', a.notification_id FROM attempts a
        WHERE a.message_id = sought ORDER BY a.id DESC LIMIT {_MOST};

        -- Few rows have the same of these: all are read before they are sorted.
        RETURN QUERY
        WITH alike AS MATERIALIZED (
            SELECT n.id, n.request_id, n.cancellation_key, n.dedup_key, n.event_id FROM notifications n
            WHERE n.request_id = sought OR n.cancellation_key = sought OR n.dedup_key = sought
                OR n.event_id = ANY (array_append(made, sought_id))
        )
        (SELECT 'notification', 'request_id', id FROM alike WHERE request_id = sought ORDER BY id DESC LIMIT {_MOST})
        UNION ALL
        (SELECT 'notification', 'cancellation_key', id FROM alike WHERE cancellation_key = sought
            ORDER BY id DESC LIMIT {_MOST})
        UNION ALL
        (SELECT 'notification', 'dedup_key', id FROM alike WHERE dedup_key = sought ORDER BY id DESC LIMIT {_MOST})
        UNION ALL
        (SELECT 'notification', 'event_id', id FROM alike WHERE event_id = sought_id ORDER BY id DESC LIMIT {_MOST})
        UNION ALL
        (SELECT 'notification', 'idempotency_key', id FROM alike WHERE event_id = ANY (made)
            ORDER BY id DESC LIMIT {_MOST});
        RETURN QUERY
        WITH alike AS MATERIALIZED (
            SELECT e.id, e.request_id, e.cancellation_key FROM events e
            WHERE e.request_id = sought OR e.cancellation_key = sought
        )
        (SELECT 'event', 'request_id', id FROM alike WHERE request_id = sought ORDER BY id DESC LIMIT {_MOST})
        UNION ALL
        (SELECT 'event', 'cancellation_key', id FROM alike WHERE cancellation_key = sought
            ORDER BY id DESC LIMIT {_MOST});

        -- No index has an event's recipient: those that wait for their fan-out are looked through.
        RETURN QUERY
        SELECT 'event', 'recipient', waiting.id FROM (
            SELECT e.id, e.recipient FROM events e WHERE e.due_at IS NOT NULL ORDER BY e.due_at LIMIT looked_at
        ) waiting
        WHERE waiting.recipient = ANY (forms);

        RETURN QUERY
        WITH alike AS MATERIALIZED (
            SELECT u.id FROM users u
            WHERE u.user_id = sought_user OR lower(u.email) = ANY (emails) OR u.phone = ANY (forms)
                OR u.webhook_url = ANY (forms) OR u.chat_url = ANY (forms) OR u.push_tokens && forms
        )
        SELECT 'user', 'any', id FROM alike ORDER BY id DESC LIMIT {_MOST};
    END $$
"""
_FUNCTION = "notifier_search(text, text, uuid, uuid[], text[], text[], integer)"


def upgrade() -> None:
    """Make it, for nobody but its owner; migrations grant it to who needs it."""
    op.execute(_SEARCH)
    op.execute(
        f"DO $$ BEGIN EXECUTE format("
        f"'ALTER FUNCTION {_FUNCTION} SET search_path = %I, pg_temp', current_schema()); END $$"
    )
    op.execute(f"REVOKE ALL ON FUNCTION {_FUNCTION} FROM PUBLIC")


def downgrade() -> None:
    """Remove it."""
    op.execute(f"DROP FUNCTION {_FUNCTION}")
