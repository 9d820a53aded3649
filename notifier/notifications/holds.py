"""Holds: an operator pauses a channel, a route or everything. Nothing is lost; held rows say so."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.orm import Session

from notifier.models import Hold, Route
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import ALL_CHANNELS, Channel, Status

#: Seconds after which a held row is looked at again by itself; a release brings it forward.
RECHECK: Final = 3600.0
#: Rows that a release frees in one transaction.
_BATCH: Final = 5000

_HOLD: Final = text("""
    INSERT INTO holds (id, target, held_by, created_at) VALUES (:id, :target, :held_by, :now)
    ON CONFLICT (target) DO NOTHING
""")
_RELEASE: Final = text("DELETE FROM holds WHERE target = :target")
# By the index of held rows; those that another clock frees at this moment are left to it.
_FREE: Final = text(f"""
    SELECT id FROM notifications n
    WHERE reason = '{Reason.HELD}' AND due_at > now() AND status = '{Status.SCHEDULED}'
        AND NOT EXISTS (SELECT FROM holds WHERE target IN ('{ALL_CHANNELS}', n.channel, n.route))
    ORDER BY id LIMIT {_BATCH} FOR UPDATE OF n SKIP LOCKED
""")
# By creation time: the notification that is due longest goes first.
_BRING_FORWARD: Final = text("UPDATE notifications SET due_at = created_at WHERE id = ANY(:ids)")


def check_target(connection: Connection, target: str) -> None:
    """Raise Invalid where a target is neither `all`, a channel nor a route."""
    if target in {ALL_CHANNELS, *Channel}:
        return
    if connection.scalar(select(Route.id).where(Route.name == target)) is None:
        raise Invalid(
            {"target": [f"Neither '{ALL_CHANNELS}', a channel ({', '.join(Channel)}) nor the name of a route."]}
        )


def hold(engine: Engine, target: str, held_by: str) -> bool:
    """Hold a target, so that nothing more of it is sent; false if it is held already. Raises Invalid.

    Rows that a worker has claimed before are still sent.
    """
    with engine.begin() as connection:
        check_target(connection, target)
        values = {"id": new_id(), "target": target, "held_by": held_by, "now": datetime.now(UTC)}
        return connection.execute(_HOLD, values).rowcount > 0


def release(engine: Engine, target: str) -> bool:
    """Lift one hold; false where there was none. The clock brings its rows back within seconds."""
    with engine.begin() as connection:
        return connection.execute(_RELEASE, {"target": target}).rowcount > 0


def listed(engine: Engine) -> Sequence[Hold]:
    """Return all holds, by target."""
    with Session(engine) as session:
        return session.scalars(select(Hold).order_by(Hold.target)).all()


def free_released(engine: Engine) -> int:
    """Make held rows due whose hold was lifted, a batch of them; returns how many. Any number of clocks may call it."""
    with engine.begin() as connection:
        ids = list(connection.scalars(_FREE))
        if ids:
            connection.execute(_BRING_FORWARD, {"ids": ids})
    return len(ids)
