"""One-click unsubscribe (RFC 8058): links that switch one category off for one channel.

A link's token is signed with a key from the database, because links outlive settings. It contains no address: for a
recipient who is not a known user it contains a hash.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from itsdangerous import BadData, URLSafeSerializer
from sqlalchemy import Engine, delete
from sqlalchemy.dialects.postgresql import insert

from notifier.models import OptOut
from notifier.people.users import switch_category
from notifier.security.secret_box import Vault
from notifier.security.signing_keys import signing_key
from notifier.vocabulary.addresses import hash_of
from notifier.vocabulary.states import Channel

PURPOSE: Final = "unsubscribe"


@dataclass(frozen=True, slots=True)
class Subscription:
    """The target of a link: a category on a channel, of a user or of an address."""

    channel: Channel
    category: str
    user_id: str | None
    address_hash: bytes


class Links:
    """Makes and reads unsubscribe links."""

    def __init__(self, secret: bytes, public_url: str) -> None:
        self._serializer = URLSafeSerializer(secret, salt=PURPOSE)
        self._prefix = f"{public_url.rstrip('/')}/u/"

    def url(self, channel: Channel, category: str, user_id: str | None, address: str) -> str:
        """Return the link for one message."""
        address_hash = base64.b85encode(hash_of(channel, address)).decode()
        return self._prefix + str(self._serializer.dumps([channel.value, category, user_id, address_hash]))

    def read(self, token: str) -> Subscription | None:
        """Return the subscription in a token; None if the token is not one of ours."""
        try:
            channel, category, user_id, address_hash = self._serializer.loads(token)
            return Subscription(Channel(channel), category, user_id, base64.b85decode(address_hash))
        except (BadData, ValueError, TypeError, binascii.Error):
            return None


class HiddenLinks(Links):
    """Placeholder links for people who only look at a message: they show the place of a link, and do nothing."""

    def __init__(self, public_url: str) -> None:
        super().__init__(b"", public_url)

    def url(self, channel: Channel, category: str, user_id: str | None, address: str) -> str:
        """Return the placeholder for the link in a message."""
        return f"{self._prefix}***"


def links(engine: Engine, vault: Vault, public_url: str) -> Links:
    """Return the links of this installation, with the key in its database. Raises CannotDecrypt, Conflict."""
    return Links(signing_key(engine, vault, PURPOSE), public_url)


def switch(engine: Engine, subscription: Subscription, *, wanted: bool) -> None:
    """Switch a category off, or on again; repeating it changes nothing.

    A user's choice is stored in their preferences; an address without a known user has an entry of its own.
    """
    channel, category = subscription.channel, subscription.category
    if subscription.user_id and switch_category(engine, subscription.user_id, category, channel, wanted=wanted):
        return
    values = {"channel": channel.value, "address_hash": subscription.address_hash, "category": category}
    with engine.begin() as connection:
        if wanted:
            connection.execute(delete(OptOut).filter_by(**values))
        else:
            added = insert(OptOut).values(**values, created_at=datetime.now(UTC))
            connection.execute(added.on_conflict_do_nothing())
