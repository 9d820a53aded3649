"""A function that tells the clock which parts of its tick have work, with a plan that a session keeps.

The clock looks once a second. To plan three of its looks over all days took most of what an idle system costs Postgres.
A look may name a part that then finds nothing, but misses none. See 0030 for the settings.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0032"
down_revision = "0031"

_WORK = """
    CREATE FUNCTION notifier_clock_work(queues text[]) RETURNS TABLE (part text)
    LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
    BEGIN
        RETURN QUERY
        SELECT 'holds' WHERE EXISTS (
            SELECT FROM notifications WHERE reason = 'held' AND due_at > now() AND status = 'scheduled')
        UNION ALL SELECT 'next_channels' WHERE EXISTS (
            SELECT FROM notifications WHERE next_channels IS NOT NULL AND status IN ('failed', 'skipped'))
        UNION ALL SELECT 'endpoints' WHERE EXISTS (SELECT FROM endpoints WHERE waited_for)
        UNION ALL SELECT 'providers' WHERE EXISTS (SELECT FROM providers WHERE waited_for)
        UNION ALL SELECT 'lines' WHERE EXISTS (SELECT FROM providers WHERE line_until > now())
        UNION ALL SELECT 'recoveries' WHERE EXISTS (SELECT FROM recoveries WHERE finished_at IS NULL)
        UNION ALL SELECT 'dead_letter_acts' WHERE EXISTS (
            SELECT FROM dead_letter_acts WHERE finished_at IS NULL AND stopped_at IS NULL)
        UNION ALL SELECT 'erasures' WHERE EXISTS (SELECT FROM erasures WHERE due_at <= now())
        UNION ALL SELECT 'receipts' WHERE EXISTS (SELECT FROM receipts WHERE due_at <= now())
        UNION ALL SELECT 'queue:' || queue FROM unnest(queues) AS wanted(queue)
        WHERE CASE WHEN queue = 'fan_out' THEN EXISTS (SELECT FROM events WHERE due_at <= now())
            ELSE EXISTS (SELECT FROM notifications n WHERE n.queue = wanted.queue AND n.due_at <= now()) END;
    END $$
"""
_FUNCTION = "notifier_clock_work(text[])"


def upgrade() -> None:
    """Make it, for nobody but its owner; migrations grant it to who needs it."""
    op.execute(_WORK)
    op.execute(
        f"DO $$ BEGIN EXECUTE format("
        f"'ALTER FUNCTION {_FUNCTION} SET search_path = %I, pg_temp', current_schema()); END $$"
    )
    op.execute(f"REVOKE ALL ON FUNCTION {_FUNCTION} FROM PUBLIC")


def downgrade() -> None:
    """Remove it."""
    op.execute(f"DROP FUNCTION {_FUNCTION}")
