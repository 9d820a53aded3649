"""Recovery: what a subscription missed, sent again; and an event to try it out with.

A recovery is a row that says how far it is. Whoever begins one does its first batch, the clock does the others.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from notifier.addresses import without_password
from notifier.channels import Channel, Status
from notifier.deadletters import REVIVED_IN_SQL
from notifier.ids import first_id_of, new_id, time_of
from notifier.lanes import BATCH
from notifier.models import Notification, Recovery, Subscription
from notifier.plans import Lease
from notifier.receivers import SUBSCRIPTION_DISABLED, TEST

Hints = list[tuple[str, UUID]]

_IS_MISSED: Final = f"""
    subscription_id = :subscription_id AND id < :id
        AND (status = '{Status.FAILED}' OR status = '{Status.SKIPPED}' AND reason = '{SUBSCRIPTION_DISABLED}')
        AND status IN ('{Status.FAILED}', '{Status.SKIPPED}')  -- as the index of them has it
"""
_COUNT: Final = text(f"SELECT count(*) FROM notifications WHERE {_IS_MISSED} AND id >= :place")
_BEGIN: Final = text("""
    INSERT INTO recoveries (id, subscription_id, since, place, total, recovered, created_at)
    VALUES (:id, :subscription_id, :since, :place, :total, 0, now())
""")
_UNFINISHED: Final = text("""
    SELECT * FROM recoveries WHERE finished_at IS NULL AND (:id IS NULL OR id = :id)
    ORDER BY worked_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_MISSED: Final = text(f"SELECT id FROM notifications WHERE {_IS_MISSED} AND id > :place ORDER BY id LIMIT {BATCH}")
# Letters before rows, as a requeue takes them: two at once must not wait for each other.
_LETTERS: Final = text("""
    WITH locked AS MATERIALIZED (
        SELECT id FROM dead_letters WHERE notification_id = ANY(:ids) AND requeued_at IS NULL ORDER BY id FOR UPDATE
    )
    UPDATE dead_letters d SET requeued_at = now() FROM locked WHERE d.id = locked.id
""")
_REVIVE: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM notifications WHERE id = ANY(:ids) AND {_IS_MISSED} ORDER BY id FOR UPDATE
    )
    UPDATE notifications n SET {REVIVED_IN_SQL}, due_at = now() + :lease * interval '1 second'
    FROM locked WHERE n.id = ANY(:ids) AND n.id = locked.id RETURNING n.queue, n.id
""")
_KEEP_PLACE: Final = text("""
    UPDATE recoveries SET place = :place, recovered = recovered + :count, worked_at = clock_timestamp(),
        finished_at = CASE WHEN :is_last THEN now() END WHERE id = :id
""")


def begin(engine: Engine, subscription_id: UUID, since: datetime) -> UUID:
    """Begin to send again what failed for a subscription since then, or was skipped while it was disabled.

    Returns the recovery's id; `go_on` does the work.
    """
    recovery_id = new_id()
    values = {"id": recovery_id, "subscription_id": subscription_id, "since": since, "place": first_id_of(since)}
    with engine.begin() as connection:
        total = connection.scalar(_COUNT, values)
        connection.execute(_BEGIN, {**values, "total": total})
    return recovery_id


def count_missed(engine: Engine, subscription_id: UUID, since: datetime) -> int:
    """How many notifications a recovery would send again now."""
    values = {"id": new_id(), "subscription_id": subscription_id, "place": first_id_of(since)}
    with engine.connect() as connection:
        return int(connection.scalar(_COUNT, values) or 0)


def find(engine: Engine, recovery_id: UUID) -> Recovery | None:
    """A recovery and how far it is, or None."""
    with Session(engine) as session:
        return session.get(Recovery, recovery_id)


def go_on(engine: Engine, lease: Lease, recovery_id: UUID | None = None) -> Hints | None:
    """Requeue the next batch of a recovery, by default of one whose turn it is; None where there is none.

    Returns the (queue, id) of what is due now. Any number of processes may call it, each takes another recovery.
    Whoever dies in between has done all or nothing of a batch.
    """
    with engine.begin() as connection:
        found = connection.execute(_UNFINISHED, {"id": recovery_id}).mappings().one_or_none()
        if found is None:
            return None
        values = {name: found[name] for name in ("id", "subscription_id", "place")}
        ids = list(connection.scalars(_MISSED, values))
        connection.execute(_LETTERS, {"ids": ids})
        revived = connection.execute(_REVIVE, {**values, "ids": ids, "lease": lease(Channel.WEBHOOK)})
        hints = [(str(row.queue), row.id) for row in revived]
        is_last = len(ids) < BATCH
        place = ids[-1] if ids else found["place"]
        connection.execute(_KEEP_PLACE, {"id": found["id"], "place": place, "count": len(hints), "is_last": is_last})
    return hints


def send_test(engine: Engine, subscription: Subscription, lease: Lease) -> tuple[Notification, tuple[str, UUID]]:
    """Make a test notification for a subscription, enabled or not; returns it and its (queue, id)."""
    queue = Channel.WEBHOOK.value
    made = Notification(
        id=new_id(),
        event_type=TEST,
        source="notifier",
        subscription_id=subscription.id,
        recipient=without_password(subscription.url),
        channel=queue,
        critical=False,
        priority="normal",
        content=orjson.dumps({"test": True, "subscription_id": str(subscription.id)}).decode(),
        queue=queue,
        status=Status.QUEUED.value,
        claims=0,
        attempts=0,
        tries=0,
        lost=0,
    )
    made.origin_id, made.created_at = made.id, time_of(made.id)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        made.due_at = session.execute(
            text("SELECT now() + :lease * interval '1 second'"), {"lease": lease(queue)}
        ).scalar_one()
        session.add(made)
    return made, (queue, made.id)
