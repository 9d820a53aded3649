"""Every setting, parsed once from the environment. Nothing else reads it.

A value that does not parse stops the start with one line that names the setting. A name that begins with NOTIFIER_ and
is not listed here stops nothing, since another release may know it; `unknown_settings` tells of it. Durations are
seconds or ISO 8601 (`90`, `PT90S`, `P3D`), booleans `0|1|true|false`, lists comma-separated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from zoneinfo import ZoneInfo

from config import parsers
from config.allowed_hosts import AllowedHosts, Host
from config.parsers import Network
from notifier.vocabulary.states import Channel
from notifier.vocabulary.time_zones import UTC_ZONE

if TYPE_CHECKING:
    from limits import RateLimitItem

    from notifier.notifications.retries import RetryPolicy
    from notifier.providers.vendors.imap_mailbox import Address

#: Written by `manage.py up` into its data folder, so that other commands find the running stack.
STACK_FILE: Final = "stack.json"


class SettingsError(Exception):
    """A setting is missing, unknown or malformed. The message names it, in one line."""


def no_database() -> SettingsError:
    """Return the error of a process that needs Postgres and has no DATABASE_URL."""
    return SettingsError("DATABASE_URL is not set, and no stack started by 'manage.py up' is running here")


def _setting(env: str, parse: Callable[[str], Any], default: Any = MISSING) -> Any:  # noqa: ANN401 -- of any type
    metadata = {"env": env, "parse": parse}
    return field(metadata=metadata) if default is MISSING else field(metadata=metadata, default=default)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """Settings of one channel."""

    #: DSNs of its providers, the preferred one first; empty where the channel cannot be used.
    providers: tuple[str, ...]
    #: The longest that one message may take in all.
    timeout: timedelta
    #: Limits on what one recipient gets; empty for no limit.
    recipient_limits: tuple[RateLimitItem, ...]
    #: The fields of its RetryPolicy, in their order.
    retries: tuple[int, int, int, bool]

    @property
    def retry_policy(self) -> RetryPolicy:
        """Return how failures are retried."""
        # Here, since it imports SQLAlchemy, and processes that need the broker alone do without.
        from notifier.notifications.retries import RetryPolicy  # noqa: PLC0415 -- see above

        return RetryPolicy(*self.retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Notifier's settings. The comment over each is its documentation: `make settings` writes docs/settings.md."""

    # --- Postgres, Redis and the broker

    #: Postgres, the truth: `postgresql://user:password@host:5432/notifier`. Required, but for beat and Flower.
    database_url: str | None = _setting("DATABASE_URL", parsers.url("postgresql", "postgres"), None)
    #: The same database as the role that owns the tables, for `manage.py migrate`. Unset: the role of DATABASE_URL owns
    #: them. docs/production.md#a-role-of-their-own-for-processes
    migration_database_url: str | None = _setting(
        "NOTIFIER_MIGRATION_DATABASE_URL", parsers.url("postgresql", "postgres"), None
    )
    #: The same as a role that may make roles, for `manage.py roles` and `reader`. Unset: the one above.
    admin_database_url: str | None = _setting(
        "NOTIFIER_ADMIN_DATABASE_URL", parsers.url("postgresql", "postgres"), None
    )
    #: Redis, the doorbell: `redis://:password@host:6379/0`, `rediss://…` with TLS, or sentinels that know where it is:
    #: `sentinel://:password@host:26379,host:26379/0`. docs/production.md has recipes.
    redis_url: str = _setting(
        "REDIS_URL", parsers.url("redis", "rediss", "unix", "sentinel"), "redis://127.0.0.1:6379/0"
    )
    #: Celery's broker, where it is not REDIS_URL: `amqp://user:password@host:5672/vhost` for RabbitMQ, `amqps://…`
    #: with TLS, or one of REDIS_URL's forms.
    broker_url: str | None = _setting(
        "BROKER_URL", parsers.url("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp", "redis+socket"), None
    )
    #: The name by which sentinels know the Redis that is meant. Needed with `sentinel://`.
    redis_master: str | None = _setting("NOTIFIER_REDIS_MASTER", parsers.text, None)
    #: The password of the sentinels themselves, where they want one; the one in the URL is that of Redis.
    sentinel_password: str | None = _setting("NOTIFIER_SENTINEL_PASSWORD", parsers.text, None)

    # --- Access, and the sizes of requests

    #: `required`: every route but the open ones wants an API key. `off`: none does (the embedded stack's default).
    auth: str = _setting("NOTIFIER_AUTH", parsers.one_of("required", "off"), "required")
    #: Hosts by which the API may be addressed where it asks for no key, besides that of NOTIFIER_PUBLIC_URL and the
    #: names of this machine itself: `notifier.test, notifier.test:8443`. Without a port any port.
    allowed_hosts: tuple[Host, ...] = _setting("NOTIFIER_ALLOWED_HOSTS", parsers.hosts, ())
    #: How long an idempotency key is remembered.
    idempotency_ttl: timedelta = _setting("NOTIFIER_IDEMPOTENCY_TTL", parsers.duration(1), timedelta(hours=24))
    #: The largest event or notification, in bytes of JSON.
    max_event_bytes: int = _setting("NOTIFIER_MAX_EVENT_BYTES", parsers.integer(1024), 256 * 1024)
    #: The most that one notification's attachments may have in all, in bytes.
    max_attachment_bytes: int = _setting(
        "NOTIFIER_MAX_ATTACHMENT_BYTES", parsers.integer(0, 25 * 1024 * 1024), 5 * 1024 * 1024
    )
    #: The largest batch, in bytes.
    max_batch_bytes: int = _setting("NOTIFIER_MAX_BATCH_BYTES", parsers.integer(1024), 8 * 1024 * 1024)
    #: The most events in a batch.
    max_batch_events: int = _setting("NOTIFIER_MAX_BATCH_EVENTS", parsers.integer(1, 10_000), 1000)
    #: How long a POST may wait for Postgres before it answers 503; never longer than 7 s.
    intake_timeout: timedelta = _setting("NOTIFIER_INTAKE_TIMEOUT", parsers.duration(0.1), timedelta(seconds=7))

    # --- The console

    #: Whether the API process serves the console, pages for operators and support under `/console`. docs/console.md
    console: bool = _setting("NOTIFIER_CONSOLE", parsers.boolean, True)
    #: How long after signing in a person is signed out of the console.
    console_session: timedelta = _setting("NOTIFIER_CONSOLE_SESSION", parsers.duration(60), timedelta(hours=8))
    #: The header in which a proxy in front names the person it has signed in (OIDC), such as `X-Auth-Request-Email`.
    #: It is believed from NOTIFIER_TRUSTED_PROXIES alone. Unset: people sign in by an API key.
    console_user_header: str | None = _setting("NOTIFIER_CONSOLE_USER_HEADER", parsers.header_name, None)
    #: The people in that header who may act; all others look: `ada@example.com, grace@example.com`.
    console_admins: tuple[str, ...] = _setting("NOTIFIER_CONSOLE_ADMINS", parsers.names, ())

    #: Flower as operators reach it: the console links to it. Unset: no link.
    flower_url: str | None = _setting("NOTIFIER_FLOWER_URL", parsers.url("http", "https"), None)
    #: Grafana as operators reach it: the console links to it. Unset: no link.
    grafana_url: str | None = _setting("NOTIFIER_GRAFANA_URL", parsers.url("http", "https"), None)

    # --- Connections of the API

    #: Networks of proxies in front of the API, whose `X-Forwarded-For` says who calls: `10.0.0.0/8, fd00::/8`.
    trusted_proxies: tuple[Network, ...] = _setting("NOTIFIER_TRUSTED_PROXIES", parsers.networks, ())
    #: How long the head of a request may take to come.
    head_timeout: timedelta = _setting("NOTIFIER_HEAD_TIMEOUT", parsers.duration(0.1), timedelta(seconds=10))
    #: How long the body of a request may take to come.
    body_timeout: timedelta = _setting("NOTIFIER_BODY_TIMEOUT", parsers.duration(0.1), timedelta(seconds=30))
    #: The least bytes a second of a body, once it has taken 5 seconds, or a quarter of the timeout.
    body_rate: int = _setting("NOTIFIER_BODY_RATE", parsers.integer(0), 1024)
    #: Bytes of all bodies that one API process holds at once; small ones are taken in beyond it.
    body_memory: int = _setting("NOTIFIER_BODY_MEMORY", parsers.integer(1024 * 1024), 64 * 1024 * 1024)
    #: How long a connection may wait for its next request.
    idle_timeout: timedelta = _setting("NOTIFIER_IDLE_TIMEOUT", parsers.duration(0.1), timedelta(seconds=75))
    #: Connections of one API process; beyond them the ones that wait longest are closed.
    connections: int = _setting("NOTIFIER_CONNECTIONS", parsers.integer(64), 2000)
    #: Connections of one API process from one address (of IPv6, from one /64); trusted proxies and 127.0.0.1 have more.
    connections_per_address: int = _setting("NOTIFIER_CONNECTIONS_PER_ADDRESS", parsers.integer(1), 100)

    # --- Time zone, links, retention and holds

    #: The time zone of people who have none, for quiet hours and reminders: an IANA name.
    timezone: ZoneInfo = _setting("NOTIFIER_TIMEZONE", parsers.zone, UTC_ZONE)
    #: Where links in messages and providers' receipts lead: the API's address as others reach it.
    public_url: str = _setting("NOTIFIER_PUBLIC_URL", parsers.public_url, "http://localhost:8000")
    #: How long quiet hours and the like may put a notification off before it is a dead letter.
    max_age: timedelta = _setting("NOTIFIER_MAX_AGE", parsers.duration(1), timedelta(hours=72))
    #: How long finished notifications, events and attempts are kept, in days of UTC; at least a day.
    retention: timedelta = _setting("NOTIFIER_RETENTION", parsers.duration(86_400), timedelta(days=30))
    #: How long dead letters are kept, and as long as they stand their notifications and events.
    dead_letter_retention: timedelta = _setting(
        "NOTIFIER_DEAD_LETTER_RETENTION", parsers.duration(86_400), timedelta(days=90)
    )
    #: How long lines of the audit log are kept.
    audit_retention: timedelta = _setting("NOTIFIER_AUDIT_RETENTION", parsers.duration(86_400), timedelta(days=400))
    #: Hold everything from the start of each process that sends, until `manage.py release`: for restored backups.
    hold: bool = _setting("NOTIFIER_HOLD", parsers.boolean, False)
    #: Send nothing anywhere, whatever providers are set: the simulator takes every message on every channel.
    sandbox: bool = _setting("NOTIFIER_SANDBOX", parsers.boolean, False)

    # --- Providers, and the sender of email

    #: Where email goes: provider DSNs in order of preference, such as `smtp://user:password@host:587?tls=starttls`.
    #: docs/providers.md lists them.
    email: tuple[str, ...] = _setting("NOTIFIER_EMAIL", parsers.dsns, ())
    #: Where SMS goes. `outbox:` keeps messages in the local outbox.
    sms: tuple[str, ...] = _setting("NOTIFIER_SMS", parsers.dsns, ())
    #: Where push notifications go.
    push: tuple[str, ...] = _setting("NOTIFIER_PUSH", parsers.dsns, ())
    #: Where chat messages go.
    chat: tuple[str, ...] = _setting("NOTIFIER_CHAT", parsers.dsns, ())
    #: The sender of email: `name@domain` or `Name <name@domain>`.
    email_from: str = _setting("NOTIFIER_EMAIL_FROM", parsers.sender, "notifier@localhost")
    #: The senders (`from`) that callers and templates may give: domains, `*.domain` for what is below one, addresses,
    #: or `*` for all. Unset: the domain of NOTIFIER_EMAIL_FROM, whose own address is always allowed.
    email_senders: tuple[str, ...] = _setting("NOTIFIER_EMAIL_SENDERS", parsers.senders, ())
    #: The mailbox that `manage.py bounces` reads: `imaps://user:password@host/INBOX`, or `imap://` with `?tls=starttls`
    #: or `none`; `?move=FOLDER` moves what is read, which is else marked as seen. docs/providers.md#smtp
    bounces: Address | None = _setting("NOTIFIER_BOUNCES", parsers.imap, None)
    # --- Webhooks and secrets

    #: Secrets of webhooks that are addressed directly are derived from it, one for each host: `whsec_` and 24 to 64
    #: bytes in base64. `manage.py webhook-secret HOST` shows a host's. Unset: no such webhooks.
    webhook_secret: str | None = _setting("NOTIFIER_WEBHOOK_SECRET", parsers.webhook_secret, None)
    #: Signs webhooks that are addressed directly besides, the same for all hosts, while receivers move to their own
    #: secrets (docs/receiving-webhooks.md#moving-to-a-secret-for-each-host); `none` ends it. Unset:
    #: NOTIFIER_WEBHOOK_SECRET itself.
    webhook_shared_secret: str | None = _setting("NOTIFIER_WEBHOOK_SHARED_SECRET", parsers.shared_webhook_secret, None)
    #: Encrypts the secrets of subscriptions, the values of their headers and credentials in their URLs, and the key
    #: that seals addresses with credentials in them: Fernet keys (32 bytes in URL-safe base64), the newest first.
    #: Unset: no subscriptions.
    secret_key: tuple[str, ...] = _setting("NOTIFIER_SECRET_KEY", parsers.fernet_keys, ())
    #: A subscription that sees nothing but failures for so long is disabled; at half of it its failing is told.
    subscription_disable_after: timedelta = _setting(
        "NOTIFIER_SUBSCRIPTION_DISABLE_AFTER", parsers.duration(1), timedelta(days=5)
    )
    #: Private networks that webhooks may reach all the same: `10.1.0.0/16, 127.0.0.0/8`.
    webhook_allowed_networks: tuple[Network, ...] = _setting("NOTIFIER_WEBHOOK_ALLOWED_NETWORKS", parsers.networks, ())
    #: The ports that webhooks may reach: `443, 8443`. Unset: all.
    webhook_allowed_ports: tuple[int, ...] = _setting("NOTIFIER_WEBHOOK_ALLOWED_PORTS", parsers.ports, ())

    # --- How long a message may take, and how many one recipient gets

    #: Seconds that one email may take in all.
    email_timeout: timedelta = _setting("NOTIFIER_EMAIL_TIMEOUT", parsers.duration(0.1), timedelta(seconds=30))
    #: Seconds that one SMS may take in all.
    sms_timeout: timedelta = _setting("NOTIFIER_SMS_TIMEOUT", parsers.duration(0.1), timedelta(seconds=15))
    #: Seconds that one push notification may take in all.
    push_timeout: timedelta = _setting("NOTIFIER_PUSH_TIMEOUT", parsers.duration(0.1), timedelta(seconds=15))
    #: Seconds that one chat message may take in all.
    chat_timeout: timedelta = _setting("NOTIFIER_CHAT_TIMEOUT", parsers.duration(0.1), timedelta(seconds=15))
    #: Seconds that one webhook may take in all.
    webhook_timeout: timedelta = _setting("NOTIFIER_WEBHOOK_TIMEOUT", parsers.duration(0.1), timedelta(seconds=30))
    #: How many emails one recipient gets in a time: `5/minute; 50/day`. Critical notifications are not counted.
    #: Unset: no limit. docs/providers.md#not-too-much-for-one-recipient
    email_recipient_limit: tuple[RateLimitItem, ...] = _setting("NOTIFIER_EMAIL_RECIPIENT_LIMIT", parsers.limits, ())
    #: How many SMS one recipient gets in a time.
    sms_recipient_limit: tuple[RateLimitItem, ...] = _setting("NOTIFIER_SMS_RECIPIENT_LIMIT", parsers.limits, ())
    #: How many push notifications one token gets in a time.
    push_recipient_limit: tuple[RateLimitItem, ...] = _setting("NOTIFIER_PUSH_RECIPIENT_LIMIT", parsers.limits, ())
    #: How many messages one chat gets in a time.
    chat_recipient_limit: tuple[RateLimitItem, ...] = _setting("NOTIFIER_CHAT_RECIPIENT_LIMIT", parsers.limits, ())
    #: How long after its claim a batch may begin sends; what did not begin by then is given back. So long a thread may
    #: be busy with low notifications before it looks for high ones.
    sending_window: timedelta = _setting("NOTIFIER_SENDING_WINDOW", parsers.duration(0.1), timedelta(seconds=2))

    # --- Retries, channel by channel

    #: Seconds before the first retry of an email; doubled with each further one.
    email_retry_backoff: int = _setting("NOTIFIER_EMAIL_RETRY_BACKOFF", parsers.whole_seconds, 30)
    #: The longest wait between retries of an email.
    email_retry_backoff_max: int = _setting("NOTIFIER_EMAIL_RETRY_BACKOFF_MAX", parsers.whole_seconds, 3600)
    #: Retries of an email after the first attempt.
    email_max_retries: int = _setting("NOTIFIER_EMAIL_MAX_RETRIES", parsers.integer(0, 1000), 10)
    #: Seconds before the first retry of an SMS.
    sms_retry_backoff: int = _setting("NOTIFIER_SMS_RETRY_BACKOFF", parsers.whole_seconds, 10)
    #: The longest wait between retries of an SMS.
    sms_retry_backoff_max: int = _setting("NOTIFIER_SMS_RETRY_BACKOFF_MAX", parsers.whole_seconds, 600)
    #: Retries of an SMS.
    sms_max_retries: int = _setting("NOTIFIER_SMS_MAX_RETRIES", parsers.integer(0, 1000), 6)
    #: Seconds before the first retry of a push notification.
    push_retry_backoff: int = _setting("NOTIFIER_PUSH_RETRY_BACKOFF", parsers.whole_seconds, 5)
    #: The longest wait between retries of a push notification.
    push_retry_backoff_max: int = _setting("NOTIFIER_PUSH_RETRY_BACKOFF_MAX", parsers.whole_seconds, 300)
    #: Retries of a push notification.
    push_max_retries: int = _setting("NOTIFIER_PUSH_MAX_RETRIES", parsers.integer(0, 1000), 6)
    #: Seconds before the first retry of a chat message.
    chat_retry_backoff: int = _setting("NOTIFIER_CHAT_RETRY_BACKOFF", parsers.whole_seconds, 5)
    #: The longest wait between retries of a chat message.
    chat_retry_backoff_max: int = _setting("NOTIFIER_CHAT_RETRY_BACKOFF_MAX", parsers.whole_seconds, 600)
    #: Retries of a chat message.
    chat_max_retries: int = _setting("NOTIFIER_CHAT_MAX_RETRIES", parsers.integer(0, 1000), 6)
    #: Seconds before the first retry of a webhook.
    webhook_retry_backoff: int = _setting("NOTIFIER_WEBHOOK_RETRY_BACKOFF", parsers.whole_seconds, 5)
    #: The longest wait between retries of a webhook.
    webhook_retry_backoff_max: int = _setting("NOTIFIER_WEBHOOK_RETRY_BACKOFF_MAX", parsers.whole_seconds, 6 * 3600)
    #: Retries of a webhook.
    webhook_max_retries: int = _setting("NOTIFIER_WEBHOOK_MAX_RETRIES", parsers.integer(0, 1000), 14)
    #: Draw each wait between 0 and its full length, so that what failed together does not come back together.
    retry_jitter: bool = _setting("NOTIFIER_RETRY_JITTER", parsers.boolean, True)

    # --- Workers

    #: Threads that deliver in each worker process.
    worker_concurrency: int = _setting("NOTIFIER_WORKER_CONCURRENCY", parsers.integer(1, 256), 4)
    #: How long a worker may take no messages, though Postgres and the broker answer, before it ends to be started
    #: again. Never less than half as long again as a batch may take.
    worker_stuck_after: timedelta = _setting("NOTIFIER_WORKER_STUCK_AFTER", parsers.duration(1), timedelta(minutes=2))
    # --- Metrics, traces and logs

    #: Where each worker process serves its metrics: `host:port`. Unset: nowhere.
    metrics_address: tuple[str, int] | None = _setting("NOTIFIER_METRICS_ADDRESS", parsers.address, None)
    #: The bearer token that a scrape must bring. Unset: workers and the exporter want none, the API wants a key.
    metrics_token: str | None = _setting("NOTIFIER_METRICS_TOKEN", parsers.text, None)
    #: The password that `manage.py reader` gives to the database role of dashboards. Unset: there is no such role.
    reader_password: str | None = _setting("NOTIFIER_READER_PASSWORD", parsers.text, None)
    #: An OpenTelemetry collector that traces are sent to, by OTLP over HTTP. Unset: none are written.
    otlp_endpoint: str | None = _setting("OTEL_EXPORTER_OTLP_ENDPOINT", parsers.url("http", "https"), None)
    #: `json`, one object a line, or `console`, for people.
    log_format: str = _setting("NOTIFIER_LOG_FORMAT", parsers.one_of("json", "console"), "console")
    #: The least severe level that is logged.
    log_level: str = _setting("NOTIFIER_LOG_LEVEL", parsers.one_of("debug", "info", "warning", "error"), "info")

    @property
    def broker(self) -> str:
        """Return the URL of Celery's broker."""
        return self.broker_url or self.redis_url

    def of(self, channel: Channel) -> ChannelSettings:
        """Return the settings of one channel. In the sandbox the simulator is the provider of each."""
        match channel:
            case Channel.EMAIL:
                dsns, timeout, limits = self.email, self.email_timeout, self.email_recipient_limit
                retries = (self.email_retry_backoff, self.email_retry_backoff_max, self.email_max_retries)
            case Channel.SMS:
                dsns, timeout, limits = self.sms, self.sms_timeout, self.sms_recipient_limit
                retries = (self.sms_retry_backoff, self.sms_retry_backoff_max, self.sms_max_retries)
            case Channel.PUSH:
                dsns, timeout, limits = self.push, self.push_timeout, self.push_recipient_limit
                retries = (self.push_retry_backoff, self.push_retry_backoff_max, self.push_max_retries)
            case Channel.CHAT:
                dsns, timeout, limits = self.chat, self.chat_timeout, self.chat_recipient_limit
                retries = (self.chat_retry_backoff, self.chat_retry_backoff_max, self.chat_max_retries)
            case Channel.WEBHOOK:
                dsns, timeout, limits = ("webhook:",) if self.webhook_secret else (), self.webhook_timeout, ()
                retries = (self.webhook_retry_backoff, self.webhook_retry_backoff_max, self.webhook_max_retries)
        return ChannelSettings(
            providers=("simulator:",) if self.sandbox else dsns,
            timeout=timeout,
            recipient_limits=limits,
            retries=(*retries, self.retry_jitter),
        )

    @property
    def shared_webhook_secrets(self) -> tuple[str, ...]:
        """Return the secrets that sign webhooks to all hosts."""
        return _shared(self.webhook_secret, self.webhook_shared_secret)


