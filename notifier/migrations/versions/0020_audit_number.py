"""Finds lines of the audit log by their place in its chain."""

from alembic import op

from notifier.migrations.online import create_index

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the index."""
    create_index("audit_number_idx", "audit", "(number)")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX audit_number_idx")
