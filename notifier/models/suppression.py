"""Suppressed addresses, and categories that an address has opted out of."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Suppression(Base):
    """An address that gets nothing over one channel: a hard bounce, a complaint, a STOP, or by hand."""

    __tablename__ = "suppressions"
    __table_args__ = (Index("suppressions_address_key", "channel", "folded", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    channel: Mapped[str]
    address: Mapped[str]
    #: The address as addresses are compared (notifier.vocabulary.addresses.folded).
    folded: Mapped[str]
    reason: Mapped[str]
    #: When it ends; null: never.
    until: Mapped[datetime | None]
    created_at: Mapped[datetime]


class OptOut(Base):
    """A category that an address without a known user has opted out of."""

    __tablename__ = "opt_outs"

    channel: Mapped[str] = mapped_column(primary_key=True)
    #: SHA-256 of the folded address: enough to honour it, and no address is kept.
    address_hash: Mapped[bytes] = mapped_column(primary_key=True)
    category: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
