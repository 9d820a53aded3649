"""Sources that several API keys share, and deduplication among all sources that ask for it.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the columns."""
    op.execute("ALTER TABLE events ADD dedup_scope text")
    op.execute("ALTER TABLE notifications ADD dedup_scope text")
    op.execute("ALTER TABLE dedup_keys ADD scope text")
    op.execute("ALTER TABLE recoveries ADD source text")
    op.execute("ALTER TABLE api_keys ADD source text")


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE events DROP dedup_scope")
    op.execute("ALTER TABLE notifications DROP dedup_scope")
    op.execute("ALTER TABLE dedup_keys DROP scope")
    op.execute("ALTER TABLE recoveries DROP source")
    op.execute("ALTER TABLE api_keys DROP source")
