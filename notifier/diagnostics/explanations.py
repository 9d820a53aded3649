"""Explanations: where a notification stands and why, in a sentence."""

from collections.abc import Mapping

from notifier.models import Event, Notification
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import EventStatus, Status
from notifier.vocabulary.timestamps import rfc3339

_WAITING = {
    Status.QUEUED: "It is handed to the workers and goes out within seconds.",
    Status.SENDING: "A worker is sending it.",
}
_ENDED = {
    Status.SENT: "The provider accepted it",
    Status.DELIVERED: "It arrived",
    Status.FAILED: "It failed for good and stands in the dead letters",
    Status.CANCELLED: "It was cancelled before it was sent",
    Status.EXPIRED: "It was not sent in time",
    Status.SKIPPED: "It was not sent",
}
_REASONS: Mapping[str, str] = {
    Reason.MAY_HAVE_BEEN_SENT: "an earlier attempt may have sent it all the same",
    Reason.REPLACED: "a later reminder with the same cancellation_key took its place",
    Reason.USER_DELETED: "its user was deleted",
    Reason.BOUNCED: "the provider accepted it, and said later that it did not arrive",
}


def explain(notification: Notification) -> str:
    """Explain a notification's state in a sentence or two, without an address or payload."""
    status = Status(notification.status)
    sentences = [_waits(notification, status) if notification.due_at else _ended(notification, status)]
    if notification.explanation and status is not Status.FAILED:
        sentences.append(notification.explanation)
    if notification.follows:
        sentences.append(f"It follows notification {notification.follows}, whose channel was of no use.")
    if notification.next_channels:
        sentences.append(f"Should it fail, {notification.next_channels[0]} is next.")
    return " ".join(sentences)


def _waits(notification: Notification, status: Status) -> str:
    due = rfc3339(notification.due_at) if notification.due_at else ""
    if status is Status.RETRYING:
        return f"Attempt {notification.attempts} failed for now; the next one comes at {due}."
    if status is not Status.SCHEDULED:
        return _WAITING[status]
    if notification.reason == Reason.HELD:
        return "It is held."
    if notification.reason:
        return f"It was put off and goes at {due}."
    if notification.lead_time and notification.target_date:
        return (
            f"It is a reminder, {notification.lead_time} before {rfc3339(notification.target_date)}: it goes at {due}."
        )
    return f"It goes at {due}."


def _ended(notification: Notification, status: Status) -> str:
    words = _ENDED[status]
    if status is Status.SENT and notification.sent_at:
        words += f" at {rfc3339(notification.sent_at)}; no receipt has confirmed it"
    elif status is Status.DELIVERED and notification.delivered_at:
        words += f" at {rfc3339(notification.delivered_at)}"
    if notification.reason:
        words += f": {_REASONS.get(notification.reason, notification.reason)}"
    if status is Status.FAILED and notification.explanation:
        words += f" ({notification.explanation})"
    return f"{words}."


def explain_event(event: Event, notifications: int) -> str:
    """Explain an event's state in a sentence."""
    if event.status == EventStatus.FAILED:
        return (
            f"Making its notifications failed, and it stands in the dead letters: {event.error or 'nobody knows why'}."
        )
    if event.status == EventStatus.ACCEPTED and event.fan_out_after is None:
        return "It is accepted; its notifications are made within seconds."
    if event.status == EventStatus.ACCEPTED:
        return f"It has many listeners: {notifications} notifications are made, more follow."
    if not notifications:
        return "Nobody hears of it: no recipient, no user, no route and no subscription is for it."
    return f"It made {notifications} notification{'s' * (notifications != 1)}."
