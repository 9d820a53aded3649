"""One message to one recipient over one channel."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import BY_DAY, Base, JsonText


class Notification(Base):
    """A notification and where it stands. `due_at` is when somebody must look at it again; finished rows have none."""

    __tablename__ = "notifications"
    __table_args__ = (
        CheckConstraint(
            "(due_at IS NOT NULL) = (status IN ('scheduled', 'queued', 'sending', 'retrying'))",
            name="live_rows_are_due",
        ),
        Index("notifications_due_idx", "queue", "due_at", postgresql_where="due_at IS NOT NULL"),
        Index("notifications_event_id_idx", "event_id"),
        Index("notifications_recipient_idx", "recipient"),
        BY_DAY,
    )

    #: A UUIDv7, derived from event and target (see notifier.routing); what receivers see in every attempt.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID | None]
    event_type: Mapped[str | None]
    source: Mapped[str]
    user_id: Mapped[str | None]
    #: Null where nobody can be reached: such a row is skipped.
    recipient: Mapped[str | None]
    channel: Mapped[str | None]
    category: Mapped[str | None]
    critical: Mapped[bool]
    priority: Mapped[str]
    #: `{"subject", "body"}` of a notification without an event.
    content: Mapped[str | None] = mapped_column(JsonText())
    #: The queue it waits for, or waited for last.
    queue: Mapped[str]
    #: One of notifier.channels.Status.
    status: Mapped[str]
    reason: Mapped[str | None]
    due_at: Mapped[datetime | None]
    send_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    cancellation_key: Mapped[str | None]
    #: How often it was claimed. Only grows: the fence against a worker that comes back late.
    claims: Mapped[int] = mapped_column(server_default="0")
    #: Calls to a provider, ever.
    attempts: Mapped[int] = mapped_column(server_default="0")
    #: Failed attempts since it was queued or requeued: the retry budget, and Celery's `retries`.
    tries: Mapped[int] = mapped_column(server_default="0")
    #: How often its worker died.
    lost: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
