"""Who did what."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class AuditLine(Base):
    """One act of an operator, or of a key of scope admin. Holds no address, no payload and no user's id."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_actor_idx", "actor", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    #: A key's name, or `shell:USER`.
    actor: Mapped[str]
    #: `PUT /api/v1/holds/{target}`, or a command such as `dlq.requeue`.
    action: Mapped[str]
    #: What it was done to: `name=value`, with spaces between.
    target: Mapped[str | None]
    #: An HTTP status; or `done`, `aborted` or `failed: …` of a command.
    outcome: Mapped[str]
    #: What the caller sent as `X-Request-ID`.
    request_id: Mapped[str | None]
