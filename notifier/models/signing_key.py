"""Signing keys that outlive any process's settings: people keep emails whose links they sign."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class SigningKey(Base):
    """One secret of random bytes for one purpose."""

    __tablename__ = "signing_keys"

    purpose: Mapped[str] = mapped_column(primary_key=True)
    secret: Mapped[bytes]
    created_at: Mapped[datetime]
