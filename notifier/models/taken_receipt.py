"""The history of the receipts that providers sent for a message; `receipts` holds the ones still waiting."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class TakenReceipt(Base):
    """A receipt of a notification, from a provider that was called for it."""

    __tablename__ = "taken_receipts"

    #: Derived from the receipt and the send, so that a repeated one has the same id. Its time is the notification's.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID] = mapped_column(index=True)
    provider: Mapped[str]
    #: One of notifier.providers.receipts.Kind.
    kind: Mapped[str]
    #: The provider's id of the message, if the receipt has one.
    message_id: Mapped[str | None]
    #: The reason of a bounce.
    error: Mapped[str | None]
    happened_at: Mapped[datetime]
    #: The time when the receipt first reached us.
    taken_at: Mapped[datetime]
    #: Whether the receipt changed the notification's status; a late, repeated or early one did not.
    applied: Mapped[bool]
