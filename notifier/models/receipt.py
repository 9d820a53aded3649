"""Receipts from providers that cannot be applied yet."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Receipt(Base):
    """A receipt that waits: it came before our own commit, or while its notification is being sent again."""

    __tablename__ = "receipts"

    #: Derived from its contents, so that it waits once however often it arrives.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID]
    #: As attempts record it.
    provider: Mapped[str]
    #: One of notifier.providers.receipts.Kind.
    kind: Mapped[str]
    #: The provider's id of the message, if it gives one.
    message_id: Mapped[str | None]
    error: Mapped[str | None]
    happened_at: Mapped[datetime]
    #: When it is looked at again.
    due_at: Mapped[datetime] = mapped_column(index=True)
    #: Forgotten after this: nobody knows its notification.
    keep_until: Mapped[datetime]
