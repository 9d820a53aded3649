"""The answers of a subscription's receiver that are final.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE subscriptions ADD permanent_statuses integer[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE subscriptions DROP permanent_statuses")
