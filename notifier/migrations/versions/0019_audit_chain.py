"""Lines of the audit log say where a request came from, and stand in a chain of keyed hashes.

Only adds: the release before this one goes on working beside it, and writes lines that are in no chain.
"""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the columns, and the chain's ends."""
    op.execute("""
        ALTER TABLE audit ADD peer text, ADD times integer NOT NULL DEFAULT 1, ADD number bigint, ADD hash bytea
    """)
    op.execute("""
        CREATE TABLE audit_chain (
            id integer PRIMARY KEY CHECK (id = 1),
            number bigint NOT NULL DEFAULT 0,
            hash bytea NOT NULL DEFAULT '',
            deleted_number bigint NOT NULL DEFAULT 0,
            deleted_hash bytea NOT NULL DEFAULT '',
            deleted_seal bytea
        )
    """)
    op.execute("INSERT INTO audit_chain (id) VALUES (1)")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE audit_chain")
    op.execute("ALTER TABLE audit DROP peer, DROP times, DROP number, DROP hash")
