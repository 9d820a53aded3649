"""Subscriptions: webhooks to receivers of their own, and how their endpoints fare.

Only adds: the release before this one goes on working beside it.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

_TABLES = """
CREATE TABLE subscriptions (
    id uuid PRIMARY KEY,
    url text NOT NULL,
    event_types text[] NOT NULL,
    filter text,
    description text,
    headers json NOT NULL,
    rate_limit_per_second double precision,
    enabled boolean NOT NULL,
    disabled_reason text,
    secret bytea NOT NULL,
    previous_secret bytea,
    previous_secret_until timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE INDEX subscriptions_event_types_idx ON subscriptions USING gin (event_types);

-- One row: grows with every change of what may listen, so that whoever remembers it knows when to read again.
CREATE TABLE listeners (
    version bigint PRIMARY KEY
);
INSERT INTO listeners (version) VALUES (1);

CREATE TABLE endpoints (
    id uuid PRIMARY KEY,
    failing_since timestamptz,
    failures integer NOT NULL DEFAULT 0,
    open_until timestamptz,
    open_for double precision,
    probing boolean NOT NULL DEFAULT false,
    slow_until timestamptz,
    warned_at timestamptz,
    next_slot timestamptz,
    waited_for boolean NOT NULL DEFAULT false,
    looked_at timestamptz
);

CREATE INDEX endpoints_waited_for_idx ON endpoints (looked_at) WHERE waited_for;

CREATE TABLE recoveries (
    id uuid PRIMARY KEY,
    subscription_id uuid NOT NULL,
    since timestamptz NOT NULL,
    place uuid NOT NULL,
    total integer NOT NULL,
    recovered integer NOT NULL,
    created_at timestamptz NOT NULL,
    worked_at timestamptz,
    finished_at timestamptz
);
CREATE INDEX recoveries_subscription_id_idx ON recoveries (subscription_id, id);
CREATE INDEX recoveries_unfinished_idx ON recoveries (worked_at) WHERE finished_at IS NULL;

ALTER TABLE notifications ADD subscription_id uuid;
CREATE INDEX notifications_subscription_id_idx ON notifications (subscription_id, id)
    WHERE subscription_id IS NOT NULL;
CREATE INDEX notifications_missed_idx ON notifications (subscription_id, id)
    WHERE subscription_id IS NOT NULL AND status IN ('failed', 'skipped');
CREATE INDEX notifications_receiver_idx ON notifications (subscription_id, reason, due_at)
    WHERE reason IN ('throttled', 'breaker_open') AND due_at IS NOT NULL;

ALTER TABLE events ADD fan_out_after uuid;

ALTER TABLE attempts ADD request_headers json, ADD response_headers json, ADD timing json;
"""


def upgrade() -> None:
    """Add tables and columns."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Remove them, and what they hold."""
    op.execute("""
        ALTER TABLE attempts DROP request_headers, DROP response_headers, DROP timing;
        ALTER TABLE events DROP fan_out_after;
        DROP INDEX notifications_subscription_id_idx, notifications_missed_idx, notifications_receiver_idx;
        ALTER TABLE notifications DROP subscription_id;
        DROP TABLE recoveries, endpoints, listeners, subscriptions;
    """)
