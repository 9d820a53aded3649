"""Provider registry: create the provider that a DSN names, ours by scheme, others by entry point.

A package registers a factory, `(Dsn, Context) -> Provider`, under the entry point group `notifier.providers`; the
entry's name is the DSN's scheme. A factory's ValueError is shown after the setting's name.
"""

import functools
import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoints, entry_points
from typing import Final

from notifier.providers.dsn import Context, Dsn, parse
from notifier.providers.protocol import Provider
from notifier.vocabulary.states import Channel

GROUP: Final = "notifier.providers"

Factory = Callable[[Dsn, Context], Provider]

#: The module of each scheme; its `provider` is the factory. Loaded only when it is asked for: some are heavy.
_OURS: Final[dict[Channel, dict[str, str]]] = {
    Channel.EMAIL: {
        "smtp": "smtp",
        "smtps": "smtp",
        "sendgrid": "sendgrid",
        "ses": "ses",
        "resend": "resend",
        "mailgun": "mailgun",
        "outbox": "outbox",
    },
    Channel.SMS: {
        "twilio": "twilio",
        "vonage": "vonage",
        "plivo": "plivo",
        "messagebird": "messagebird",
        "outbox": "outbox",
    },
    Channel.PUSH: {"fcm": "fcm", "webpush": "web_push", "apns": "apns", "expo": "expo", "outbox": "outbox"},
    Channel.CHAT: {"apprise": "chat", "outbox": "outbox"},
}


def make(text: str, context: Context) -> Provider:
    """Create the provider that a DSN names. Raises ValueError, whose message shows none of the DSN's secrets."""
    dsn = parse(text)
    return _factory(dsn.scheme, context.channel)(dsn, context)


@functools.cache
def _installed() -> EntryPoints:
    """Return the providers of installed packages. To look through all packages takes some milliseconds."""
    return entry_points(group=GROUP)


def _factory(scheme: str, channel: Channel) -> Factory:
    ours = _OURS.get(channel, {})
    others = _installed()
    try:
        if scheme in ours:
            factory: Factory = importlib.import_module(f"notifier.providers.vendors.{ours[scheme]}").provider
        elif scheme in others.names:
            factory = others[scheme].load()
        else:
            known = ", ".join(f"{name}:" for name in sorted({*ours, *others.names}))
            raise ValueError(f"begins with {scheme!r}; known are {known}")
    except ImportError as error:
        missing = f"{error.name}, which is not installed; docs/providers.md says what to install"
        raise ValueError(f"begins with {scheme!r}, and that needs {missing}") from None
    return factory
