"""Acts on many dead letters, with their progress.

Only adds: the release before this one goes on working beside it, and leaves acts alone.
"""

from alembic import op

revision = "0028"
down_revision = "0027"

_TABLE = """
    CREATE TABLE dead_letter_acts (
        id uuid PRIMARY KEY,
        act text NOT NULL,
        filters jsonb NOT NULL,
        source text,
        place uuid NOT NULL,
        total integer,
        done integer NOT NULL DEFAULT 0,
        refused integer NOT NULL DEFAULT 0,
        refused_reasons jsonb,
        asked_by text NOT NULL,
        created_at timestamptz NOT NULL,
        worked_at timestamptz,
        finished_at timestamptz,
        stopped_at timestamptz
    )
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(_TABLE)
    op.execute("""
        CREATE INDEX dead_letter_acts_unfinished_idx ON dead_letter_acts (worked_at)
        WHERE finished_at IS NULL AND stopped_at IS NULL
    """)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE dead_letter_acts")
