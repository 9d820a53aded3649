"""The identity that an export or an erasure covers: a person's ids, and the addresses that no other user shares."""

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, select, text

from notifier.models import Subscription
from notifier.people.mentions import Named
from notifier.people.users import addresses_of_others
from notifier.security.address_seals import seals_of
from notifier.vocabulary.states import Channel

#: SQL for the ids of a person's notifications: those that name them (`:users`), and those that go to an address of
#: theirs (`:forms`) and are of no other user; up to `:before`, and with `{more}` to be asked of them.
THEIRS: Final = """
    SELECT id FROM notifications n WHERE id < :before AND user_id = ANY(:users) {more}
    UNION SELECT id FROM notifications n WHERE id < :before AND recipient = ANY(:forms) {more}
        AND NOT EXISTS (SELECT FROM users WHERE users.user_id = n.user_id)
"""
# Where somebody was sent anything: an address that they had before is theirs too.
_SENT_TO: Final = text("""
    SELECT channel, recipient FROM notifications
    WHERE user_id = ANY(:users) AND recipient IS NOT NULL AND channel IS NOT NULL AND subscription_id IS NULL
    UNION SELECT channel, recipient FROM events
    WHERE user_id = ANY(:users) AND recipient IS NOT NULL AND channel IS NOT NULL
    LIMIT :limit
""")
#: An id that was sent to more addresses than these belongs to a service, or to everybody.
_MOST: Final = 200


def named_by(connection: Connection, user_ids: Sequence[str], known: Iterable[tuple[Channel, str]]) -> Named:
    """Return the identity of ids and known addresses; addresses that the ids were sent to are added."""
    addresses = set(known)
    if user_ids:
        sent_to = connection.execute(_SENT_TO, {"users": list(user_ids), "limit": _MOST + 1}).all()
        addresses |= {(Channel(row.channel), row.recipient) for row in sent_to if len(sent_to) <= _MOST}
    seals = seals_of(connection)
    addresses = {(channel, form) for channel, address in addresses for form in seals.forms(channel, address)}
    addresses -= addresses_of_others(connection, addresses, user_ids)
    urls = [address for channel, address in addresses if channel is Channel.WEBHOOK]
    subscribed = set(connection.scalars(select(Subscription.url).where(Subscription.url.in_(urls))) if urls else ())
    return Named.of(user_ids, (each for each in addresses if each[1] not in subscribed))
