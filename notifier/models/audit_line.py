"""The audit log's lines."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class AuditLine(Base):
    """One act, or several alike within a minute. Holds no address of a recipient, no payload and no user's id."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("audit_actor_idx", "actor", "id"),
        Index("audit_number_idx", "number"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    #: A key's name, or `shell:USER`; `(unknown)` where no key of ours was given.
    actor: Mapped[str]
    #: `PUT /api/v1/holds/{target}`, or a command such as `dlq.requeue`.
    action: Mapped[str]
    #: The target of the action: `name=value`, with spaces between.
    target: Mapped[str | None]
    #: An HTTP status; or `done`, `aborted` or `failed: …` of a command.
    outcome: Mapped[str]
    #: The caller's `X-Request-ID`.
    request_id: Mapped[str | None]
    #: The address that the request came from.
    peer: Mapped[str | None]
    #: How often it was repeated: refusals are counted, a line a minute.
    times: Mapped[int] = mapped_column(Integer(), server_default="1")
    #: Its place in the chain, from 1, and the keyed hash over it and the line before. Null for lines outside of it.
    number: Mapped[int | None] = mapped_column(BigInteger())
    hash: Mapped[bytes | None]


class AuditChain(Base):
    """One row: where the chain of the audit log ends, and where it begins since old lines were deleted."""

    __tablename__ = "audit_chain"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger(), server_default="0")
    hash: Mapped[bytes] = mapped_column(server_default="")
    #: The last line that retention deleted, and a keyed hash of both, so that nobody else can move the beginning.
    deleted_number: Mapped[int] = mapped_column(BigInteger(), server_default="0")
    deleted_hash: Mapped[bytes] = mapped_column(server_default="")
    deleted_seal: Mapped[bytes | None]
