"""Timelines: what happened to a notification, moment by moment, in words and in its recipient's local time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, func, or_, select
from sqlalchemy.orm import Session

from notifier.addresses import folded, sought
from notifier.channels import Channel
from notifier.explaining import explain
from notifier.looking import attempts_of, earlier_sends
from notifier.models import Attempt, DeadLetter, Event, Notification, Resend, Suppression, User
from notifier.providers import Outcome
from notifier.zones import first_known

#: Notifications that are told of at once, the newest.
MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened to one notification."""

    notification_id: UUID
    #: In which zone its moments are told.
    zone: ZoneInfo
    #: Each is a moment, where it is known, and a sentence.
    moments: list[tuple[datetime | None, str]]
    #: Where it stands, and what else the reader should know.
    conclusions: list[str]


def timelines(engine: Engine, asked: str, default: ZoneInfo) -> list[Timeline]:
    """Tell of the notifications that an id, an address, a user's id or a request's id names, the newest first.

    An event's id names its notifications. `default`: the time zone of people who have none.
    """
    with Session(engine) as session:
        return [_timeline(session, each, default) for each in _named(session, asked)]


def _named(session: Session, asked: str) -> Sequence[Notification]:
    newest = select(Notification).order_by(Notification.id.desc()).limit(MOST)
    try:
        its_id = UUID(asked)
    except ValueError:
        pass
    else:
        by_id = newest.where(or_(Notification.id == its_id, Notification.event_id == its_id))
        if found := session.scalars(by_id).all():
            return found
    # One after the other, since each has an index of its own.
    for condition in (
        Notification.user_id == asked,
        Notification.request_id == asked,
        Notification.recipient.in_(sought(None, asked)),
    ):
        if found := session.scalars(newest.where(condition)).all():
            return found
    events = select(Event.id).where(Event.request_id == asked)
    return session.scalars(newest.where(Notification.event_id.in_(events))).all()


def _timeline(session: Session, notification: Notification, default: ZoneInfo) -> Timeline:
    user = session.scalar(select(User).where(User.user_id == notification.user_id)) if notification.user_id else None
    zone = first_known((user.timezone if user else None, notification.timezone), default).zone
    attempts = attempts_of(session, notification.id)
    letters = session.scalars(select(DeadLetter).where(DeadLetter.notification_id == notification.id)).all()
    moments = [
        *_of_itself(notification),
        *((each.started_at, _attempt(each)) for each in attempts),
        *((each.created_at, f"It was given up: {each.reason}.") for each in letters),
        *((each.asked_at, _resend(each)) for each in earlier_sends(session, notification.id)),
    ]
    moments.sort(key=lambda each: (each[0] is None, each[0] or notification.created_at))
    conclusions = [explain(notification), *_conclusions(session, notification, attempts)]
    return Timeline(notification.id, zone, moments, conclusions)


def _of_itself(notification: Notification) -> Iterator[tuple[datetime | None, str]]:
    of = f" of event {notification.event_id}" if notification.event_id else ""
    by = f", by request {notification.request_id}" if notification.request_id else ""
    what = notification.event_type or "a message"
    yield notification.created_at, f"Made for {notification.channel or 'no channel'}: {what}{of}{by}."
    if notification.deferred_at is not None:
        yield notification.deferred_at, f"A rule put it off: {notification.rule or notification.reason or 'unknown'}"
    if notification.delivered_at is not None:
        yield notification.delivered_at, "It was delivered."


def _attempt(attempt: Attempt) -> str:
    by = attempt.provider or "a worker that was lost"
    words = {
        Outcome.ACCEPTED: "it was accepted",
        Outcome.AMBIGUOUS: "nobody knows whether it was sent, so that it may have arrived",
        Outcome.REJECTED: "it was refused for good",
        Outcome.UNSENT: "it was not sent",
    }
    error = f" ({attempt.error})" if attempt.error else ""
    return f"Attempt {attempt.number} by {by}: {words.get(Outcome(attempt.outcome), attempt.outcome)}{error}."


def _resend(resend: Resend) -> str:
    return f"Sent again ({resend.how}) by {resend.asked_by}; until then it was {resend.status}."


def _conclusions(session: Session, notification: Notification, attempts: Sequence[Attempt]) -> Iterator[str]:
    may_have_arrived = [each for each in attempts if each.outcome in {Outcome.ACCEPTED, Outcome.AMBIGUOUS}]
    if len(may_have_arrived) > 1:
        numbers = ", ".join(str(each.number) for each in may_have_arrived)
        yield f"It may have arrived {len(may_have_arrived)} times: by attempts {numbers}."
    if notification.critical:
        yield "It is critical: preferences and quiet hours do not hold it up."
    if notification.recipient is None or notification.channel is None:
        return
    reasons = session.scalars(
        select(Suppression.reason).where(
            Suppression.channel == notification.channel,
            Suppression.folded == folded(Channel(notification.channel), notification.recipient),
            or_(Suppression.until.is_(None), Suppression.until > func.now()),
        )
    )
    for reason in reasons:
        yield f"Its address is on the suppression list by now: {reason}."
