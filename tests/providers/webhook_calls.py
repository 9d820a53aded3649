"""Webhook providers as their tests call them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from uuid import uuid4

from notifier.providers.http.address_guard import Network
from notifier.providers.protocol import Message, Result
from notifier.providers.vendors.webhook import Webhooks
from notifier.security import webhook_signatures
from tests.providers import receivers

SECRET = webhook_signatures.new_secret()
LOOPBACK = ip_network("127.0.0.0/8")

Make = Callable[..., Webhooks]


@contextmanager
def making() -> Iterator[Make]:
    """Makes providers that may reach loopback; all are closed at the end."""
    with ExitStack() as stack:

        def webhooks(
            *, timeout: float = 10.0, concurrency: int = 64, allowed: tuple[Network, ...] = (LOOPBACK,)
        ) -> Webhooks:
            provider = Webhooks(
                keys=[webhook_signatures.key_of(SECRET)],
                allowed_networks=allowed,
                timeout=timeout,
                concurrency=concurrency,
            )
            stack.callback(provider.close)
            return provider

        yield webhooks


def message_to(url: str, text: str = "{}") -> Message:
    return Message(id=uuid4(), recipient=url, subject=None, text=text)


def send(provider: Webhooks, *messages: Message) -> list[Result]:
    return list(itertools.chain.from_iterable(provider.send(iter(messages))))


def post(provider: Webhooks, url: str, text: str = "{}") -> Result:
    [result] = send(provider, message_to(url, text))
    return result


def url_of(listener: receivers.Listener, path: str = "/hook", scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{listener.port}{path}"
