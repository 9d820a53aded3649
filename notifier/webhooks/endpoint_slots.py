"""Whom may be sent to now: rate limits of receivers, probes of those that do not answer.

Kept on the endpoints' rows in Postgres and shared by all workers. A row is locked until the transaction ends, so that
two batches never take the same slot.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from notifier.vocabulary.reasons import Reason

#: For a probe to come back, in seconds, before another worker may send one.
PROBE: Final = 45

# Rows that are not there yet are made: so all are locked in one order, and no two transactions wait for each other.
_LOCK: Final = text("""
    INSERT INTO endpoints (id) SELECT id FROM unnest(CAST(:ids AS uuid[])) AS wanted(id) ORDER BY id
    ON CONFLICT (id) DO UPDATE SET id = excluded.id
""")
_TAKE_PROBES: Final = text(f"""
    UPDATE endpoints SET open_until = now() + {PROBE} * interval '1 second', probing = true
    WHERE id = ANY(:ids) AND open_until <= now() RETURNING id
""")
_PACE: Final = text(f"""
    SELECT id, coalesce(greatest(extract(epoch FROM next_slot - now()), 0), 0) AS ahead, coalesce((
        SELECT extract(epoch FROM max(due_at) - now()) FROM notifications
        WHERE subscription_id = e.id AND reason = '{Reason.THROTTLED}' AND due_at IS NOT NULL AND due_at > now()
    ), 0) AS queued_for
    FROM endpoints e WHERE id = ANY(:ids)
""")
_TAKE_SLOTS: Final = text("""
    UPDATE endpoints e SET next_slot = greatest(e.next_slot, now()) + taken.seconds * interval '1 second'
    FROM json_to_recordset(CAST(:taken AS json)) AS taken(id uuid, seconds double precision) WHERE e.id = taken.id
""")
_WAITED_FOR: Final = text("UPDATE endpoints SET waited_for = true WHERE id = ANY(:ids) AND NOT waited_for")


@dataclass(frozen=True, slots=True)
class Wish:
    """How many messages are there for an endpoint that takes `rate` a second."""

    rate: float
    #: Those that have waited for a slot already.
    waited: int
    fresh: int


@dataclass(frozen=True, slots=True)
class Slots:
    """How many messages may go now, and in how many seconds there is a place for the next one that may not."""

    free: int
    next_in: float


def lock(connection: Connection, endpoint_ids: Iterable[UUID]) -> None:
    """Keep what is known of some endpoints as it is until the connection's transaction ends. Before anything below."""
    ids = sorted(set(endpoint_ids))
    if ids:
        connection.execute(_LOCK, {"ids": ids})


def take_probes(connection: Connection, endpoint_ids: Sequence[UUID]) -> set[UUID]:
    """Those to which this worker may send the one message that tries them out."""
    return set(connection.scalars(_TAKE_PROBES, {"ids": list(endpoint_ids)})) if endpoint_ids else set()


def take_slots(connection: Connection, wishes: Mapping[UUID, Wish]) -> dict[UUID, Slots]:
    """Take of each endpoint's slots, one every 1/rate seconds, as many as are wanted and free within a second.

    Each message that must wait gets a place behind all those that wait already, and what is fresh takes no slot while
    any do: so a backlog is not asked about again and again, and the oldest goes first.
    """
    if not wishes:
        return {}
    slots, taken = {}, []
    for row in connection.execute(_PACE, {"ids": list(wishes)}):
        wish, ahead, behind = wishes[row.id], float(row.ahead), float(row.queued_for)
        # With a rate under one a second there is a whole slot as soon as one begins.
        free = max(math.floor((1 - ahead) * wish.rate), 1 if ahead < 1 else 0)
        go = min(free, wish.waited + (0 if behind else wish.fresh))
        slots[row.id] = Slots(go, max(ahead + go / wish.rate, behind + 1 / wish.rate if behind else 0.0))
        if go:
            taken.append({"id": row.id, "seconds": go / wish.rate})
    if taken:
        connection.execute(_TAKE_SLOTS, {"taken": orjson.dumps(taken).decode()})
    return slots


def keep_waiting(connection: Connection, endpoint_ids: Iterable[UUID]) -> None:
    """Mark endpoints for which rows wait, so that the clock releases those rows (webhooks.release_waiting)."""
    ids = sorted(set(endpoint_ids))
    if ids:
        connection.execute(_WAITED_FOR, {"ids": ids})
