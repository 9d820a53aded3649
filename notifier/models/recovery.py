"""Recoveries: resends of what a subscription missed."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Recovery(Base):
    """One recovery, and how far it is."""

    __tablename__ = "recoveries"
    __table_args__ = (
        Index("recoveries_subscription_id_idx", "subscription_id", "id"),
        Index("recoveries_unfinished_idx", "worked_at", postgresql_where="finished_at IS NULL"),
    )

    #: Notifications created after it are not part of it.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    subscription_id: Mapped[UUID]
    since: Mapped[datetime]
    #: The last notification that was looked at.
    place: Mapped[UUID]
    #: How many there were when it began, and how many have been sent again.
    total: Mapped[int]
    recovered: Mapped[int]
    #: The number of notifications that a rule forbids to send, in all and by reason.
    refused: Mapped[int] = mapped_column(server_default="0")
    refused_reasons: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    #: The source to whose notifications it is limited; null: those of all sources.
    source: Mapped[str | None]
    #: A key's name, or `shell:USER`.
    asked_by: Mapped[str | None]
    created_at: Mapped[datetime]
    #: When its last batch was done: recoveries take turns.
    worked_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def status(self) -> str:
        """`running` or `finished`."""
        return "running" if self.finished_at is None else "finished"
