"""Keeps whose traces are being erased, and how far that is.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the table."""
    op.execute("""
        CREATE TABLE erasures (
            id uuid NOT NULL CONSTRAINT erasures_pkey PRIMARY KEY,
            asked_by text NOT NULL,
            created_at timestamp with time zone NOT NULL,
            named bytea,
            round integer NOT NULL,
            stage text,
            place text[],
            erased integer NOT NULL,
            left_in text[] NOT NULL,
            due_at timestamp with time zone,
            finished_at timestamp with time zone
        )
    """)
    op.execute("CREATE INDEX erasures_due_idx ON erasures (due_at) WHERE due_at IS NOT NULL")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE erasures")
