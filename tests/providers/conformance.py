"""The vendors that are held to the same rules, and calls to them."""

import importlib
import itertools
import pkgutil
from contextlib import closing
from uuid import UUID

from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.protocol import Message, Provider, Result
from notifier.vocabulary.ids import new_id
from tests.providers import receivers, vendors
from tests.providers.vendors import Vendor

VENDORS: dict[str, Vendor] = {
    module.name: importlib.import_module(f"tests.providers.vendors.{module.name}").VENDOR
    for module in pkgutil.iter_modules(vendors.__path__)
}


def made(vendor: Vendor, port: int, timeout: float = 5.0) -> Provider:
    """The vendor's provider, made as settings make it, for a server on this machine."""
    context = Context(
        channel=vendor.channel,
        timeout=timeout,
        sender="Notifier <notifier@example.com>",
        public_url="https://notifier.example.com",
        allowed_networks=receivers.LOOPBACK_NETWORKS,
        engine=create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none"),
    )
    return registry.make(vendor.dsn(port), context)


def message_for(vendor: Vendor, port: int, text: str = "Your order has shipped.") -> Message:
    recipient = vendor.recipient.replace("{port}", str(port))
    return Message(id=new_id(), recipient=recipient, subject="Shipped", text=text)


def sent(provider: Provider, *messages: Message) -> dict[UUID, Result]:
    """Return what became of some messages: one result each."""
    results = list(itertools.chain.from_iterable(provider.send(iter(messages))))
    assert sorted(result.id for result in results) == sorted(message.id for message in messages)
    assert {result.provider for result in results} <= {provider.name}
    return {result.id: result for result in results}


def one(vendor: Vendor, port: int, text: str = "Your order has shipped.", timeout: float = 5.0) -> Result:
    """Return what becomes of one message."""
    message = message_for(vendor, port, text)
    with closing(made(vendor, port, timeout)) as provider:
        return sent(provider, message)[message.id]
