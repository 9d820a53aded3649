"""The tables, one aggregate a file."""

from notifier.models.api_key import ApiKey
from notifier.models.attempt import Attempt, attempt_id
from notifier.models.dead_letter import DeadLetter
from notifier.models.declarative import Base
from notifier.models.event import Event
from notifier.models.heartbeat import Heartbeat
from notifier.models.idempotency_key import IdempotencyKey
from notifier.models.notification import Notification
from notifier.models.outbox import OutboxMessage

__all__ = [
    "ApiKey",
    "Attempt",
    "Base",
    "DeadLetter",
    "Event",
    "Heartbeat",
    "IdempotencyKey",
    "Notification",
    "OutboxMessage",
    "attempt_id",
]
