"""An index of the secrets that rotated keys had before: every request with a key that is not remembered asks for it."""

from alembic import op

from notifier.migrations.online import create_index

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the index."""
    create_index("api_keys_previous_hash_idx", "api_keys", "(previous_hash)")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX api_keys_previous_hash_idx")
