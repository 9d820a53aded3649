"""Attempts: calls to a provider."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import BY_DAY, Base, JsonText
from notifier.vocabulary.ids import derived_id, millisecond_of


def attempt_id(notification_id: UUID, claims: int, call: int | None = None) -> UUID:
    """Derive the id of an attempt from its notification and claim, and for all but the last from their index (`call`).

    It is derived, so that recording it twice, or by the worker and by the clock that thought it dead, makes one row. It
    has the notification's millisecond, so that both are in partitions of the same day.
    """
    before_the_last = () if call is None else (call,)
    return derived_id(millisecond_of(notification_id), notification_id, claims, *before_the_last)


class Attempt(Base):
    """One call to a provider."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("attempts_notification_id_idx", "notification_id"),
        Index("attempts_message_id_idx", "message_id", postgresql_where="message_id IS NOT NULL"),
        Index("attempts_provider_idx", "provider", "id", postgresql_where="provider IS NOT NULL"),
        # For the roll-ups of minutes. Attempts are appended, so a few bytes for each megabyte of them find a minute.
        Index(
            "attempts_started_at_idx",
            "started_at",
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
        ),
        BY_DAY,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID]
    #: From 1, without gaps.
    number: Mapped[int]
    #: Null where its worker died before it could say.
    provider: Mapped[str | None]
    #: One of notifier.providers.protocol.Outcome.
    outcome: Mapped[str]
    status_code: Mapped[int | None]
    #: One of notifier.providers.protocol.Fault, where it was not accepted and that is known.
    fault: Mapped[str | None]
    #: The provider's id of the message, which its receipts and its support use.
    message_id: Mapped[str | None]
    error: Mapped[str | None]
    response_excerpt: Mapped[str | None]
    duration_ms: Mapped[float | None]
    started_at: Mapped[datetime | None]
    #: Of an HTTP call: request headers (secrets masked) and response headers, name → value.
    request_headers: Mapped[str | None] = mapped_column(JsonText())
    response_headers: Mapped[str | None] = mapped_column(JsonText())
    #: `{"dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "total_ms"}`, each since the beginning of the call.
    timing: Mapped[str | None] = mapped_column(JsonText())
