"""Users: people, as the services that notify them know them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base, JsonText


class User(Base):
    """A person's addresses and preferences."""

    __tablename__ = "users"
    __table_args__ = (
        Index("users_email_idx", text("lower(email)"), postgresql_where="email IS NOT NULL"),
        Index("users_phone_idx", "phone", postgresql_where="phone IS NOT NULL"),
        # By their hashes: a B-tree takes no text of more than 2,704 bytes.
        Index("users_webhook_url_idx", "webhook_url", postgresql_using="hash"),
        Index("users_chat_url_idx", "chat_url", postgresql_using="hash"),
        Index(
            "users_push_tokens_idx",
            "push_tokens",
            postgresql_using="gin",
            # Without a list of pending changes, which each search would read as well.
            postgresql_with={"fastupdate": "off"},
        ),
    )

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
