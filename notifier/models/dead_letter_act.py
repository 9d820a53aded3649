"""Acts on dead letters: all that match some filters are requeued or dropped, in batches."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class DeadLetterAct(Base):
    """One act on many dead letters, and how far it is."""

    __tablename__ = "dead_letter_acts"
    __table_args__ = (
        Index(
            "dead_letter_acts_unfinished_idx",
            "worked_at",
            postgresql_where="finished_at IS NULL AND stopped_at IS NULL",
        ),
    )

    #: Letters that were written after it are not part of it.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: One of notifier.resending.dead_letter_acts.Act.
    act: Mapped[str]
    #: Which letters, by filter; addresses in their kept form.
    filters: Mapped[dict[str, Any]] = mapped_column(JSONB())
    #: The source whose letters its requester may act on; null: those of all sources.
    source: Mapped[str | None]
    #: The last letter that was looked at.
    place: Mapped[UUID]
    #: How many letters matched when it began (null where counting them took too long), and how many of them are done.
    total: Mapped[int | None]
    done: Mapped[int] = mapped_column(server_default="0")
    #: The number of notifications that a rule forbids to send, in all and by reason.
    refused: Mapped[int] = mapped_column(server_default="0")
    refused_reasons: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    #: A key's name, or `shell:USER`.
    asked_by: Mapped[str]
    created_at: Mapped[datetime]
    #: When its last batch was done: acts take turns.
    worked_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]

    @property
    def status(self) -> str:
        """`running`, `finished` or `stopped`."""
        if self.finished_at is not None:
            return "finished"
        return "running" if self.stopped_at is None else "stopped"
