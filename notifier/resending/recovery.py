"""Recovery: resend the notifications that a subscription missed, and send a test event.

A recovery is a row with its progress. The first batch is done in the transaction that starts it, so that the answer
to a small one is its result; the clock does the others.
"""

from collections import Counter
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from notifier.models import Notification, Recovery, Subscription
from notifier.planning.plans import Lease
from notifier.resending.resend import (
    DEFAULT,
    Asked,
    Standards,
    counted,
    lock_letters_of,
    locked,
    refusals,
    revive,
    take_letters_of,
)
from notifier.vocabulary.addresses import without_password
from notifier.vocabulary.ids import first_id_of, new_id, time_of
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.masking import masked
from notifier.vocabulary.queues import BATCH
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, How, Status
from notifier.webhooks.targets import TEST

Hints = list[tuple[str, UUID]]

#: The requester of a recovery that an older release began.
NOBODY: Final = "unknown"

_IS_MISSED: Final = f"""
    subscription_id = :subscription_id AND id < :id AND (CAST(:source AS text) IS NULL OR source = :source)
        AND (status = '{Status.FAILED}' OR status = '{Status.SKIPPED}' AND reason = '{Reason.SUBSCRIPTION_DISABLED}')
        AND status IN ('{Status.FAILED}', '{Status.SKIPPED}')  -- as the index of them has it
"""
_COUNT: Final = text(f"SELECT count(*) FROM notifications WHERE {_IS_MISSED} AND id >= :place")
_BEGIN: Final = text("""
    INSERT INTO recoveries (id, subscription_id, since, place, total, recovered, created_at, asked_by, source)
    VALUES (:id, :subscription_id, :since, :place, :total, 0, now(), :by, :source)
""")
_UNFINISHED: Final = text("""
    SELECT * FROM recoveries WHERE finished_at IS NULL AND (:id IS NULL OR id = :id)
    ORDER BY worked_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_MISSED: Final = text(f"SELECT id FROM notifications WHERE {_IS_MISSED} AND id > :place ORDER BY id LIMIT {BATCH}")
_STILL_MISSED: Final = text(f"SELECT id FROM notifications WHERE {_IS_MISSED} AND id = ANY(:ids) ORDER BY id")
_KEEP_PLACE: Final = text("""
    UPDATE recoveries SET place = :place, recovered = recovered + :count, worked_at = clock_timestamp(),
        refused = refused + :refused, refused_reasons = CAST(:reasons AS jsonb),
        finished_at = CASE WHEN :is_last THEN now() END WHERE id = :id
""")


def begin(
    engine: Engine,
    subscription_id: UUID,
    since: datetime,
    lease: Lease,
    *,
    by: str = NOBODY,
    source: str | None = None,
    standards: Standards = DEFAULT,
) -> tuple[UUID, Hints]:
    """Start to resend a subscription's notifications that failed since then, or were skipped while it was disabled.

    `by`: a key's name, or `shell:USER`. `source`: the source of the notifications; None: all sources.

    Returns the recovery's id, and the (queue, id) of the rows of its first batch; `go_on` does the others.
    """
    recovery_id = new_id()
    place = first_id_of(since)
    values = {"id": recovery_id, "subscription_id": subscription_id, "since": since, "place": place, "source": source}
    with engine.begin() as connection:
        total = connection.scalar(_COUNT, values)
        connection.execute(_BEGIN, {**values, "total": total, "by": by})
        return recovery_id, _next_batch(connection, recovery_id, lease, standards) or []


def count_missed(engine: Engine, subscription_id: UUID, since: datetime) -> int:
    """Count the notifications that a recovery would resend now."""
    values = {"id": new_id(), "subscription_id": subscription_id, "place": first_id_of(since), "source": None}
    with engine.connect() as connection:
        return int(connection.scalar(_COUNT, values) or 0)


def find(engine: Engine, recovery_id: UUID) -> Recovery | None:
    """Return a recovery and its progress, or None."""
    with Session(engine) as session:
        return session.get(Recovery, recovery_id)


def go_on(
    engine: Engine, lease: Lease, recovery_id: UUID | None = None, standards: Standards = DEFAULT
) -> Hints | None:
    """Requeue the next batch of a recovery, by default of the one whose turn it is; None if there is none.

    Rows that a rule would stop are counted as refused, and stay as they are. Returns the (queue, id) of rows that are
    due now. Any number of processes may call it; each takes another recovery. A process that dies in between has done
    all or nothing of a batch.
    """
    with engine.begin() as connection:
        return _next_batch(connection, recovery_id, lease, standards)


def _next_batch(connection: Connection, recovery_id: UUID | None, lease: Lease, standards: Standards) -> Hints | None:
    found = connection.execute(_UNFINISHED, {"id": recovery_id}).mappings().one_or_none()
    if found is None:
        return None
    values = {name: found[name] for name in ("id", "subscription_id", "place", "source")}
    ids = list(connection.scalars(_MISSED, values))
    lock_letters_of(connection, ids)
    rows = locked(connection, ids)
    # In a snapshot behind the locks: notifications that were sent again meanwhile are not part of it any more.
    missed = [rows[each] for each in connection.scalars(_STILL_MISSED, {**values, "ids": ids})]
    refused = refusals(connection, missed, standards)
    going = [row["id"] for row in missed if row["id"] not in refused]
    take_letters_of(connection, going)
    asked = Asked(How.RECOVER, found["asked_by"] or NOBODY)
    hints = revive(connection, going, asked, lease(Channel.WEBHOOK))
    reasons = Counter(found["refused_reasons"] or {}) + Counter(counted(refused.values()))
    progress = {
        "id": found["id"],
        "place": ids[-1] if ids else found["place"],
        "count": len(hints),
        "refused": len(refused),
        "reasons": to_json(reasons),
        "is_last": len(ids) < BATCH,
    }
    connection.execute(_KEEP_PLACE, progress)
    return hints


def send_test(engine: Engine, subscription: Subscription, lease: Lease) -> tuple[Notification, tuple[str, UUID]]:
    """Make a test notification for a subscription, enabled or not; returns it and its (queue, id)."""
    queue = Channel.WEBHOOK.value
    made = Notification(
        id=new_id(),
        event_type=TEST,
        source="notifier",
        subscription_id=subscription.id,
        recipient=masked(without_password(subscription.url)),
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
