"""Preference check: tell in advance whether and when a notification to a user would be sent."""

from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, text

from notifier.people.preferences import GENERAL, Circumstances, Decision, decide
from notifier.people.suppressions import listed
from notifier.people.users import people
from notifier.vocabulary.addresses import folded, hash_of
from notifier.vocabulary.states import Channel

_PREFERENCES: Final = text("SELECT preferences FROM users WHERE user_id = :user_id")
_OPTED_OUT: Final = text("""
    SELECT count(*) FROM opt_outs
    WHERE channel = :channel AND category = :category AND address_hash = ANY(:hashes)
""")
# Each of several push tokens may be suppressed; the user is unreachable only if all of them are.
_SUPPRESSED: Final = text("""
    SELECT folded, reason FROM suppressions
    WHERE channel = :channel AND folded = ANY(:folded) AND coalesce(until > :at, true)
""")


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
        preferences = connection.scalar(_PREFERENCES, {"user_id": user_id})
        addresses = [folded(channel, address) for address in person.addresses(channel)]
        forms = listed(connection, channel, addresses)
        found = connection.execute(_SUPPRESSED, {"channel": channel.value, "folded": list(forms), "at": at})
        suppressed = {forms[row.folded]: row.reason for row in found}
        hashes = [hash_of(channel, address) for address in addresses]
        asked = {"channel": channel.value, "category": category or GENERAL, "hashes": hashes}
        opted_out = connection.scalar(_OPTED_OUT, asked)
    if not addresses:
        return None
    return decide(
        Circumstances(
            channel,
            category,
            critical,
            suppressed[addresses[0]] if len(suppressed) == len(addresses) else None,
            opted_out=opted_out == len(addresses),
            preferences=preferences,
            zone=zone,
            user_zone=person.timezone,
        ),
        at,
    )
