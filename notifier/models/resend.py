"""The state of a notification before it was sent again."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Resend(Base):
    """One resend, requeue or recovery of a notification, and the notification's state at the time of the request."""

    __tablename__ = "resends"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID] = mapped_column(index=True)
    #: One of notifier.vocabulary.states.How.
    how: Mapped[str]
    #: A key's name, or `shell:USER`.
    asked_by: Mapped[str]
    asked_at: Mapped[datetime]
    #: The notification as it stood then.
    status: Mapped[str]
    reason: Mapped[str | None]
    explanation: Mapped[str | None]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    attempts: Mapped[int]
