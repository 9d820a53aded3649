"""The main path: events, notifications, attempts, dead letters, keys, outbox, heartbeats."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE events (
    id uuid NOT NULL,
    event_type text NOT NULL,
    source text NOT NULL,
    status text NOT NULL,
    payload json NOT NULL,
    recipient text,
    channel text,
    user_id text,
    category text,
    critical boolean NOT NULL,
    priority text NOT NULL,
    send_at timestamptz,
    expires_at timestamptz,
    cancellation_key text,
    idempotency_key text,
    occurred_at timestamptz,
    created_at timestamptz NOT NULL,
    due_at timestamptz,
    handovers integer NOT NULL DEFAULT 0,
    error text,
    PRIMARY KEY (id),
    CONSTRAINT events_live_rows_are_due_check CHECK ((due_at IS NOT NULL) = (status = 'accepted'))
) PARTITION BY RANGE (id);
CREATE INDEX events_due_idx ON events (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE notifications (
    id uuid NOT NULL,
    event_id uuid,
    event_type text,
    source text NOT NULL,
    user_id text,
    recipient text,
    channel text,
    category text,
    critical boolean NOT NULL,
    priority text NOT NULL,
    content json,
    queue text NOT NULL,
    status text NOT NULL,
    reason text,
    due_at timestamptz,
    send_at timestamptz,
    expires_at timestamptz,
    cancellation_key text,
    claims integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    tries integer NOT NULL DEFAULT 0,
    lost integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    sent_at timestamptz,
    delivered_at timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT notifications_live_rows_are_due_check
        CHECK ((due_at IS NOT NULL) = (status IN ('scheduled', 'queued', 'sending', 'retrying')))
) PARTITION BY RANGE (id);
CREATE INDEX notifications_due_idx ON notifications (queue, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX notifications_event_id_idx ON notifications (event_id);
CREATE INDEX notifications_recipient_idx ON notifications (recipient);

CREATE TABLE attempts (
    id uuid NOT NULL,
    notification_id uuid NOT NULL,
    number integer NOT NULL,
    provider text,
    outcome text NOT NULL,
    status_code integer,
    error text,
    response_excerpt text,
    duration_ms double precision,
    started_at timestamptz,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX attempts_notification_id_idx ON attempts (notification_id);

CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE TABLE notifications_default PARTITION OF notifications DEFAULT;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

CREATE TABLE idempotency_keys (
    source text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    ids uuid[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (source, key)
);
CREATE INDEX idempotency_keys_expires_at_idx ON idempotency_keys (expires_at);

CREATE TABLE dead_letters (
    id uuid PRIMARY KEY,
    notification_id uuid,
    event_id uuid,
    claims integer NOT NULL,
    channel text,
    event_type text,
    reason text NOT NULL,
    error text,
    attempts integer NOT NULL,
    created_at timestamptz NOT NULL,
    requeued_at timestamptz
);
CREATE UNIQUE INDEX dead_letters_notification_key ON dead_letters (notification_id, claims)
    WHERE notification_id IS NOT NULL;
CREATE UNIQUE INDEX dead_letters_event_key ON dead_letters (event_id, claims) WHERE notification_id IS NULL;

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    name text NOT NULL CONSTRAINT api_keys_name_key UNIQUE,
    key_hash bytea NOT NULL CONSTRAINT api_keys_key_hash_key UNIQUE,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notification_id uuid NOT NULL,
    channel text NOT NULL,
    recipient text NOT NULL,
    subject text,
    text text NOT NULL,
    html text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE heartbeats (
    name text PRIMARY KEY,
    kind text NOT NULL,
    queues text[] NOT NULL,
    seen_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    """Make the tables. Days are partitioned by notifier.storage.partitions, after the migration."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Remove every table, and all data with them."""
    op.execute(
        "DROP TABLE heartbeats, outbox, api_keys, dead_letters, idempotency_keys, attempts, notifications, events"
    )
