"""People: users, preferences, templates, routes, suppressions, reminders, holds.

Only adds: columns that may be null, tables and indexes; the release before this one goes on working beside it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = """
ALTER TABLE events
    ADD template text,
    ADD target_date timestamptz,
    ADD lead_time text[],
    ADD timezone text,
    ADD dedup_key text,
    ADD dedup_window text,
    ADD cancelled_at timestamptz;
CREATE INDEX events_cancellation_key_idx ON events (cancellation_key) WHERE cancellation_key IS NOT NULL;
CREATE INDEX events_user_id_idx ON events (user_id) WHERE user_id IS NOT NULL;

ALTER TABLE notifications
    ADD origin_id uuid,
    ADD route text,
    ADD template text,
    ADD template_id uuid,
    ADD template_version integer,
    ADD target_date timestamptz,
    ADD lead_time text,
    ADD timezone text,
    ADD dedup_key text,
    ADD dedup_window text,
    ADD next_channels text[],
    ADD siblings uuid[],
    ADD follows uuid,
    ADD rule text,
    ADD deferred_at timestamptz;
CREATE INDEX notifications_user_id_idx ON notifications (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX notifications_cancellation_key_idx ON notifications (cancellation_key) WHERE cancellation_key IS NOT NULL;
CREATE INDEX notifications_held_idx ON notifications (id) WHERE reason = 'held' AND due_at IS NOT NULL;
CREATE INDEX notifications_next_idx ON notifications (id)
    WHERE next_channels IS NOT NULL AND status IN ('failed', 'skipped');
"""

_TABLES = """
CREATE TABLE users (
    id uuid PRIMARY KEY,
    user_id text NOT NULL CONSTRAINT users_user_id_key UNIQUE,
    email text,
    phone text,
    push_tokens text[] NOT NULL,
    webhook_url text,
    chat_url text,
    timezone text,
    locale text,
    attributes json NOT NULL,
    preferences jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE suppressions (
    id uuid PRIMARY KEY,
    channel text NOT NULL,
    address text NOT NULL,
    folded text NOT NULL,
    reason text NOT NULL,
    until timestamptz,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX suppressions_address_key ON suppressions (channel, folded);

CREATE TABLE opt_outs (
    channel text NOT NULL,
    address_hash bytea NOT NULL,
    category text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (channel, address_hash, category)
);

CREATE TABLE dedup_keys (
    channel text NOT NULL,
    address text NOT NULL,
    key text NOT NULL,
    notification_id uuid NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (channel, address, key)
);
CREATE INDEX dedup_keys_until_idx ON dedup_keys (until);

CREATE TABLE templates (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    channel text NOT NULL,
    locale text NOT NULL,
    version integer NOT NULL,
    subject text,
    text text,
    html text,
    sender text,
    reply_to text,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX templates_version_key ON templates (name, channel, locale, version);

CREATE TABLE routes (
    id uuid PRIMARY KEY,
    name text NOT NULL CONSTRAINT routes_name_key UNIQUE,
    event_type text NOT NULL,
    definition json NOT NULL,
    enabled boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE holds (
    id uuid PRIMARY KEY,
    target text NOT NULL CONSTRAINT holds_target_key UNIQUE,
    held_by text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE signing_keys (
    purpose text PRIMARY KEY,
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL
);
"""

# 244 random bits from the database's own generator. It signs links that live longer than any process's settings.
_SIGNING_KEY = """
INSERT INTO signing_keys (purpose, secret, created_at)
VALUES ('unsubscribe', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), now())
"""


def upgrade() -> None:
    """Add columns, tables and the key that signs unsubscribe links."""
    op.execute(_COLUMNS)
    op.execute(_TABLES)
    op.execute(_SIGNING_KEY)


def downgrade() -> None:
    """Remove them, and what they hold."""
    op.execute("DROP TABLE signing_keys, holds, routes, templates, dedup_keys, opt_outs, suppressions, users")
    op.execute("""
        DROP INDEX notifications_held_idx, notifications_next_idx, notifications_cancellation_key_idx,
            notifications_user_id_idx, events_cancellation_key_idx, events_user_id_idx;
        ALTER TABLE notifications DROP origin_id, DROP route, DROP template, DROP template_id, DROP template_version,
            DROP target_date, DROP lead_time, DROP timezone, DROP dedup_key, DROP dedup_window, DROP next_channels,
            DROP siblings, DROP follows, DROP rule, DROP deferred_at;
        ALTER TABLE events DROP template, DROP target_date, DROP lead_time, DROP timezone, DROP dedup_key,
            DROP dedup_window, DROP cancelled_at;
    """)
