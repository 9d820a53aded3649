"""Idempotency keys, with a lifetime of their own."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class IdempotencyKey(Base):
    """The ids that the first request with a source's key created."""

    __tablename__ = "idempotency_keys"

    source: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    #: SHA-256 over the kind of request and its canonical body.
    fingerprint: Mapped[bytes]
    #: The event's id, or those of the notifications.
    ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid()))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
