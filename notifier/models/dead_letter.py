"""Dead letters: notifications that could not be delivered and events that could not be fanned out."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base
from notifier.vocabulary.error_forms import FORM_IN_SQL


class DeadLetter(Base):
    """A notification (or, if `notification_id` is null, an event) that failed for good; open until it is requeued."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        # One death, one letter, however often the handler runs.
        Index(
            "dead_letters_notification_key",
            "notification_id",
            "claims",
            unique=True,
            postgresql_where="notification_id IS NOT NULL",
        ),
        Index("dead_letters_event_key", "event_id", "claims", unique=True, postgresql_where="notification_id IS NULL"),
        Index("dead_letters_event_id_idx", "event_id", postgresql_where="event_id IS NOT NULL"),
        Index("dead_letters_error_form_newest_idx", text(f"({FORM_IN_SQL})"), "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID | None]
    event_id: Mapped[UUID | None]
    #: The notification's `claims` when it died; of an event, how many letters it had before.
    claims: Mapped[int]
    channel: Mapped[str | None]
    event_type: Mapped[str | None]
    reason: Mapped[str]
    error: Mapped[str | None]
    attempts: Mapped[int]
    created_at: Mapped[datetime]
    requeued_at: Mapped[datetime | None]
