"""The credentials in subscriptions' URLs and headers, encrypted.

Only adds. Workers of the release before do not know the columns: restart workers before the API. Going back loses what
is sealed: the URLs and headers are left with `***`.
"""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the columns."""
    op.execute("ALTER TABLE subscriptions ADD sealed_url bytea, ADD sealed_headers bytea")


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE subscriptions DROP sealed_url, DROP sealed_headers")
