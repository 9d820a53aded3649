"""Release of waiting webhooks: make rows due as soon as nothing delays their endpoint any more.

The gate gives each waiting row a time, from the information of that moment. Later, breakers close, limits are lifted or
raised, subscriptions are disabled and deleted, and rows ahead in the queue are cancelled. So the clock checks the
endpoints with waiting rows once a second, as they are now.
"""

import math
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, Row, text

from notifier.providers.slots import PATIENCE, free_slots
from notifier.vocabulary.reasons import Reason
from notifier.webhooks.targets import usable_rate

#: Endpoints that are checked, and rows that are released, in one transaction.
_RECEIVERS: Final = 500
_ROWS: Final = 5000

# Not those whose breaker is open, or whose next slot is yet to come: nothing of theirs may go.
_LOOK: Final = text(f"""
    SELECT e.id, coalesce(s.enabled, false) AS enabled, s.rate_limit_per_second AS rate
    FROM endpoints e LEFT JOIN subscriptions s ON s.id = e.id
    WHERE e.waited_for AND (s.id IS NULL OR NOT s.enabled OR e.open_until IS NULL
        AND (s.rate_limit_per_second IS NULL OR coalesce(e.next_slot <= now(), true)))
    ORDER BY e.looked_at NULLS FIRST LIMIT {_RECEIVERS} FOR UPDATE OF e SKIP LOCKED
""")


def _waiting(reason: Reason) -> str:
    """Select an endpoint's rows that wait for a reason, by the index of those."""
    return f"n.subscription_id = asked.id AND n.reason = '{reason}' AND n.due_at IS NOT NULL AND n.due_at"


def _first(reason: Reason) -> str:
    """Select when the first of them is due: one index look-up. EXISTS would become a join with all waiting rows."""
    return f"SELECT min(n.due_at) FROM notifications n WHERE {_waiting(reason)} > now()"


# Two queries, because the index is used only if the reason is part of the SQL text.
_CHOOSE: Final = {
    reason: text(f"""
        SELECT chosen.id FROM json_to_recordset(CAST(:asked AS json)) AS asked(id uuid, most integer, patience integer)
        CROSS JOIN LATERAL (
            SELECT n.id FROM notifications n WHERE {_waiting(reason)} > now()
            ORDER BY n.due_at LIMIT asked.most FOR UPDATE SKIP LOCKED
        ) AS chosen
        WHERE ({_first(reason)}) > now() + asked.patience * interval '1 millisecond' LIMIT {_ROWS}
    """)
    for reason in (Reason.BREAKER_OPEN, Reason.THROTTLED)
}
_RELEASE: Final = text("UPDATE notifications SET due_at = now() WHERE id = ANY(:ids)")
_LOOKED: Final = text(f"""
    UPDATE endpoints asked SET looked_at = now(),
        waited_for = ({_first(Reason.BREAKER_OPEN)}) IS NOT NULL OR ({_first(Reason.THROTTLED)}) IS NOT NULL
    WHERE id = ANY(:ids)
""")


def release(engine: Engine) -> int:
    """Make due the rows that nothing about their endpoints delays any more, some thousands; returns how many.

    Any number of clocks may call it at once: each takes other endpoints.
    """
    with engine.begin() as connection:
        endpoints = connection.execute(_LOOK).all()
        if not endpoints:
            return 0
        ids = _choose(connection, Reason.BREAKER_OPEN, endpoints) + _choose(connection, Reason.THROTTLED, endpoints)
        if ids:
            connection.execute(_RELEASE, {"ids": ids})
        connection.execute(_LOOKED, {"ids": [each.id for each in endpoints]})
    return len(ids)


def _choose(connection: Connection, reason: Reason, endpoints: Sequence[Row[Any]]) -> list[UUID]:
    asked = [{"id": each.id, **_how_many(each, reason)} for each in endpoints]
    return sorted(connection.scalars(_CHOOSE[reason], {"asked": orjson.dumps(asked).decode()}))


def _how_many(endpoint: Row[Any], reason: Reason) -> dict[str, int]:
    """Return how many rows to release, and the grace period in milliseconds before we release them ourselves."""
    rate = usable_rate(endpoint.rate)
    if reason == Reason.THROTTLED and endpoint.enabled and rate is not None:
        # Its slot is free. If the next row in the queue is not due soon, rows ahead of it are gone.
        return {"most": min(_ROWS, free_slots(0.0, rate, early=0.0)), "patience": math.ceil(PATIENCE * 1000)}
    return {"most": _ROWS, "patience": 0}
