"""Slots and probes of endpoints: how many messages may go to one now, and who may try out one that fails.

The rules are providers.slots' and providers.circuit's. Their state is in the endpoints' rows in Postgres, shared by all
workers. A row is locked until the transaction ends, so that two batches never take the same slot or probe.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text

from notifier.providers.circuit import Circuit
from notifier.providers.slots import Grant, Line, grant
from notifier.storage.stored_values import bounded_seconds, seconds_until
from notifier.vocabulary.reasons import Reason

#: Seconds until another worker may send a probe, if the result of this one has not come.
PROBE_SECONDS: Final = 45
#: A receiver's limit spreads its load: a message some moments early does no harm, and need not wait for the clock.
_FRESH_EARLY: Final = 1.0

# All rows are locked in one order, missing ones too, so that no two transactions wait for each other.
_LOCK: Final = text("""
    INSERT INTO endpoints (id) SELECT id FROM unnest(CAST(:ids AS uuid[])) AS wanted(id) ORDER BY id
    ON CONFLICT (id) DO UPDATE SET id = excluded.id
""")
#: The columns that circuit_of needs, for a SELECT from `endpoints e`.
CIRCUIT: Final = f"""
    e.failures, {bounded_seconds("e.open_for")} AS open_for, {seconds_until("e.open_until")} AS open_left, e.probing
"""
_CIRCUITS: Final = text(f"SELECT e.id, {CIRCUIT} FROM endpoints e WHERE e.id = ANY(:ids)")
_TAKE_PROBES: Final = text(f"""
    UPDATE endpoints SET open_until = now() + {PROBE_SECONDS} * interval '1 second', probing = true WHERE id = ANY(:ids)
""")
_LINES: Final = text(f"""
    SELECT id, coalesce(greatest(extract(epoch FROM next_slot - now()), 0), 0) AS next_slot, coalesce((
        SELECT extract(epoch FROM max(due_at) - now()) FROM notifications
        WHERE subscription_id = e.id AND reason = '{Reason.THROTTLED}' AND due_at IS NOT NULL AND due_at > now()
    ), 0) AS last_place
    FROM endpoints e WHERE id = ANY(:ids)
""")
_TAKE_SLOTS: Final = text("""
    UPDATE endpoints e SET next_slot = now() + taken.next_slot * interval '1 second'
    FROM json_to_recordset(CAST(:taken AS json)) AS taken(id uuid, next_slot double precision) WHERE e.id = taken.id
""")
_WAITED_FOR: Final = text("UPDATE endpoints SET waited_for = true WHERE id = ANY(:ids) AND NOT waited_for")


@dataclass(frozen=True, slots=True)
class Demand:
    """Messages for an endpoint that takes `rate` a second."""

    rate: float
    #: Messages that a rule has deferred before.
    waited: int
    fresh: int


def lock(connection: Connection, endpoint_ids: Iterable[UUID]) -> None:
    """Lock the rows of endpoints until the connection's transaction ends. Everything below needs that lock."""
    ids = sorted(set(endpoint_ids))
    if ids:
        connection.execute(_LOCK, {"ids": ids})


def circuit_of(row: Row[Any]) -> Circuit:
    """Return the circuit of an endpoint's row. While a probe is under way, `open_until` is when the next one may go."""
    if row.probing and row.open_left is not None:
        return Circuit(row.failures, row.open_for, 0.0, row.open_left)
    return Circuit(row.failures, row.open_for, row.open_left)


def take_probes(connection: Connection, endpoint_ids: Sequence[UUID]) -> set[UUID]:
    """Take the probes of endpoints that are half-open; returns those to which this worker sends one."""
    if not endpoint_ids:
        return set()
    rows = connection.execute(_CIRCUITS, {"ids": list(endpoint_ids)}).all()
    taken = {row.id for row in rows if circuit_of(row).take_probe(PROBE_SECONDS) is not None}
    if taken:
        connection.execute(_TAKE_PROBES, {"ids": list(taken)})
    return taken


def take_slots(connection: Connection, demands: Mapping[UUID, Demand]) -> dict[UUID, Grant]:
    """Take slots of endpoints for the messages that there are for each."""
    if not demands:
        return {}
    granted, taken = {}, []
    for row in connection.execute(_LINES, {"ids": list(demands)}):
        demand, line = demands[row.id], Line(float(row.next_slot), float(row.last_place))
        granted[row.id] = grant(line, demand.rate, waited=demand.waited, fresh=demand.fresh, fresh_early=_FRESH_EARLY)
        if granted[row.id].next_slot != line.next_slot:
            taken.append({"id": row.id, "next_slot": granted[row.id].next_slot})
    if taken:
        connection.execute(_TAKE_SLOTS, {"taken": orjson.dumps(taken).decode()})
    return granted


def mark_waited_for(connection: Connection, endpoint_ids: Iterable[UUID]) -> None:
    """Mark endpoints for which rows wait, so that the clock releases those rows (webhooks.release_waiting)."""
    ids = sorted(set(endpoint_ids))
    if ids:
        connection.execute(_WAITED_FOR, {"ids": ids})