#: Names that begin with NOTIFIER_ and are not fields: where to find a running stack, and what `manage.py relay` takes.
_OTHER_NAMES: Final = frozenset(
    {
        "NOTIFIER_DATA_DIR",
        *("NOTIFIER_RELAY_DSN", "NOTIFIER_RELAY_TABLE", "NOTIFIER_API_URL", "NOTIFIER_API_KEY"),
    }
)
#: The least similarity of a name that is suggested, from 0 to 1.
_ALIKE: Final = 0.75


def _parse(entry: Field[Any], value: str) -> object:
    try:
        return entry.metadata["parse"](value)
    except ValueError as error:
        # The value itself is not repeated: it may be a credential.
        raise SettingsError(f"{entry.metadata['env']} {error}") from None


def read_settings(environ: Mapping[str, str], *, database: bool = True) -> Settings:
    """Parse the settings of an environment; an empty value counts as unset. Raises SettingsError.

    `database`: whether DATABASE_URL is required. A process that may do without it gets the error on first use.
    """
    values, faults = _read(environ, database=database)
    if faults:
        raise faults[0]
    return Settings(**values)  # type: ignore[arg-type]  # each was parsed by its own field's parser


def _known() -> dict[str, Field[Any]]:
    return {entry.metadata["env"]: entry for entry in fields(Settings)}


