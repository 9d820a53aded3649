"""Deduplication keys: until when no second notification of the same kind is sent to a recipient."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class DedupKey(Base):
    """The notification that took a key for an address, and the end of its window."""

    __tablename__ = "dedup_keys"

    channel: Mapped[str] = mapped_column(primary_key=True)
    #: Folded.
    address: Mapped[str] = mapped_column(primary_key=True)
    #: `scope/key`; the bare key where there is no scope.
    key: Mapped[str] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID]
    until: Mapped[datetime] = mapped_column(index=True)
    #: The source within which it counts, or `*` among all that ask for it; null: a release without scopes wrote it.
    scope: Mapped[str | None]
