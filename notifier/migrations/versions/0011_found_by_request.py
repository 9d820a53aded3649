"""Finds events and notifications by their request, and notifications by what the provider calls the message."""

from alembic import op

from notifier.migrations.online import create_index_on_partitions

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the indexes."""
    for table in ("events", "notifications"):
        create_index_on_partitions(f"{table}_request_id_idx", table, "(request_id) WHERE request_id IS NOT NULL")
    create_index_on_partitions("attempts_message_id_idx", "attempts", "(message_id) WHERE message_id IS NOT NULL")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP INDEX events_request_id_idx, notifications_request_id_idx, attempts_message_id_idx")
