"""Keeps by which rule a notification was put off or stopped, at which local time and in which zone.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE notifications ADD judged json")


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE notifications DROP judged")
