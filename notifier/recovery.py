"""Recovery: what a subscription missed, sent again; and an event to try it out with."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from notifier.channels import Channel, Status
from notifier.ids import first_id_of, new_id, time_of
from notifier.lanes import BATCH
from notifier.models import Notification, Subscription
from notifier.plans import Lease
from notifier.receivers import SUBSCRIPTION_DISABLED, TEST

Hints = list[tuple[str, UUID]]

# Chunk by chunk behind the last id, so that what fails again meanwhile is not taken twice.
_IS_MISSED: Final = f"""
    subscription_id = :subscription_id AND id >= :since
        AND (status = '{Status.FAILED}' OR status = '{Status.SKIPPED}' AND reason = '{SUBSCRIPTION_DISABLED}')
"""
_MISSED: Final = text(
    f"SELECT id FROM notifications WHERE {_IS_MISSED} AND id > :after ORDER BY id LIMIT {BATCH} FOR UPDATE"
)
_COUNT: Final = text(f"SELECT count(*) FROM notifications WHERE {_IS_MISSED}")
_LETTERS: Final = text("""
    UPDATE dead_letters SET requeued_at = now() WHERE notification_id = ANY(:ids) AND requeued_at IS NULL
""")
_REVIVE: Final = text(f"""
    UPDATE notifications SET status = '{Status.QUEUED}', reason = NULL, rule = NULL, deferred_at = NULL, tries = 0,
        lost = 0, queue = CASE priority WHEN 'normal' THEN channel ELSE channel || '.' || priority END,
        due_at = now() + :lease * interval '1 second'
    WHERE id = ANY(:ids) RETURNING queue, id
""")


def count_missed(engine: Engine, subscription_id: UUID, since: datetime) -> int:
    """How many notifications `recover` would requeue now."""
    with engine.connect() as connection:
        values = {"subscription_id": subscription_id, "since": first_id_of(since)}
        return int(connection.scalar(_COUNT, values) or 0)


def recover(engine: Engine, subscription_id: UUID, since: datetime, lease: Lease) -> Iterator[Hints]:
    """Requeue what failed for a subscription since then, or was skipped while it was disabled, in batches.

    Yields (queue, id) of each batch once it is committed. Whoever stops in between has recovered what came before, and
    may call it again.
    """
    after, newest = first_id_of(since), new_id()
    while True:
        with engine.begin() as connection:
            values = {"subscription_id": subscription_id, "since": first_id_of(since), "after": after}
            ids = [each for each in connection.scalars(_MISSED, values) if each < newest]
            if not ids:
                return
            connection.execute(_LETTERS, {"ids": ids})
            revived = connection.execute(_REVIVE, {"ids": ids, "lease": lease(Channel.WEBHOOK)})
            hints = [(str(row.queue), row.id) for row in revived]
        yield hints
        after = ids[-1]


def send_test(engine: Engine, subscription: Subscription, lease: Lease) -> tuple[Notification, tuple[str, UUID]]:
    """Make a test notification for a subscription, enabled or not; returns it and its (queue, id)."""
    queue = Channel.WEBHOOK.value
    made = Notification(
        id=new_id(),
        event_type=TEST,
        source="notifier",
        subscription_id=subscription.id,
        recipient=subscription.url,
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
