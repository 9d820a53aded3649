"""Receipts: a vendor's later reports about messages, in callbacks that it signs.

A source reads one vendor's callbacks: it verifies the signature, and returns the outcome of each notification, and the
addresses that must not be written to any more. It knows nothing of Postgres, and reads a repeated callback the same
way.

A package registers a factory, `(Dsn) -> ReceiptSource | None`, under the entry point group `notifier.receipts`; the
entry's name is the scheme of the provider's DSN.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Final, Protocol
from uuid import UUID

from notifier.providers.dsn import Dsn, parse
from notifier.vocabulary.states import Channel


class NotSigned(Exception):
    """The callback is not signed, or not by the vendor whose key we have."""


class Malformed(Exception):
    """The callback differs from the vendor's documentation; its text says how, and repeats nothing of it."""


class NotNow(Exception):
    """A callback cannot be read now, because something is missing: the vendor is to repeat it. The text names it."""


class Kind(StrEnum):
    """The outcome of a message, as a receipt reports it."""

    DELIVERED = "delivered"
    #: A permanent bounce: no later attempt would arrive either.
    BOUNCED = "bounced"
    #: Another provider may do better than this one: it is this one's sender or account that is refused.
    BOUNCED_HERE = "bounced_here"
    #: A later attempt may arrive, by another provider or by the same one.
    BOUNCED_FOR_NOW = "bounced_for_now"


class SuppressionReason(StrEnum):
    """Why an address is not to be written to any more."""

    #: Nobody is there, and nobody will be.
    HARD_BOUNCE = "hard_bounce"
    #: Its owner reported a message as spam.
    COMPLAINT = "complaint"
    #: Its owner has answered STOP. The one that its owner can lift, too.
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Callback:
    """One request of a vendor's."""

    #: The URL as the vendor called it, with its query: a URL that proxies have rewritten is not the signed one.
    url: str
    #: Lower-case name → value.
    headers: Mapping[str, str]
    body: bytes
    #: When it came, with a time zone.
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """A provider's report about one notification."""

    #: The provider's name, as attempts record it.
    provider: str
    notification_id: UUID
    kind: Kind
    #: With a time zone; never after the callback came.
    happened_at: datetime
    #: Of one that bounced: why, in a few words of our own, without an address: "twilio 30003, unreachable handset".
    error: str | None = None
    #: The vendor's id of the message; attempts store it, or its beginning up to a point.
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class AddressStatus:
    """Whether an address may be written to over a channel, as far as the vendor knows."""

    channel: Channel
    #: As the vendor writes it.
    address: str
    reason: SuppressionReason
    #: The reason holds no longer.
    lifted: bool = False
    #: The notification that it was seen by, where it was by one: it counts only from a provider that sent that one.
    notification_id: UUID | None = None
    #: Applies only if an earlier notification to the address has failed with this error too: once is not enough.
    repeats: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of one callback, each part in the callback's order."""

    receipts: tuple[Receipt, ...] = ()
    standings: tuple[AddressStatus, ...] = ()


class ReceiptSource(Protocol):
    """Reads the callbacks of one account at one vendor. Used by several threads at once.

    One that has an attribute `reads_queries` that is true is called by GET as well.
    """

    #: The provider's name, as attempts record it, and as the path of its callbacks ends.
    name: str
    #: The body that a callback is answered with, and its content type. None: the answer has none.
    reply: tuple[bytes, str] | None

    def read(self, callback: Callback) -> Report:
        """Return the report of a callback, only the parts that are used. Raises NotSigned, Malformed and NotNow."""
        ...


GROUP: Final = "notifier.receipts"

Factory = Callable[[Dsn], ReceiptSource | None]

#: The module of each scheme that has receipts; its `source` is the factory. Loaded only when it is asked for.
_OURS: Final = {name: f"{name}_receipts" for name in ("twilio", "sendgrid", "ses", "vonage")}


def source(text: str) -> ReceiptSource | None:
    """Create the receipt source of the provider that a DSN names; None if it sends none, or no key is known.

    Raises ValueError, whose message shows nothing of the DSN's secrets.
    """
    dsn = parse(text)
    if dsn.scheme in _OURS:
        factory: Factory = importlib.import_module(f"notifier.providers.vendors.{_OURS[dsn.scheme]}").source
        return factory(dsn)
    others = entry_points(group=GROUP)
    if dsn.scheme not in others.names:
        return None
    factory = others[dsn.scheme].load()
    return factory(dsn)
