"""The party at fault for an attempt that was not accepted.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE attempts ADD fault text")


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE attempts DROP fault")
