"""The claim whose lease has ended once, and whose worker is asked whether it still holds the row.

Only adds.
"""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE notifications ADD silent_claim integer")


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE notifications DROP silent_claim")
