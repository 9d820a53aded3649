"""Users: people, as the services that notify them know them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base, JsonText


class User(Base):
    """A person's addresses and preferences."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: The name that callers gave them.
    user_id: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str | None]
    #: E.164.
    phone: Mapped[str | None]
    push_tokens: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    webhook_url: Mapped[str | None]
    chat_url: Mapped[str | None]
    #: An IANA name.
    timezone: Mapped[str | None]
    #: A language tag such as `pt-BR`.
    locale: Mapped[str | None]
    attributes: Mapped[str] = mapped_column(JsonText())
    #: `{"channels", "categories", "quiet_hours"}`, as notifier.people.preferences reads it. Null: nothing was ever set.
    preferences: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
