"""Adds what a deferred notification waits for, and `explanation`, which takes the place of `rule`.

Only adds: the release before this one goes on working beside it. That release reads and writes `rule` alone, so the
code writes both columns, and a trigger copies what that release writes. Without it, a sentence that the release before
replaced or removed would stay in `explanation`. Statements that do not set `rule` never reach the trigger. A later
release drops it with `rule`.
"""

from alembic import op

revision = "0024"
down_revision = "0023"

_FUNCTION = "notifier_explanation_follows_rule()"
_FOLLOW = f"""
    CREATE FUNCTION {_FUNCTION} RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.explanation := NEW.rule;
        IF NEW.reason IS DISTINCT FROM OLD.reason THEN
            NEW.waits_for := NULL;
        END IF;
        RETURN NEW;
    END $$
"""
_TRIGGER = f"""
    CREATE TRIGGER explanation_follows_rule BEFORE UPDATE OF rule ON notifications FOR EACH ROW
    WHEN (NEW.rule IS DISTINCT FROM OLD.rule AND NEW.explanation IS NOT DISTINCT FROM OLD.explanation)
    EXECUTE FUNCTION {_FUNCTION}
"""


def upgrade() -> None:
    """Add the columns, and have one follow the other."""
    op.execute("ALTER TABLE notifications ADD waits_for text[], ADD explanation text")
    op.execute(_FOLLOW)
    op.execute(
        f"DO $$ BEGIN EXECUTE format("
        f"'ALTER FUNCTION {_FUNCTION} SET search_path = %I, pg_temp', current_schema()); END $$"
    )
    op.execute(f"REVOKE ALL ON FUNCTION {_FUNCTION} FROM PUBLIC")
    op.execute(_TRIGGER)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TRIGGER explanation_follows_rule ON notifications")
    op.execute(f"DROP FUNCTION {_FUNCTION}")
    op.execute("ALTER TABLE notifications DROP waits_for, DROP explanation")
