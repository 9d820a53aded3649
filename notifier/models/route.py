"""Routes: the notifications that an event type causes."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base, JsonText


class Route(Base):
    """A route, as it was put; notifier.planning.routes reads its definition."""

    __tablename__ = "routes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    event_type: Mapped[str]
    definition: Mapped[str] = mapped_column(JsonText())
    enabled: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
