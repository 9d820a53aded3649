"""The composition root: what is built with what.

Each part is imported when it is first asked for: most commands need Postgres and the audit log, and nothing else.
"""

from __future__ import annotations

import functools
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Engine, create_engine, make_url

from config.settings import Settings, load_settings, no_database
from notifier.security.address_seals import AddressSeals, seals_of, with_seals
from notifier.security.audit_log import AuditLog
from notifier.security.secret_box import Vault
from notifier.storage.deadlines import CONNECTING, BoundConnection, with_deadlines
from notifier.storage.engines import with_autocommit
from notifier.storage.lent_connections import with_checks
from notifier.storage.stored_values import read_without_fail
from notifier.vocabulary.states import Channel

if TYPE_CHECKING:
    from notifier.content.sender_rules import SenderRules
    from notifier.content.template_process import TemplateProcess
    from notifier.delivery.batch import Delivery
    from notifier.delivery.composer import Composer
    from notifier.events.intake import Intake, Publisher
    from notifier.notifications.delivery_receipts import Senders
    from notifier.people.unsubscribe import Links
    from notifier.planning.plans import Lease, Planner
    from notifier.planning.subscribers import SubscriberCache
    from notifier.providers.rate_limits import KeyLimits
    from notifier.providers.receipts import ReceiptSource
    from notifier.providers.vendors.smtp_return_paths import ReturnPaths
    from notifier.resending.resend import Standards
    from notifier.storage.retention import Retention

#: The schemes whose bounces come by mail.
_SMTP: Final = frozenset({"smtp", "smtps"})
#: Connections of a process, at the most, whose statements are transactions of their own.
_MOST_BESIDE: Final = 10


def make_engine(settings: Settings) -> Engine:
    """Make the engine of the role that all processes use. Raises SettingsError without a DATABASE_URL."""
    engine = _engine_of(settings.database_url)
    # One is kept for each thread that delivers, and for one beside them: a connection more than are kept is made and
    # ended each time, which costs Postgres a process and both sides a handshake of some milliseconds.
    kept = min(settings.worker_concurrency + 1, _MOST_BESIDE)
    beside = _engine_of(
        settings.database_url, pool_size=kept, max_overflow=_MOST_BESIDE - kept, isolation_level="AUTOCOMMIT"
    )
    return with_autocommit(engine, beside)


def _engine_of(url: str | None, *, pool_size: int = 5, max_overflow: int = 10, **more: Any) -> Engine:  # noqa: ANN401 -- create_engine's
    """Make an engine with a small pool. It checks connections before use, and so survives a restart of Postgres."""
    if url is None:
        raise no_database()
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg2"),
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=3,
        hide_parameters=True,  # in what exceptions say: they are people's addresses, and go to whoever prints them
        connect_args={
            "connection_factory": BoundConnection,
            "connect_timeout": round(CONNECTING),
            "application_name": "notifier",
            "tcp_user_timeout": 5000,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
        **more,
    )
    return with_checks(with_deadlines(read_without_fail(engine)))


