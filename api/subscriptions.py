"""Subscriptions: webhooks to receivers of their own."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from flask import abort
from sqlalchemy import select

from api.auth import caller, requires
from api.database import db
from api.pagination import page
from api.permits import check_use
from api.resources import Resource
from api.schemas.notifications import NotificationPageSchema, NotificationSchema
from api.schemas.pagination import PageQuery
from api.schemas.subscriptions import (
    EnabledSchema,
    EnableSchema,
    NewSubscriptionSchema,
    RecoverSchema,
    RecoveryPageSchema,
    RecoverySchema,
    SecretSchema,
    SubscriptionChanges,
    SubscriptionFields,
    SubscriptionNotificationQuery,
    SubscriptionPageSchema,
    SubscriptionQuery,
    SubscriptionSchema,
)
from api.services import services
from api.visibility import reveals
from notifier.models import Notification, Recovery, Subscription
from notifier.resending import recovery
from notifier.security.api_keys import Scope
from notifier.vocabulary.states import Channel
from notifier.webhooks import subscriptions

blp = Resource(
    "subscriptions", __name__, url_prefix="/api/v1/subscriptions", description="Webhooks to receivers of their own."
)

_MISSING: Final = "There is no such subscription."


def _find(subscription_id: UUID) -> Subscription:
    return _shown(db.get_or_404(Subscription, subscription_id, description=_MISSING))


def _shown(subscription: Subscription) -> Subscription:
    return subscriptions.revealed(services().wiring.vault, subscription) if reveals() else subscription


@blp.route("")
@requires(Scope.READ)
@blp.arguments(SubscriptionQuery, location="query", as_kwargs=False)
@blp.response(200, SubscriptionPageSchema)
def list_subscriptions(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List subscriptions, newest first."""
    query = select(Subscription)
    if asked["enabled"] is not None:
        query = query.where(Subscription.enabled == asked["enabled"])
    if asked["url"] is not None:
        ids = subscriptions.ids_at(db.session(), services().wiring.vault, asked["url"])
        query = query.where(Subscription.id.in_(ids))
    found = page(query, Subscription.id, asked)
    found["items"] = [_shown(each) for each in found["items"]]
    return found


@blp.route("", methods=["POST"])
@requires(Scope.ADMIN)
@blp.arguments(SubscriptionFields)
@blp.response(201, NewSubscriptionSchema)
@blp.alt_response(409, description="NOTIFIER_SECRET_KEY is not set: no secret can be kept.")
def create_subscription(fields: dict[str, Any]) -> Any:  # noqa: ANN401 -- a schema dumps it
    """Subscribe a URL to event types. The secret is shown now, and after a rotation, only."""
    wires = services().wiring
    made, secret = subscriptions.create(wires.engine, wires.vault, fields)
    made.__dict__["secret"] = secret
    return _shown(made)


@blp.route("/<uuid:subscription_id>")
@requires(Scope.READ)
@blp.response(200, SubscriptionSchema)
@blp.alt_response(404, description="There is no such subscription.")
def get_subscription(subscription_id: UUID) -> Subscription:
    """Read a subscription."""
    return _find(subscription_id)


@blp.route("/<uuid:subscription_id>", methods=["PATCH"])
@requires(Scope.ADMIN)
@blp.arguments(SubscriptionChanges(partial=True))
@blp.response(200, SubscriptionSchema)
@blp.alt_response(404, description="There is no such subscription.")
@blp.alt_response(409, description="NOTIFIER_SECRET_KEY is not set: no credentials can be kept.")
def change_subscription(changes: dict[str, Any], subscription_id: UUID) -> Subscription:
    """Change some fields of a subscription. Waiting webhooks go to the new URL."""
    wires = services().wiring
    subscriptions.change(wires.engine, wires.vault, subscription_id, changes)
    return _find(subscription_id)


@blp.route("/<uuid:subscription_id>", methods=["DELETE"])
@requires(Scope.ADMIN)
@blp.response(204)
@blp.alt_response(404, description="There is no such subscription.")
def delete_subscription(subscription_id: UUID) -> None:
    """Delete a subscription. Its waiting notifications are skipped."""
    if not subscriptions.remove(services().wiring.engine, subscription_id):
        abort(404, _MISSING)


@blp.route("/<uuid:subscription_id>/rotate-secret", methods=["POST"])
@requires(Scope.ADMIN)
@blp.response(200, SecretSchema)
@blp.alt_response(404, description="There is no such subscription.")
def rotate_secret(subscription_id: UUID) -> dict[str, Any]:
    """Give it a new secret. For 24 hours both sign, so that the receiver can change in peace."""
    wires = services().wiring
    secret = subscriptions.rotate_secret(wires.engine, wires.vault, subscription_id)
    if secret is None:
        abort(404, _MISSING)
    return {"secret": secret, "previous_secret_until": datetime.now(UTC) + subscriptions.OVERLAP}


