"""Notifications: one message to one recipient over one channel."""

from typing import Final, Unpack

from notifier_client.pagination import Listing
from notifier_client.resources.resource import Resource, path_of
from notifier_client.types import (
    Attempt,
    Cancelled,
    Content,
    DirectNotification,
    Move,
    Notification,
    Notifications,
    NotificationWithAttempts,
)
from notifier_client.types.queries import ListNotificationsQuery

_PATH: Final = path_of("notifications")


class NotificationOperations(Resource):
    """Send notifications without an event, read them, and change what becomes of them."""

    def send(self, notification: DirectNotification, *, idempotency_key: str | None = None) -> Notifications:
        """Post a message to a recipient or a user, and return its notifications. Keys are as those of events."""
        return self._post_once(Notifications, _PATH, notification, idempotency_key)

    def get(self, notification_id: str, *, reveal: bool = False) -> NotificationWithAttempts:
        """Read a notification with its attempts."""
        return self._get(NotificationWithAttempts, path_of("notifications", notification_id), reveal=reveal)

    def list(self, **query: Unpack[ListNotificationsQuery]) -> Listing[Notification]:
        """List notifications, newest first."""
        return self._list(Notification, _PATH, query)

    def attempts(self, notification_id: str) -> Listing[Attempt]:
        """List the calls to providers."""
        return self._list(Attempt, path_of("notifications", notification_id, "attempts"), {})

    def content(self, notification_id: str, *, reveal: bool = False) -> Content:
        """Read what it says."""
        return self._get(Content, path_of("notifications", notification_id, "content"), reveal=reveal)

    def cancel(self, notification_id: str) -> NotificationWithAttempts:
        """Cancel a notification: no further attempt is made. Raises Conflict where it was or is being sent."""
        path = path_of("notifications", notification_id, "cancel")
        return self._ask(NotificationWithAttempts, "POST", path, repeatable=True)  # cancelling twice is cancelling once

    def cancel_by_key(self, cancellation_key: str) -> Cancelled:
        """Cancel all notifications of a cancellation key that still can be."""
        body = {"cancellation_key": cancellation_key}
        return self._ask(Cancelled, "POST", path_of("notifications", "cancel"), body=body)

    def move(self, notification_id: str, changes: Move) -> NotificationWithAttempts:
        """Give a scheduled notification other times."""
        return self._ask(NotificationWithAttempts, "PATCH", path_of("notifications", notification_id), body=changes)

    def resend(self, notification_id: str, *, another_provider: bool = False) -> NotificationWithAttempts:
        """Send a finished notification again, or one that is to be retried now, also by another provider than before.

        Raises Conflict where it goes out by itself, a rule forbids it, or its channel has no other provider.
        """
        path = path_of("notifications", notification_id, "resend")
        body = {"another_provider": True} if another_provider else None
        return self._ask(NotificationWithAttempts, "POST", path, body=body)
