"""Diagnostics: what is waiting or failing on a channel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, func, or_, select, text
from sqlalchemy.orm import Session

from notifier.models import Attempt, Hold, Notification, Resend, Suppression, TakenReceipt
from notifier.people.suppressions import listed
from notifier.security.address_seals import seals_of
from notifier.vocabulary.ids import first_id_of, time_of
from notifier.vocabulary.states import ALL_CHANNELS, Channel

#: Notifications of one recipient that are shown.
_LATEST: Final = 5
#: Kinds of attempts that are shown, and attempts that are looked at for them.
_KINDS: Final = 20
_NEWEST: Final = 50_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Live rows of a channel in one state and for one reason."""

    status: str
    reason: str | None
    rows: int
    first_due: datetime


_WAITING: Final = text("""
    SELECT status, reason, count(*) AS rows, min(due_at) AS first_due FROM notifications
    WHERE due_at IS NOT NULL AND channel = :channel GROUP BY status, reason ORDER BY rows DESC
""")


def waiting(engine: Engine, channel: Channel) -> list[Waiting]:
    """Count the live rows by status and reason, the largest number first."""
    with engine.connect() as connection:
        return [Waiting(**row) for row in connection.execute(_WAITING, {"channel": channel.value}).mappings()]


@dataclass(frozen=True, slots=True)
class Tried:
    """Attempts of one provider that came to the same."""

    provider: str | None
    outcome: str
    error: str | None
    attempts: int
    last: datetime


# Attempts are in the order of their notifications: a retry of an old one may not be among the newest.
_TRIED: Final = text(f"""
    SELECT a.provider, a.outcome, a.error, count(*) AS attempts, max(a.started_at) AS last
    FROM (SELECT * FROM attempts WHERE id >= :first ORDER BY id DESC LIMIT {_NEWEST}) a
        JOIN notifications n ON n.id = a.notification_id
    WHERE n.id >= :first AND n.channel = :channel AND a.started_at > :since
    GROUP BY 1, 2, 3 ORDER BY attempts DESC LIMIT {_KINDS}
""")
_DAYS: Final = timedelta(days=4)


def recent_attempts(engine: Engine, channel: Channel, span: timedelta) -> list[Tried]:
    """Count the outcomes of recent attempts, the most frequent first."""
    now = datetime.now(UTC)
    values = {"channel": channel.value, "since": now - span, "first": first_id_of(now - _DAYS)}
    with engine.connect() as connection:
        return [Tried(**row) for row in connection.execute(_TRIED, values).mappings()]


def holds_on(engine: Engine, channel: Channel) -> list[str]:
    """Return the holds that pause the whole channel."""
    with Session(engine) as session:
        return list(session.scalars(select(Hold.target).where(Hold.target.in_([ALL_CHANNELS, channel.value]))))


def suppression(engine: Engine, channel: Channel, recipient: str) -> str | None:
    """Return why an address is on the suppression list; None if it is not."""
    with Session(engine) as session:
        found = suppressions_of(session, channel, [recipient])
    return found[0].reason or "by hand" if found else None


def suppressions_of(session: Session, channel: Channel, addresses: Iterable[str]) -> list[Suppression]:
    """Return the current suppressions of some addresses."""
    stands = or_(Suppression.until.is_(None), Suppression.until > func.now())
    forms = listed(session, channel, addresses)
    query = select(Suppression).where(Suppression.channel == channel.value, Suppression.folded.in_(forms), stands)
    return list(session.scalars(query))


def latest(engine: Engine, channel: Channel, recipient: str) -> Sequence[tuple[Notification, Sequence[Attempt]]]:
    """Return the last notifications to an address on a channel, newest first, with their attempts."""
    query = (
        select(Notification)
        .where(
            Notification.recipient.in_(seals_of(engine).forms(channel, recipient)),
            Notification.channel == channel.value,
        )
        .order_by(Notification.id.desc())
        .limit(_LATEST)
    )
    with Session(engine, expire_on_commit=False) as session:
        rows = list(session.scalars(query))
        return [(row, attempts_of(session, row.id)) for row in rows]


def attempts_of(session: Session, notification_id: UUID) -> list[Attempt]:
    """Return a notification's attempts, in order."""
    # An attempt's id is of its notification's millisecond: the lower bound prunes the partitions before it.
    query = select(Attempt).where(
        Attempt.notification_id == notification_id, Attempt.id >= first_id_of(time_of(notification_id))
    )
    return list(session.scalars(query.order_by(Attempt.number)))


def earlier_sends(session: Session, notification_id: UUID) -> list[Resend]:
    """Return the states in which a notification was each time that it was sent again, oldest first."""
    query = select(Resend).where(Resend.notification_id == notification_id)
    return list(session.scalars(query.order_by(Resend.id)))


def receipts_of(session: Session, notification_id: UUID) -> list[TakenReceipt]:
    """Return the receipts that providers have sent for a notification, in the order in which the events happened."""
    query = select(TakenReceipt).where(TakenReceipt.notification_id == notification_id)
    return list(session.scalars(query.order_by(TakenReceipt.happened_at, TakenReceipt.id)))