@blp.route("/<uuid:subscription_id>/enable", methods=["POST"])
@requires(Scope.ADMIN)
@blp.arguments(EnableSchema, required=False)
@blp.response(200, EnabledSchema)
@blp.alt_response(404, description="There is no such subscription.")
def enable_subscription(asked: dict[str, Any], subscription_id: UUID) -> Subscription:
    """Enable it, and forget how its endpoint fared. With `recover_since`, what it has missed since then comes too."""
    wires = services().wiring
    subscriptions.change(wires.engine, wires.vault, subscription_id, {"enabled": True})
    enabled = _find(subscription_id)
    since = asked["recover_since"]
    enabled.__dict__["recovery"] = None if since is None else _recover(subscription_id, since)
    return enabled


@blp.route("/<uuid:subscription_id>/notifications")
@requires(Scope.READ)
@blp.arguments(SubscriptionNotificationQuery, location="query", as_kwargs=False)
@blp.response(200, NotificationPageSchema)
@blp.alt_response(404, description="There is no such subscription.")
def list_subscription_notifications(asked: dict[str, Any], subscription_id: UUID) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List what was made for it, newest first."""
    _find(subscription_id)
    query = select(Notification).where(Notification.subscription_id == subscription_id)
    if asked["status"] is not None:
        query = query.where(Notification.status == asked["status"])
    return page(query, Notification.id, asked)


@blp.route("/<uuid:subscription_id>/test", methods=["POST"])
@requires(Scope.ADMIN)
@blp.response(202, NotificationSchema)
@blp.alt_response(404, description="There is no such subscription.")
def test_subscription(subscription_id: UUID) -> Notification:
    """Send it an event of type `notifier.test`, whatever it listens for; nobody else hears of that."""
    here = services()
    subscription = _find(subscription_id)
    db.session.remove()
    notification, hint = recovery.send_test(here.wiring.engine, subscription, here.publisher.lease)
    here.publisher.hint([hint])
    return notification


@blp.route("/<uuid:subscription_id>/recover", methods=["POST"])
@requires(Scope.REQUEUE)
@blp.arguments(RecoverSchema)
@blp.response(202, RecoverySchema)
@blp.alt_response(404, description="There is no such subscription.")
def recover_subscription(asked: dict[str, Any], subscription_id: UUID) -> Recovery:
    """Send all again that failed since then, or was skipped while it was disabled.

    The first some hundreds at once, so that most recoveries are finished with the answer; the rest batch by batch, as
    the recovery says. A notification that a rule forbids to send (it has expired, or the subscription is disabled)
    is left as it is, and counted as `refused`. A key without the scope `admin` recovers the notifications of its own
    source alone.
    """
    _find(subscription_id)
    check_use([Channel.WEBHOOK], None)
    return _recover(subscription_id, asked["since"])


def _recover(subscription_id: UUID, since: datetime) -> Recovery:
    here = services()
    wires, publisher = here.wiring, here.publisher
    db.session.remove()
    by, source = caller().name, caller().bounds
    recovery_id, hints = recovery.begin(
        wires.engine, subscription_id, since, publisher.lease, by=by, source=source, standards=wires.standards
    )
    publisher.hint(hints)
    return db.get_or_404(Recovery, recovery_id, description=_MISSING)


@blp.route("/<uuid:subscription_id>/recoveries")
@requires(Scope.READ)
@blp.arguments(PageQuery, location="query", as_kwargs=False)
@blp.response(200, RecoveryPageSchema)
@blp.alt_response(404, description="There is no such subscription.")
def list_recoveries(asked: dict[str, Any], subscription_id: UUID) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List its recoveries, newest first."""
    _find(subscription_id)
    query = select(Recovery).where(Recovery.subscription_id == subscription_id)
    return page(query, Recovery.id, asked)


@blp.route("/<uuid:subscription_id>/recoveries/<uuid:recovery_id>")
@requires(Scope.READ)
@blp.response(200, RecoverySchema)
@blp.alt_response(404, description="There is no such recovery.")
def get_recovery(subscription_id: UUID, recovery_id: UUID) -> Recovery:
    """Read how far a recovery is."""
    query = select(Recovery).where(Recovery.id == recovery_id, Recovery.subscription_id == subscription_id)
    found: Recovery = db.one_or_404(query, description="There is no such recovery.")
    return found
