"""Providers and recipient limits of each channel, made from the settings."""

from typing import Final

from sqlalchemy import Engine

from config.settings import Settings, SettingsError
from notifier.providers import registry
from notifier.providers.dsn import Context, parse
from notifier.providers.failover import Choice, Providers
from notifier.providers.rate_limits import KeyLimits, RecipientLimits
from notifier.providers.vendors.simulator import Simulator
from notifier.providers.vendors.webhook import Webhooks
from notifier.security.secret_box import Vault
from notifier.security.webhook_signatures import key_of
from notifier.vocabulary.states import Channel

#: How long one question to Redis may take, in seconds: batches and requests wait for it.
_REDIS_TIMEOUT: Final = 0.5


def make_providers(settings: Settings, channel: Channel, engine: Engine) -> Providers:
    """Make the providers of a channel, each behind a simulator that takes messages to simulated recipients.

    In the sandbox no DSN is looked at, and a simulator takes everything. Raises SettingsError where the channel has no
    provider, or a DSN cannot be understood.
    """
    timeout = settings.of(channel).timeout.total_seconds()
    if settings.sandbox or channel is Channel.WEBHOOK:
        real = None if settings.sandbox else _webhooks(settings)
        only = Simulator(real, channel, engine, timeout)
        return Providers(channel, [Choice(only, only.name)])
    setting = f"NOTIFIER_{channel.upper()}"
    dsns = settings.of(channel).providers
    if not dsns:
        raise SettingsError(f"{setting} is not set")
    context = Context(
        channel=channel,
        timeout=timeout,
        sender=settings.email_from,
        public_url=settings.public_url.rstrip("/"),
        allowed_networks=settings.webhook_allowed_networks,
        engine=engine,
        vault=Vault(settings.secret_key),
    )
    choices: list[Choice] = []
    for number, text in enumerate(dsns, start=1):
        try:
            choices.append(_choice(text, context, choices))
        except ValueError as error:
            which = setting if len(dsns) == 1 else f"{setting}, provider {number} of {len(dsns)},"
            raise SettingsError(f"{which} {error}") from None
    return Providers(channel, choices)


def _choice(text: str, context: Context, before: list[Choice]) -> Choice:
    use = parse(text).use
    provider = Simulator(registry.make(text, context), context.channel, context.engine, context.timeout)
    taken = {choice.name for choice in before}
    if use.name in taken:
        raise ValueError(f"has the name {use.name!r}, as one before it has")
    names = (use.name, provider.name, *(f"{provider.name}-{number}" for number in range(2, len(before) + 3)))
    name = next(name for name in names if name is not None and name not in taken)
    return Choice(provider, name, use.weight, use.rate)


def _webhooks(settings: Settings) -> Webhooks:
    return Webhooks(
        root=key_of(settings.webhook_secret) if settings.webhook_secret else None,
        keys=[key_of(secret) for secret in settings.shared_webhook_secrets],
        allowed_networks=settings.webhook_allowed_networks,
        allowed_ports=settings.webhook_allowed_ports,
        timeout=settings.webhook_timeout.total_seconds(),
    )


def make_limits(settings: Settings, channel: Channel) -> RecipientLimits:
    """Make the limits of a channel's recipients."""
    # Here, since it imports redis, and commands that only look at providers do without.
    from config.broker import limits_storage  # noqa: PLC0415 -- see above

    limits = settings.of(channel).recipient_limits
    return RecipientLimits(channel, limits, limits_storage(settings, _REDIS_TIMEOUT) if limits else None)


def make_key_limits(settings: Settings) -> KeyLimits:
    """Make the rate limits of API keys, counted by all API processes together."""
    from config.broker import limits_storage  # noqa: PLC0415 -- as above

    return KeyLimits(limits_storage(settings, _REDIS_TIMEOUT))
