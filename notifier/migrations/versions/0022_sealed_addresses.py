"""The key that addresses with credentials are sealed with, in an installation that begins.

One that a release before has filled gets it from `manage.py rekey`, once no process of that release runs any more.
"""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Make the key where nothing was kept yet: 32 bytes, of two random UUIDs (of 122 random bits each)."""
    op.execute("""
        INSERT INTO signing_keys (purpose, secret, created_at)
        SELECT 'addresses', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), now()
        WHERE NOT EXISTS (SELECT FROM events) AND NOT EXISTS (SELECT FROM notifications)
            AND NOT EXISTS (SELECT FROM users) AND NOT EXISTS (SELECT FROM suppressions)
        ON CONFLICT DO NOTHING
    """)


def downgrade() -> None:
    """Leave it: what it has sealed could not be opened again."""
