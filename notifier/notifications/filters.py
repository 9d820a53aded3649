"""Filters of notifications by other tables: the providers called for them, and the keys that name them."""

from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select

from notifier.models import Attempt, IdempotencyKey, Notification


def is_called_by_provider(message_id: str) -> ColumnElement[bool]:
    """Tell whether a notification's provider calls its message so."""
    return Notification.id.in_(select(Attempt.notification_id).where(Attempt.message_id == message_id))


def was_tried_by(provider: str) -> ColumnElement[bool]:
    """Tell whether a provider was called for a notification."""
    return select(Attempt.id).where(Attempt.notification_id == Notification.id, Attempt.provider == provider).exists()


def ids_of_key(idempotency_key: str) -> Select[tuple[UUID]]:
    """Select the ids of events and notifications created with a key, from any source, while the key is kept."""
    return select(func.unnest(IdempotencyKey.ids)).where(IdempotencyKey.key == idempotency_key)
