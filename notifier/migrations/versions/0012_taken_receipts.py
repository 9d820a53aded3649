"""Keeps what providers have said of a notification, also once it was applied.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the table."""
    op.execute("""
        CREATE TABLE taken_receipts (
            id uuid NOT NULL CONSTRAINT taken_receipts_pkey PRIMARY KEY,
            notification_id uuid NOT NULL,
            provider text NOT NULL,
            kind text NOT NULL,
            message_id text,
            error text,
            happened_at timestamp with time zone NOT NULL,
            taken_at timestamp with time zone NOT NULL,
            applied boolean NOT NULL
        )
    """)
    op.execute("CREATE INDEX taken_receipts_notification_id_idx ON taken_receipts (notification_id)")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE taken_receipts")
