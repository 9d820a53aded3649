"""Recoveries: what a subscription missed is being sent again."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Recovery(Base):
    """One recovery, and how far it is."""

    __tablename__ = "recoveries"
    __table_args__ = (
        Index("recoveries_subscription_id_idx", "subscription_id", "id"),
        Index("recoveries_unfinished_idx", "worked_at", postgresql_where="finished_at IS NULL"),
    )

    #: What was made after it is no part of it.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    subscription_id: Mapped[UUID]
    since: Mapped[datetime]
    #: The last notification that was looked at.
    place: Mapped[UUID]
    #: How many there were when it began, and how many have been sent again.
    total: Mapped[int]
    recovered: Mapped[int]
    created_at: Mapped[datetime]
    #: When its last batch was done: recoveries take turns.
    worked_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def status(self) -> str:
        """`running` or `finished`."""
        return "running" if self.finished_at is None else "finished"
