"""The local outbox: messages on channels without a provider."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class OutboxMessage(Base):
    """One message as a provider would have been given it."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger(), Identity(always=True), primary_key=True)
    notification_id: Mapped[UUID]
    channel: Mapped[str]
    recipient: Mapped[str]
    subject: Mapped[str | None]
    text: Mapped[str]
    html: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
