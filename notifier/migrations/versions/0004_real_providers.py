"""Several providers a channel: how they fare, what they say afterwards, and what goes along with a message.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

_TABLES = """
-- How providers fare. One that does well, and has no rate, has no row.
CREATE TABLE providers (
    channel text NOT NULL,
    name text NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    failed_at timestamptz,
    error text,
    open_until timestamptz,
    open_for double precision,
    probing_until timestamptz,
    next_slot timestamptz,
    line_until timestamptz,
    waited_for boolean NOT NULL DEFAULT false,
    PRIMARY KEY (channel, name)
);

-- Receipts that cannot be applied yet: they came before our own commit, or while it is being sent again.
CREATE TABLE receipts (
    id uuid PRIMARY KEY,
    notification_id uuid NOT NULL,
    provider text NOT NULL,
    kind text NOT NULL,
    message_id text,
    error text,
    happened_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    keep_until timestamptz NOT NULL
);
CREATE INDEX receipts_due_at_idx ON receipts (due_at);

CREATE TABLE attachments (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    content_type text NOT NULL,
    content bytea NOT NULL
) PARTITION BY RANGE (id);
CREATE TABLE attachments_default PARTITION OF attachments DEFAULT;

ALTER TABLE events ADD on_ambiguous text;
ALTER TABLE notifications ADD on_ambiguous text;
ALTER TABLE attempts ADD message_id text;
"""


def upgrade() -> None:
    """Add tables and columns."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Remove them, and what they hold."""
    op.execute("""
        ALTER TABLE attempts DROP message_id;
        ALTER TABLE notifications DROP on_ambiguous;
        ALTER TABLE events DROP on_ambiguous;
        DROP TABLE attachments, receipts, providers;
    """)
