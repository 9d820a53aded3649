"""Timelines: the history of a notification, moment by moment, in words and in its recipient's local time.

An event without notifications has a timeline, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Engine, and_, or_, select, union_all
from sqlalchemy.orm import Session

from notifier.diagnostics.explanations import explain, explain_event
from notifier.diagnostics.records import attempts_of, earlier_sends, receipts_of, suppressions_of
from notifier.diagnostics.unmatched_events import why_unheard
from notifier.models import (
    Attempt,
    DeadLetter,
    Endpoint,
    Event,
    Hold,
    Notification,
    Resend,
    Suppression,
    TakenReceipt,
    User,
)
from notifier.people.users import is_reached_at
from notifier.providers.breakers import BreakerStatus, breaker_statuses
from notifier.providers.protocol import Outcome
from notifier.security.address_seals import seals_of
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import ALL_CHANNELS, Channel, EventStatus
from notifier.vocabulary.time_zones import first_known
from notifier.vocabulary.timestamps import rfc3339

#: The most notifications in one answer, the newest.
MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Timeline:
    """The story of one notification, or of an event that made none."""

    #: The notification's id, or another subject.
    title: str
    #: The time zone of its moments.
    zone: ZoneInfo
    #: Each is a moment, where it is known, and a sentence.
    moments: list[tuple[datetime | None, str]]
    #: Its state, and notes for the reader.
    conclusions: list[str]


def timelines(engine: Engine, asked: str, default: ZoneInfo) -> list[Timeline]:
    """Return the timelines of an id, an address, a user's id or a request's id, newest first.

    They are those of notifications, and of events that made none. An event's id names its notifications, a dead
    letter's id its notification or event. A known user or address without any notification gets a timeline that says
    so. `default`: the time zone of people who have none.
    """
    with Session(engine) as session:
        named = sorted(_named(session, asked), key=lambda each: each.id, reverse=True)[:MOST]
        standing = (
            breaker_statuses(engine) if any(isinstance(each, Notification) and each.due_at for each in named) else []
        )
        stories = [
            _timeline(session, each, default, standing)
            if isinstance(each, Notification)
            else _unheard(session, each, default)
            for each in named
        ]
        return stories or list(_known(session, asked, default))


def _named(session: Session, asked: str) -> Sequence[Notification | Event]:
    try:
        its_id = UUID(asked)
    except ValueError:
        pass
    else:
        letter = session.get(DeadLetter, its_id)
        ids = [its_id] if letter is None else [letter.notification_id or letter.event_id]
        by_id = or_(Notification.id.in_(ids), Notification.event_id.in_(ids))
        if found := _newest(session, by_id, Event.id.in_(ids)):
            return found
    forms = _forms(session, None, asked)
    # An event that names an address makes something of it, unless its fan-out waits or has failed.
    pending = select(Event.id).where(Event.due_at.is_not(None))
    dead = select(DeadLetter.event_id).where(DeadLetter.notification_id.is_(None))
    # One after the other, since each has an index of its own.
    for notifications, events in (
        (Notification.user_id == asked, Event.user_id == asked),
        (Notification.request_id == asked, Event.request_id == asked),
        (Notification.recipient.in_(forms), and_(Event.id.in_(union_all(pending, dead)), Event.recipient.in_(forms))),
    ):
        if found := _newest(session, notifications, events):
            return found
    # Made by a later replay: the request of the event is another.
    events_of_request = select(Event.id).where(Event.request_id == asked)
    return _newest(session, Notification.event_id.in_(events_of_request), None)


def _forms(session: Session, channel: Channel | None, asked: str) -> tuple[str, ...]:
    return seals_of(session).forms_sought(channel, asked)


def _newest(
    session: Session, notifications: ColumnElement[bool], events: ColumnElement[bool] | None
) -> list[Notification | Event]:
    """Return the newest notifications, and the newest of the events that made none."""
    found: list[Notification | Event] = []
    found += session.scalars(select(Notification).where(notifications).order_by(Notification.id.desc()).limit(MOST))
    if events is not None:
        made = select(Notification.id).where(Notification.event_id == Event.id)
        made_none = select(Event).where(events, ~made.exists())
        found += session.scalars(made_none.order_by(Event.id.desc()).limit(MOST))
    return found


def _known(session: Session, asked: str, default: ZoneInfo) -> Iterator[Timeline]:
    """Tell that a user or an address is known for which nothing was made."""
    nothing = "Nothing was made for it that is still kept."
    is_reached = is_reached_at(session, _forms(session, None, asked))
    for user in session.scalars(select(User).where(or_(User.user_id == asked, is_reached))):
        yield Timeline(f"user {user.user_id}", default, [], [nothing])
    for channel in Channel:
        for each in suppressions_of(session, channel, _forms(session, channel, asked)):
            yield Timeline(f"{channel} address", default, [(each.created_at, _suppressed(each))], [nothing])


def _suppressed(suppression: Suppression) -> str:
    until = f", until {_at(suppression.until)}" if suppression.until else ""
    return f"It was put on the suppression list{until}: {suppression.reason or 'by hand'}."


def _unheard(session: Session, event: Event, default: ZoneInfo) -> Timeline:
    """Tell of an event that made no notification."""
    letters = session.scalars(
        select(DeadLetter).where(DeadLetter.event_id == event.id, DeadLetter.notification_id.is_(None))
    ).all()
    by = f" by {event.source}" + (f", by request {event.request_id}" if event.request_id else "")
    moments: list[tuple[datetime | None, str]] = [(event.created_at, f"Accepted: {event.event_type}{by}.")]
    moments += [each for letter in letters for each in _letter(letter)]
    if event.cancelled_at is not None:
        moments.append((event.cancelled_at, "It was cancelled before it was fanned out."))
    moments.sort(key=lambda each: each[0] or event.created_at)
    is_processed = event.status == EventStatus.PROCESSED
    conclusions = ["It made no notification." if is_processed else explain_event(event, 0)]
    if event.status == EventStatus.ACCEPTED and event.error:
        conclusions.append(f"Making its notifications failed the last time: {event.error}.")
    zone = first_known((event.timezone,), default).zone
    return Timeline(f"event {event.id}", zone, moments, [*conclusions, *why_unheard(session, event)])


def _timeline(
    session: Session, notification: Notification, default: ZoneInfo, standing: Sequence[BreakerStatus]
) -> Timeline:
    user = session.scalar(select(User).where(User.user_id == notification.user_id)) if notification.user_id else None
    zone = first_known((user.timezone if user else None, notification.timezone), default).zone
    attempts = attempts_of(session, notification.id)
    letters = session.scalars(select(DeadLetter).where(DeadLetter.notification_id == notification.id)).all()
    moments = [
        *_of_itself(notification),
        *((each.started_at, _attempt(each)) for each in attempts),
        *(each for letter in letters for each in _letter(letter)),
        *((each.happened_at, _receipt(each)) for each in receipts_of(session, notification.id)),
        *((each.asked_at, _resend(each)) for each in earlier_sends(session, notification.id)),
    ]
    moments.sort(key=lambda each: (each[0] is None, each[0] or notification.created_at))
    conclusions = [
        explain(notification),
        *_in_the_way(session, notification, standing),
        *_conclusions(session, notification, attempts),
        *_hours(notification, user, zone),
    ]
    return Timeline(str(notification.id), zone, moments, conclusions)


def _letter(letter: DeadLetter) -> Iterator[tuple[datetime | None, str]]:
    words = "Its provider said that it did not arrive" if letter.reason == Reason.BOUNCED else "It was given up"
    error = f" ({letter.error})" if letter.error else ""
    yield letter.created_at, f"{words}: {letter.reason}{error}."
    if letter.requeued_at is not None:
        yield letter.requeued_at, "Its dead letter was requeued."


def _at(moment: datetime) -> str:
    return rfc3339(moment.replace(microsecond=0))


def _in_the_way(session: Session, notification: Notification, standing: Sequence[BreakerStatus]) -> Iterator[str]:
    """Yield the reasons why a waiting notification cannot be sent now."""
    if notification.due_at is None:
        return
    targets = [each for each in (ALL_CHANNELS, notification.channel, notification.route) if each]
    for hold in session.scalars(select(Hold).where(Hold.target.in_(targets)).order_by(Hold.target)):
        yield (
            f"{hold.held_by} holds {hold.target} since {_at(hold.created_at)}: nothing of it goes out before"
            f" manage.py release {hold.target}."
        )
    if notification.subscription_id is not None:
        endpoint = session.get(Endpoint, notification.subscription_id)
        if endpoint is not None and endpoint.open_until is not None:
            since = f" since {_at(endpoint.failing_since)}" if endpoint.failing_since else ""
            until = _at(endpoint.open_until)
            yield f"Its receiver fails{since}, and is left alone; one message tries it from {until} on."
        return
    for each in standing:
        if each.channel == notification.channel and each.open_until is not None:
            since = f" since {_at(each.failing_since)}" if each.failing_since else ""
            yield (
                f"The provider {each.name} fails{since}, and is left alone ({each.error or 'nobody knows why'});"
                f" one message tries it from {_at(each.open_until)} on."
            )


def _hours(notification: Notification, user: User | None, zone: ZoneInfo) -> Iterator[str]:
    """Tell why a notification may come at night."""
    if notification.critical:
        yield "It is critical: preferences and quiet hours do not hold it up."
    elif notification.user_id is None and notification.subscription_id is None:
        yield "It names no user, so nobody's quiet hours hold it up."
    elif user is not None and not (user.preferences or {}).get("quiet_hours"):
        yield "Its user has set no quiet hours."
    if user is not None and user.timezone is None:
        yield f"Its user has no time zone: {zone.key} is taken."


def _of_itself(notification: Notification) -> Iterator[tuple[datetime | None, str]]:
    of = f" of event {notification.event_id}" if notification.event_id else ""
    by = f", by request {notification.request_id}" if notification.request_id else ""
    what = notification.event_type or "a message"
    yield notification.created_at, f"Made for {notification.channel or 'no channel'}: {what}{of}{by}."
    if notification.deferred_at is not None:
        why = notification.explanation or notification.reason or "unknown"
        yield notification.deferred_at, f"A rule put it off: {why}"
    if notification.delivered_at is not None:
        yield notification.delivered_at, "It was delivered, as its provider or receiver said."


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


def _receipt(receipt: TakenReceipt) -> str:
    error = f" ({receipt.error})" if receipt.error else ""
    note = "" if receipt.applied else "; it came late or twice, and changed nothing"
    return (
        f"Its provider {receipt.provider} says: {receipt.kind}{error}. We heard of it at {_at(receipt.taken_at)}{note}."
    )


def _resend(resend: Resend) -> str:
    return f"Sent again ({resend.how.replace('_', ' ')}) by {resend.asked_by}; until then it was {resend.status}."


def _conclusions(session: Session, notification: Notification, attempts: Sequence[Attempt]) -> Iterator[str]:
    may_have_arrived = [each for each in attempts if each.outcome in {Outcome.ACCEPTED, Outcome.AMBIGUOUS}]
    if len(may_have_arrived) > 1:
        numbers = ", ".join(str(each.number) for each in may_have_arrived)
        yield f"It may have arrived {len(may_have_arrived)} times: by attempts {numbers}."
    if notification.recipient is None or notification.channel is None:
        return
    for each in suppressions_of(session, Channel(notification.channel), [notification.recipient]):
        yield f"Its address is on the suppression list by now: {each.reason or 'by hand'}."