def unknown_settings(environ: Mapping[str, str] | None = None) -> list[str]:
    """Say of each variable that looks like a setting that this release does not know it, and which is nearest.

    Such a one stops nothing: while releases change, another one may know it.
    """
    names = os.environ if environ is None else environ
    known = [*_known(), *_OTHER_NAMES]
    unknown = sorted(name for name in names if name.startswith("NOTIFIER_") and name not in known)
    nearest = [get_close_matches(name, known, 1, _ALIKE) for name in unknown]
    return [
        f"{name} is not a setting of this release; "
        + (f"{alike[0]} is the nearest one" if alike else "docs/settings.md lists those there are")
        for name, alike in zip(unknown, nearest, strict=True)
    ]


def _read(environ: Mapping[str, str], *, database: bool = True) -> tuple[dict[str, object], list[SettingsError]]:
    """Return the values by field, and all their faults."""
    known = _known()
    faults: list[SettingsError] = []
    values: dict[str, object] = {}
    for name, entry in known.items():
        if environ.get(name):
            try:
                values[entry.name] = _parse(entry, environ[name])
            except SettingsError as error:
                faults.append(error)
    if database and not environ.get("DATABASE_URL"):
        faults.append(no_database())
    urls = (str(values.get(name) or "") for name in ("redis_url", "broker_url"))
    if not values.get("redis_master") and any(url.startswith("sentinel:") for url in urls):
        unset = "NOTIFIER_REDIS_MASTER is not set: sentinels must be told which Redis is meant"
        faults.append(SettingsError(unset))
    return values, faults


