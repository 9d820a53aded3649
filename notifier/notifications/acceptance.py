"""Notifications that were accepted without an event: what follows their commit."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from notifier.models import Notification
from notifier.notifications.cancellation import replace_older
from notifier.notifications.status_events import emit_status_events
from notifier.vocabulary.states import FINISHED


def settle(engine: Engine, ids: Sequence[UUID], written: Sequence[dict[str, Any]]) -> list[Notification]:
    """Cancel what committed rows replace, tell of those that ended at once, and return the notifications of `ids`.

    `written`: the rows that this request has added; none where it was a duplicate. In one transaction.
    """
    with Session(engine, expire_on_commit=False) as session, session.begin():
        if written:
            replace_older(session.connection(), written)
            emit_status_events(session.connection(), [row["id"] for row in written if row["status"] in FINISHED])
        rows = {row.id: row for row in session.scalars(select(Notification).where(Notification.id.in_(ids)))}
    return [rows[each] for each in ids if each in rows]
