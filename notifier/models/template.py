"""Templates of notifications."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Template(Base):
    """One version of a template on one channel in one locale. Never changed: saving makes a new version."""

    __tablename__ = "templates"
    __table_args__ = (Index("templates_version_key", "name", "channel", "locale", "version", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    channel: Mapped[str]
    #: A language tag, or `default`.
    locale: Mapped[str]
    #: From 1, for each name, channel and locale.
    version: Mapped[int]
    subject: Mapped[str | None]
    text: Mapped[str | None]
    html: Mapped[str | None]
    #: The sender of an email, where it is not the channel's own.
    sender: Mapped[str | None]
    reply_to: Mapped[str | None]
    created_at: Mapped[datetime]
