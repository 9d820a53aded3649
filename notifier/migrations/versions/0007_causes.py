"""Which request brought an event or a notification about, and the trace that it belongs to.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns."""
    for table in ("events", "notifications"):
        op.execute(f"ALTER TABLE {table} ADD request_id text, ADD traceparent text")


def downgrade() -> None:
    """Remove them."""
    for table in ("events", "notifications"):
        op.execute(f"ALTER TABLE {table} DROP request_id, DROP traceparent")
