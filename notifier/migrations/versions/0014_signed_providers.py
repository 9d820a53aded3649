"""Workers sign which providers they can send by, so that the exporter needs no provider's credentials.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE heartbeats ADD providers text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE heartbeats DROP providers")
