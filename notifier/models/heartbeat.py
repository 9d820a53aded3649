"""Heartbeats of worker processes and of the clock."""

from datetime import datetime

from sqlalchemy import ARRAY, Text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class Heartbeat(Base):
    """The last sign of life of one worker process, or of the clock's ticks."""

    __tablename__ = "heartbeats"

    #: The worker's node name (`fresh@host`), or `clock`.
    name: Mapped[str] = mapped_column(primary_key=True)
    #: `worker` or `clock`.
    kind: Mapped[str]
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    #: The providers that a worker can send by: `channel:name`.
    providers: Mapped[list[str]] = mapped_column(ARRAY(Text()), server_default="{}")
    seen_at: Mapped[datetime]
