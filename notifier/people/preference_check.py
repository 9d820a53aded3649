"""Preference check: tell in advance whether and when a notification to a user would be sent."""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, func, or_, select

from notifier.models import OptOut, Suppression, User
from notifier.people.preferences import GENERAL, Circumstances, Decision, decide
from notifier.people.suppressions import listed
from notifier.people.users import people
from notifier.vocabulary.addresses import folded, hash_of
from notifier.vocabulary.states import Channel


def ask(
    engine: Engine,
    user_id: str,
    channel: Channel,
    category: str | None,
    *,
    critical: bool,
    at: datetime,
    zone: ZoneInfo,
) -> Decision | None:
    """Return the preferences' decision about a notification to a user at a moment; None if they have no address.

    Raises LookupError if there is no such user.
    """
    with engine.connect() as connection:
        person = people(connection, [user_id]).get(user_id)
        if person is None:
            raise LookupError(user_id)
        preferences = connection.scalar(select(User.preferences).where(User.user_id == user_id))
        addresses = [folded(channel, address) for address in person.addresses(channel)]
        suppressed = _suppressed(connection, channel, addresses, at)
        opted_out = _count_opt_outs(connection, channel, category or GENERAL, addresses)
    if not addresses:
        return None
    return decide(
        Circumstances(
            channel,
            category,
            critical,
            # Each of several push tokens may be suppressed; the user is unreachable only if all of them are.
            suppressed[addresses[0]] if len(suppressed) == len(addresses) else None,
            opted_out=opted_out == len(addresses),
            preferences=preferences,
            zone=zone,
            user_zone=person.timezone,
        ),
        at,
    )


def _suppressed(connection: Connection, channel: Channel, addresses: Sequence[str], at: datetime) -> dict[str, str]:
    """Return those of some addresses that are suppressed at a moment, each with the reason."""
    forms = listed(connection, channel, addresses)
    stands = or_(Suppression.until.is_(None), Suppression.until > at)
    query = select(Suppression.folded, Suppression.reason).where(
        Suppression.channel == channel.value, Suppression.folded.in_(forms), stands
    )
    return {forms[form]: reason for form, reason in connection.execute(query)}


def _count_opt_outs(connection: Connection, channel: Channel, category: str, addresses: Sequence[str]) -> int:
    """Return how many of some addresses have switched a category off."""
    hashes = [hash_of(channel, address) for address in addresses]
    query = select(func.count()).where(
        OptOut.channel == channel.value, OptOut.category == category, OptOut.address_hash.in_(hashes)
    )
    return connection.scalar(query) or 0
