"""Holds that operators placed."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Hold(Base):
    """A pause of a target: nothing of it is sent while the row exists."""

    __tablename__ = "holds"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: A channel, the name of a route, or `all`.
    target: Mapped[str] = mapped_column(unique=True)
    #: The name of the key, or of the command, that placed it.
    held_by: Mapped[str]
    created_at: Mapped[datetime]
