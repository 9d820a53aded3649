"""Keeps what a notification was before it was sent again, and counts what a recovery had to leave alone.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the table and the columns."""
    op.execute("""
        CREATE TABLE resends (
            id uuid NOT NULL CONSTRAINT resends_pkey PRIMARY KEY,
            notification_id uuid NOT NULL,
            how text NOT NULL,
            asked_by text NOT NULL,
            asked_at timestamp with time zone NOT NULL,
            status text NOT NULL,
            reason text,
            explanation text,
            sent_at timestamp with time zone,
            delivered_at timestamp with time zone,
            attempts integer NOT NULL
        )
    """)
    op.execute("CREATE INDEX resends_notification_id_idx ON resends (notification_id)")
    op.execute("""
        ALTER TABLE recoveries ADD asked_by text, ADD refused integer NOT NULL DEFAULT 0, ADD refused_reasons jsonb
    """)


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE recoveries DROP asked_by, DROP refused, DROP refused_reasons")
    op.execute("DROP TABLE resends")