def all_faults() -> list[str]:
    """Return all faults of this process's settings, where `load_settings` stops at the first."""
    environ = _environ()
    return [*unknown_settings(environ), *(str(fault) for fault in _read(environ)[1])]


def running_stack(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that a running `manage.py up` gave its children; empty if none runs.

    Looked for in NOTIFIER_DATA_DIR, `.notifier` by default.
    """
    file = Path(environ.get("NOTIFIER_DATA_DIR") or ".notifier") / STACK_FILE
    try:
        stack = json.loads(file.read_text())
        os.kill(stack["pid"], 0)
    except PermissionError:
        pass  # it runs as somebody else
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(value) for name, value in stack["environment"].items()}


def load_settings(*, database: bool = True) -> Settings:
    """Return the settings of this process: its environment and, if that names no database, the running stack's.

    `database`: as in `read_settings`. Raises SettingsError.
    """
    return read_settings(_environ(), database=database)


def load_broker_settings() -> Settings:
    """Return the settings of a process that needs only the broker, as beat and Flower do. Raises SettingsError."""
    environ = _environ()
    if not any(environ.get(name) for name in ("BROKER_URL", "REDIS_URL", "DATABASE_URL")):
        unset = "REDIS_URL and BROKER_URL are not set, and no stack started by 'manage.py up' is running here"
        raise SettingsError(unset)
    return read_settings(environ, database=False)


def load_webhook_secrets() -> tuple[str | None, tuple[str, ...]]:
    """NOTIFIER_WEBHOOK_SECRET, and the secrets that sign for all hosts, of this process or else of the running stack.

    For what needs no database. Raises SettingsError.
    """
    environ = _environ()
    named = {entry.name: (entry, environ.get(entry.metadata["env"])) for entry in fields(Settings)}
    root, shared = (
        str(_parse(entry, value)) if value else None
        for entry, value in (named["webhook_secret"], named["webhook_shared_secret"])
    )
    return root, _shared(root, shared)


def _shared(root: str | None, shared: str | None) -> tuple[str, ...]:
    chosen = shared or root
    return () if chosen is None or chosen == "none" else (chosen,)


def load_allowed_hosts() -> AllowedHosts:
    """Return the allowed hosts of this process, or of the running stack. Needs no database. Raises SettingsError."""
    environ = _environ()
    named = {entry.name: (entry, environ.get(entry.metadata["env"])) for entry in fields(Settings)}
    public_url, allowed = (
        _parse(entry, value) if value else entry.default
        for entry, value in (named["public_url"], named["allowed_hosts"])
    )
    return AllowedHosts(str(public_url), cast(tuple[Host, ...], allowed))


def _environ() -> dict[str, str]:
    """Return this process's environment; if it names no database, over that of the running stack."""
    environ = dict(os.environ)
    return environ if environ.get("DATABASE_URL") else {**running_stack(environ), **environ}
