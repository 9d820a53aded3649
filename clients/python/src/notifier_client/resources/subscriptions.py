"""Subscriptions: webhooks for whoever wants to hear of events."""

from typing import Unpack

from notifier_client.pagination import Listing
from notifier_client.resources.resource import Resource, path_of
from notifier_client.types import (
    Enabled,
    Moment,
    NewSubscription,
    Notification,
    Recovery,
    Secret,
    Subscription,
    SubscriptionChanges,
    SubscriptionFields,
)
from notifier_client.types.queries import (
    ListRecoveriesQuery,
    ListSubscriptionNotificationsQuery,
    ListSubscriptionsQuery,
)


class Subscriptions(Resource):
    """Receivers of webhooks, and what they want to hear of."""

    def create(self, subscription: SubscriptionFields) -> NewSubscription:
        """Create a subscription. Keep the `secret` of the answer: it is not shown again."""
        return self._ask(NewSubscription, "POST", path_of("subscriptions"), body=subscription)

    def get(self, subscription_id: str, *, reveal: bool = False) -> Subscription:
        """Read a subscription."""
        return self._get(Subscription, path_of("subscriptions", subscription_id), reveal=reveal)

    def list(self, **query: Unpack[ListSubscriptionsQuery]) -> Listing[Subscription]:
        """List subscriptions, newest first."""
        return self._list(Subscription, path_of("subscriptions"), query)

    def change(self, subscription_id: str, changes: SubscriptionChanges) -> Subscription:
        """Change a subscription; what is absent stays."""
        return self._ask(Subscription, "PATCH", path_of("subscriptions", subscription_id), body=changes)

    def delete(self, subscription_id: str) -> None:
        """Delete a subscription."""
        self._do("DELETE", path_of("subscriptions", subscription_id))

    def rotate_secret(self, subscription_id: str) -> Secret:
        """Make a new secret; the one before signs too for 24 hours."""
        return self._ask(Secret, "POST", path_of("subscriptions", subscription_id, "rotate-secret"))

    def enable(self, subscription_id: str, *, recover_since: Moment | None = None) -> Enabled:
        """Enable a subscription, and recover what it missed since a moment."""
        path = path_of("subscriptions", subscription_id, "enable")
        return self._ask(Enabled, "POST", path, body={"recover_since": recover_since} if recover_since else {})

    def test(self, subscription_id: str) -> Notification:
        """Send a test event to a subscription."""
        return self._ask(Notification, "POST", path_of("subscriptions", subscription_id, "test"))

    def notifications(
        self, subscription_id: str, **query: Unpack[ListSubscriptionNotificationsQuery]
    ) -> Listing[Notification]:
        """List what was sent to a subscription, newest first."""
        return self._list(Notification, path_of("subscriptions", subscription_id, "notifications"), query)

    def recover(self, subscription_id: str, *, since: Moment) -> Recovery:
        """Begin to send again all that failed since a moment, or was skipped while it was disabled."""
        path = path_of("subscriptions", subscription_id, "recover")
        return self._ask(Recovery, "POST", path, body={"since": since})

    def recovery(self, subscription_id: str, recovery_id: str) -> Recovery:
        """Read how far a recovery is."""
        return self._get(Recovery, path_of("subscriptions", subscription_id, "recoveries", recovery_id))

    def recoveries(self, subscription_id: str, **query: Unpack[ListRecoveriesQuery]) -> Listing[Recovery]:
        """List recoveries, newest first."""
        return self._list(Recovery, path_of("subscriptions", subscription_id, "recoveries"), query)
