"""Erasures: people to be forgotten, and the progress."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Erasure(Base):
    """One person's erasure. `due_at` is set exactly while there is more to do."""

    __tablename__ = "erasures"
    __table_args__ = (Index("erasures_due_idx", "due_at", postgresql_where="due_at IS NOT NULL"),)

    #: A UUIDv7: records accepted after it are not touched.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: The name of a key, or `shell:USER`.
    asked_by: Mapped[str]
    created_at: Mapped[datetime]
    #: The person to search for, encrypted (notifier.security.secret_box). Null once it is finished.
    named: Mapped[bytes | None]
    #: Which time all tables are gone through, from 1; 0 while the rows that an index finds are erased.
    round: Mapped[int]
    #: The current table, and the primary key of the last row that was checked.
    stage: Mapped[str | None]
    place: Mapped[list[str] | None] = mapped_column(ARRAY(Text()))
    #: How many rows were erased or had a mention taken out.
    erased: Mapped[int]
    #: Tables of settings that mention the person, which are left to operators.
    left_in: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    due_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def status(self) -> str:
        """`running` or `finished`."""
        return "running" if self.finished_at is None else "finished"
