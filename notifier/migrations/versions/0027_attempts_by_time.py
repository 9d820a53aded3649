"""Finds the attempts of a minute, for the statistics: a BRIN index, which costs an insert nearly nothing."""

from alembic import op

from notifier.migrations.online import create_index_on_partitions

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Make the index."""
    definition = "USING brin (started_at) WITH (autosummarize = on)"
    create_index_on_partitions("attempts_started_at_idx", "attempts", definition)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX attempts_started_at_idx")
