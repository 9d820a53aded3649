"""Gate inputs: all that the gate must know about a batch, read in one query whatever its size, and in one more each
where it has reminders with a key, or subscriptions. Where several providers may send it, two more read the attempts and
resends of rows that were tried before.

Read from Postgres at the moment of sending. A cache in Redis would be read faster, but what that saves is a small part
of a batch (benchmarks/caching.py), and it would have to be invalidated by every change, also while Redis is away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from notifier.notifications.attempts import attempts_of, last_resort, without_route
from notifier.notifications.cancellation import superseded
from notifier.notifications.claims import Claimed
from notifier.people.suppressions import listed
from notifier.providers.breakers import HEALTH_IN_SQL, health_from
from notifier.providers.circuit import Circuit
from notifier.providers.failover import ROUTE_PAUSE
from notifier.vocabulary.addresses import folded, hash_of
from notifier.vocabulary.states import ALL_CHANNELS, Channel, How
from notifier.webhooks.targets import WebhookTarget, read_targets

# Each by its index, and put together by hash tables here: joins would be at the mercy of the planner's guesses.
_FACTS: Final = text(f"""
    SELECT
        (SELECT CAST(json_object_agg(user_id, json_build_array(timezone, CAST(preferences AS text))) AS text)
            FROM users WHERE user_id = ANY(:users)) AS users,
        (SELECT CAST(json_object_agg(folded, reason) AS text) FROM suppressions
            WHERE channel = :channel AND folded = ANY(:addresses) AND coalesce(until > now(), true)) AS suppressed,
        (SELECT CAST(json_agg(json_build_array(encode(address_hash, 'hex'), category)) AS text) FROM opt_outs
            WHERE channel = :channel AND address_hash = ANY(:hashes)) AS opted_out,
        (SELECT CAST(json_agg(target) AS text) FROM holds) AS held,
        (SELECT CAST(json_agg(id) AS text) FROM endpoints WHERE id = ANY(CAST(:endpoints AS uuid[]))
            AND slow_until > now()) AS slow,
        ({HEALTH_IN_SQL}) AS health,
        (SELECT version FROM listeners) AS version
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about the recipients of one batch on one channel, about their endpoints and providers, and holds."""

    channel: Channel
    #: user_id → (time zone, preferences document as JSON text: what is wrong with it concerns that user's rows alone).
    users: Mapping[str, tuple[str | None, str | None]]
    #: Folded address → why it is on the suppression list.
    suppressed: Mapping[str, str]
    #: (hash of an address, category) that the address itself has switched off.
    opted_out: frozenset[tuple[str, str]]
    holds: frozenset[str]
    #: Reminders in whose place a later one has come.
    superseded: frozenset[UUID]
    targets: Mapping[UUID, WebhookTarget]
    #: Endpoints of webhooks that keep callers waiting.
    slow: frozenset[UUID]
    #: How the channel's providers fare, by name; those that do well may be missing.
    health: Mapping[str, Circuit]
    #: The version of the listeners (notifier.planning.subscribers).
    version: int
    #: Providers that come after the others for a row, in their order: those that could not deliver it, and those that
    #: were called before somebody wanted it sent again by another one.
    last_resort: Mapping[UUID, tuple[str, ...]]
    #: Providers that have said of a row lately that they have no route to its recipient.
    without_route: Mapping[UUID, frozenset[str]]

    def held(self, row: Claimed) -> str | None:
        """Return the hold that stops a row: `all`, its channel or its route; None where there is none."""
        return next((target for target in (ALL_CHANNELS, self.channel, row.route) if target in self.holds), None)


def read(
    connection: Connection,
    channel: Channel,
    rows: Sequence[Claimed],
    *,
    several_providers: bool = False,
    is_retry: bool = False,
) -> Facts:
    """Read the facts about some rows; about their attempts only where there are `several_providers` to choose from.

    `is_retry`: they have failed since they were sent, or sent again.
    """
    addresses = {folded(channel, row.recipient) for row in rows if row.recipient is not None}
    forms = listed(connection, channel, addresses)
    values = {
        "channel": channel.value,
        "users": sorted({row.user_id for row in rows if row.user_id is not None}),
        "addresses": sorted(forms),
        "hashes": [hash_of(channel, address) for address in sorted(addresses)],
        "endpoints": sorted({row.endpoint_id for row in rows if row.endpoint_id is not None}),
    }
    found = connection.execute(_FACTS, values).one()
    tried = [row for row in rows if row.attempts] if several_providers else []
    avoided, routeless = _of_attempts(connection, tried, is_retry=is_retry)
    return Facts(
        channel=channel,
        users={user: (zone, preferences) for user, (zone, preferences) in orjson.loads(found.users or "{}").items()},
        suppressed={forms[form]: reason for form, reason in orjson.loads(found.suppressed or "{}").items()},
        opted_out=frozenset((digest, category) for digest, category in orjson.loads(found.opted_out or "[]")),
        holds=frozenset(orjson.loads(found.held or "[]")),
        superseded=superseded(connection, [row.id for row in rows if row.cancellation_key and row.target_date]),
        targets=read_targets(connection, [row.subscription_id for row in rows if row.subscription_id]),
        slow=frozenset(UUID(each) for each in orjson.loads(found.slow or "[]")),
        health=health_from(found.health),
        version=int(found.version),
        last_resort=avoided,
        without_route=routeless,
    )


# The latest one of each counts: a plain resend ends what an earlier one asked for. Each is looked up by the index on
# notification_id: with `= ANY(:ids)` the planner reads the whole table, until it has statistics of it.
_LATEST_RESENDS: Final = text("""
    SELECT wanted.id, latest.how, latest.attempts FROM unnest(CAST(:ids AS uuid[])) AS wanted(id)
        CROSS JOIN LATERAL (
            SELECT how, attempts FROM resends WHERE notification_id = wanted.id ORDER BY asked_at DESC, id DESC LIMIT 1
        ) AS latest
""")


def _attempts_to_avoid(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many attempts had been made of those that somebody wants sent again by another provider.

    Attempts are told apart by their numbers: those have no clock.
    """
    resends = connection.execute(_LATEST_RESENDS, {"ids": list(ids)})
    return {each.id: each.attempts for each in resends if each.how == How.ANOTHER_PROVIDER}


def _of_attempts(
    connection: Connection, tried: Sequence[Claimed], *, is_retry: bool
) -> tuple[Mapping[UUID, tuple[str, ...]], Mapping[UUID, frozenset[str]]]:
    """Return `last_resort` and `without_route` of rows that were tried before: two queries, and none without any."""
    if not tried:
        return {}, {}
    ids, since = [row.id for row in tried], tried[0].now - ROUTE_PAUSE
    attempts, avoided = attempts_of(connection, ids), _attempts_to_avoid(connection, ids)
    last = {row_id: last_resort(its, avoided.get(row_id, 0), is_retry=is_retry) for row_id, its in attempts.items()}
    return (
        {row_id: names for row_id, names in last.items() if names},
        {row_id: names for row_id, its in attempts.items() if (names := without_route(its, since))},
    )
