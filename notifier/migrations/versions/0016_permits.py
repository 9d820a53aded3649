"""The channels and event types that an API key may use, and the scope `critical`, which keys that exist keep.

Only adds: the release before this one goes on working beside it, and takes a scope that it does not know for nothing.
"""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the columns, and the scope to every key that may send."""
    op.execute("ALTER TABLE api_keys ADD channels text[]")
    op.execute("ALTER TABLE api_keys ADD event_types text[]")
    op.execute("""
        UPDATE api_keys SET scopes = array_append(scopes, 'critical')
        WHERE 'send' = ANY(scopes) AND NOT 'critical' = ANY(scopes)
    """)


def downgrade() -> None:
    """Remove them."""
    op.execute("UPDATE api_keys SET scopes = array_remove(scopes, 'critical')")
    op.execute("ALTER TABLE api_keys DROP channels")
    op.execute("ALTER TABLE api_keys DROP event_types")