class Wiring:
    """The parts of one process. Each is made at its first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @functools.cached_property
    def engine(self) -> Engine:
        """Postgres."""
        return with_seals(make_engine(self.settings), self.vault)

    @functools.cached_property
    def owner_engine(self) -> Engine:
        """Return the engine of the role that owns the tables, for migrations alone."""
        return _engine_of(self.settings.migration_database_url or self.settings.database_url)

    @functools.cached_property
    def admin_engine(self) -> Engine:
        """Return the engine of a role that may create other roles."""
        settings = self.settings
        return _engine_of(settings.admin_database_url or settings.migration_database_url or settings.database_url)

    @property
    def any_engine(self) -> Engine:
        """Return the engine of the least privileged role that this process has, for the audit log."""
        if self.settings.database_url:
            return self.engine
        return self.owner_engine if self.settings.migration_database_url else self.admin_engine

    @functools.cached_property
    def longest_batch(self) -> float:
        """Return the longest that a batch may take while Postgres answers, in seconds. Raises SettingsError."""
        from config.providers import make_providers
        from notifier.delivery.sender import MARGIN

        longest = self.settings.of(Channel.WEBHOOK).timeout.total_seconds()
        for channel in self.channels:
            with closing(make_providers(self.settings, channel, self.engine)) as providers:
                longest = max(longest, providers.timeout)
        window: float = self.settings.sending_window.total_seconds()
        return window + longest + MARGIN

    @functools.cached_property
    def channels(self) -> frozenset[Channel]:
        """Return the channels that have a provider. Raises SettingsError if a DSN is malformed."""
        return frozenset(self._names)

    def check_providers(self) -> frozenset[Channel]:
        """Make every provider once, so that a malformed one stops the start. Raises SettingsError."""
        return self.channels

    @functools.cached_property
    def _names(self) -> dict[Channel, tuple[str, ...]]:
        """Return the names of each usable channel's providers, as attempts record them, in the order of their DSNs."""
        from config.providers import make_providers

        names = {}
        for channel in Channel:
            if self.settings.of(channel).providers:
                with closing(make_providers(self.settings, channel, self.engine)) as providers:
                    names[channel] = tuple(choice.name for choice in providers.choices)
        return names

    @functools.cached_property
    def provider_names(self) -> list[tuple[str, str]]:
        """Return (channel, name) of each configured provider. Raises SettingsError if a DSN is malformed."""
        return [(channel.value, name) for channel, names in self._names.items() for name in names]

    @functools.cached_property
    def template_process(self) -> TemplateProcess:
        """Where templates are rendered."""
        from notifier.content.template_process import TemplateProcess

        return TemplateProcess()

    @functools.cached_property
    def vault(self) -> Vault:
        """Return the vault, which encrypts secrets."""
        return Vault(self.settings.secret_key)

    @property
    def seals(self) -> AddressSeals:
        """Return the seals, which encrypt addresses."""
        return seals_of(self.engine)

    @functools.cached_property
    def audit(self) -> AuditLog:
        """Return the audit log."""
        return AuditLog(self.any_engine, self.vault)

    @functools.cached_property
    def subscribers(self) -> SubscriberCache:
        """Return this process's cache of subscribers."""
        from notifier.planning.subscribers import SubscriberCache

        return SubscriberCache()

    @functools.cached_property
    def links(self) -> Links:
        """Return the maker of unsubscribe links. Reads its key from the database."""
        from notifier.people.unsubscribe import links

        return links(self.engine, self.vault, self.settings.public_url)

    @functools.cached_property
    def deliveries(self) -> dict[Channel, Delivery]:
        """Return the delivery of each usable channel. Reads keys from the database."""
        self.seals.read_key()
        # Always with webhooks, even without NOTIFIER_WEBHOOK_SECRET: subscriptions have secrets of their own.
        return {channel: self._delivery(channel) for channel in (*(self.channels - {Channel.WEBHOOK}), Channel.WEBHOOK)}

    def _composer(self, channel: Channel) -> Composer:
        from notifier.delivery.composer import Composer

        return Composer(
            self.engine,
            channel,
            template_process=self.template_process,
            links=self.links,
            vault=self.vault,
            senders=self.sender_rules,
        )

    def _delivery(self, channel: Channel) -> Delivery:
        from config.providers import make_limits, make_providers
        from notifier.delivery.batch import Delivery
        from notifier.delivery.endpoint_gate import EndpointGate
        from notifier.delivery.gate import Gate
        from notifier.delivery.provider_gate import ProviderGate
        from notifier.delivery.rules import Rules

        settings = self.settings
        providers = make_providers(settings, channel, self.engine)
        rules = Rules(channel, settings.timezone, settings.max_age, EndpointGate(settings.max_age))
        return Delivery(
            self.engine,
            providers=providers,
            gate=Gate(rules, ProviderGate(providers, make_limits(settings, channel), settings.max_age)),
            composer=self._composer(channel),
            subscribers=self.subscribers,
            sending_window=settings.sending_window.total_seconds(),
            disable_after=settings.subscription_disable_after,
        )

    @functools.cached_property
    def sender_rules(self) -> SenderRules:
        """Return the rules for senders of email."""
        from notifier.content.sender_rules import rules_of

        return rules_of(self.settings.email_senders, self.settings.email_from)

    @functools.cached_property
    def key_limits(self) -> KeyLimits:
        """Return the rate limits of API keys."""
        from config.providers import make_key_limits

        return make_key_limits(self.settings)

    @functools.cached_property
    def receipt_sources(self) -> dict[str, list[ReceiptSource]]:
        """Return the readers of receipts for the configured providers, by the source's name."""
        sources: dict[str, list[ReceiptSource]] = {}
        for found in self._sources.values():
            sources.setdefault(found.name, []).append(found)
        return sources

    @functools.cached_property
    def _sources(self) -> dict[str, ReceiptSource]:
        """Return the reader of receipts for each DSN that has one."""
        from notifier.providers.receipts import source

        dsns = {dsn: None for channel in sorted(self.channels) for dsn in self.settings.of(channel).providers}
        return {dsn: found for dsn in dsns if (found := source(dsn)) is not None}

    @functools.cached_property
    def return_paths(self) -> list[ReturnPaths]:
        """Return the mailboxes that receive bounces, as the SMTP servers' DSNs name them."""
        from notifier.providers.dsn import parse
        from notifier.providers.vendors.smtp_return_paths import ReturnPaths, bounces_of

        dsns = [parse(dsn) for dsn in self.settings.of(Channel.EMAIL).providers]
        named = dict.fromkeys(bounces_of(dsn) for dsn in dsns if dsn.scheme in _SMTP)
        return [ReturnPaths(address, self.engine, self.vault) for address in named if address is not None]

    @functools.cached_property
    def senders(self) -> Senders:
        """Return the providers in use, and the ones that each source of receipts reports on."""
        from notifier.notifications.delivery_receipts import Senders
        from notifier.providers.vendors import smtp_receipts

        by_source: dict[str, set[tuple[str, str]]] = {}
        for channel, names in self._names.items():
            for dsn, name in zip(self.settings.of(channel).providers, names, strict=True):
                if urlsplit(dsn).scheme in _SMTP:
                    by_source.setdefault(smtp_receipts.NAME, set()).add((channel.value, name))
                elif dsn in self._sources:
                    by_source.setdefault(self._sources[dsn].name, set()).add((channel.value, name))
        return Senders(
            by_source=by_source,
            by_channel={channel.value: names for channel, names in self._names.items()},
            policies={channel.value: self.settings.of(channel).retry_policy for channel in self.channels},
        )

    @property
    def standards(self) -> Standards:
        """Return the settings by which the rules judge a notification that is to be sent again."""
        from notifier.resending.resend import Standards

        return Standards(self.settings.timezone, self.settings.max_age)

    @property
    def retention(self) -> Retention:
        """Return the retention of rows."""
        from notifier.storage.retention import Retention

        settings = self.settings
        return Retention(settings.retention, settings.dead_letter_retention, settings.audit_retention, self.audit)

    def planner(self, lease: Lease) -> Planner:
        """Make a planner, which turns plans into rows. `lease`: the publisher's."""
        from notifier.planning.plans import Planner

        return Planner(lease, self.channels, self.settings.timezone, self.seals)

    def intake(self, publisher: Publisher) -> Intake:
        """Make an intake, which tells `publisher` of the rows that it committed."""
        from notifier.events.intake import Intake

        return Intake(self.engine, publisher, idempotency_ttl=self.settings.idempotency_ttl)


@functools.cache
def wiring() -> Wiring:
    """Return this process's parts, by its settings. Raises SettingsError.

    A process without DATABASE_URL gets the error at the first use of a part that needs it.
    """
    return Wiring(load_settings(database=False))
