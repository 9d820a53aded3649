"""Channels, priorities and states of a notification, by their names in the HTTP API."""

from enum import StrEnum
from typing import Final


class Channel(StrEnum):
    """A way of reaching a person or a system."""

    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    CHAT = "chat"
    WEBHOOK = "webhook"


#: The target of a hold that means all channels.
ALL_CHANNELS: Final = "all"


class Priority(StrEnum):
    """High priority overtakes the others; low priority waits until no other work is left."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class OnAmbiguous(StrEnum):
    """How to treat an attempt that may have been sent, when nobody knows."""

    #: The same again, later: it may arrive twice, rather than never.
    RETRY = "retry"
    #: Another provider at once, where there is one.
    FALLBACK = "fallback"
    #: Nothing: it is a dead letter, for somebody to decide.
    HOLD = "hold"


class How(StrEnum):
    """Ways to have a notification sent again; the column `how` of `resends`."""

    RESEND = "resend"
    #: By another provider than those that were called for it before, where one is in order.
    ANOTHER_PROVIDER = "another_provider"
    REQUEUE = "requeue"
    RECOVER = "recover"


class DedupScope(StrEnum):
    """The notifications among which a `dedup_key` counts."""

    #: Messages of one source.
    SOURCE = "source"
    #: Messages of all sources that say so.
    EVERYONE = "everyone"


class Status(StrEnum):
    """The states of a notification. Every state has a `due_at`, except the final ones in FINISHED."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    RETRYING = "retrying"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SKIPPED = "skipped"


FINISHED = frozenset({Status.SENT, Status.DELIVERED, Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.SKIPPED})
LIVE = frozenset(Status) - FINISHED
#: Waiting states, as a list in SQL: the notification can still be cancelled or rescheduled.
PENDING_IN_SQL = f"('{Status.SCHEDULED}', '{Status.QUEUED}', '{Status.RETRYING}')"


class EventStatus(StrEnum):
    """`accepted` is live; the others are finished."""

    ACCEPTED = "accepted"
    PROCESSED = "processed"
    FAILED = "failed"
