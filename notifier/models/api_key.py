"""API keys: callers and their permissions."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class ApiKey(Base):
    """A key, of which only the hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    #: The `source` of its posts, which several keys may share; null: its name.
    source: Mapped[str | None]
    #: SHA-256 of the key; keys are 256 random bits, so nothing slower is needed.
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    #: The channels, and the event types (patterns), that it may use; null: all of them.
    channels: Mapped[list[str] | None] = mapped_column(ARRAY(Text()))
    event_types: Mapped[list[str] | None] = mapped_column(ARRAY(Text()))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    #: When it ends by itself.
    expires_at: Mapped[datetime | None]
    #: Requests a second that it may make at the most; null: no limit.
    rate: Mapped[int | None]
    #: Exact to the hour.
    last_used_at: Mapped[datetime | None]
    #: The secret before the last rotation, which works until `previous_until`.
    previous_hash: Mapped[bytes | None] = mapped_column(index=True)
    previous_until: Mapped[datetime | None]

    @property
    def posts_as(self) -> str:
        """The `source` of its posts."""
        return self.source or self.name
