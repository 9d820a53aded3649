"""Keys that expire, are rotated and limited; and who did what.

Only adds: the release before this one goes on working beside it, and takes a key's newest secret alone, for ever.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

_TABLES = """
ALTER TABLE api_keys
    ADD expires_at timestamptz,
    ADD rate integer,
    ADD last_used_at timestamptz,
    ADD previous_hash bytea,
    ADD previous_until timestamptz;

-- What operators and keys of scope admin did. Written beside the act, never changed.
CREATE TABLE audit (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target text,
    outcome text NOT NULL,
    request_id text
);
CREATE INDEX audit_actor_idx ON audit (actor, id);
"""


def upgrade() -> None:
    """Add columns and a table."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Remove them, and what they hold."""
    op.execute("""
        DROP TABLE audit;
        ALTER TABLE api_keys DROP expires_at, DROP rate, DROP last_used_at, DROP previous_hash, DROP previous_until;
    """)
