"""Tables of statistics: counts by minute and by hour, and how far they have come.

Only adds.
"""

from alembic import op

revision = "0026"
down_revision = "0025"

_FIGURES = """
    dimension text NOT NULL,
    moment timestamptz NOT NULL,
    channel text NOT NULL,
    name text NOT NULL,
    accepted bigint NOT NULL,
    sent bigint NOT NULL,
    rejected bigint NOT NULL,
    unsent bigint NOT NULL,
    ambiguous bigint NOT NULL,
    retries bigint NOT NULL,
    delivered bigint NOT NULL,
    failed bigint NOT NULL,
    call_buckets bigint[] NOT NULL,
    wait_buckets bigint[] NOT NULL,
    PRIMARY KEY (dimension, moment, channel, name)
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(f"CREATE TABLE stats_minutes ({_FIGURES})")
    op.execute(f"CREATE TABLE stats_hours ({_FIGURES})")
    op.execute("CREATE TABLE stats_progress (name text PRIMARY KEY, until timestamptz NOT NULL)")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE stats_progress")
    op.execute("DROP TABLE stats_hours")
    op.execute("DROP TABLE stats_minutes")
