"""Files attached to an email."""

from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import BY_DAY, Base


class Attachment(Base):
    """A file. Notifications name it in their content; several may."""

    __tablename__ = "attachments"
    __table_args__ = (BY_DAY,)

    #: A UUIDv7 of the millisecond in which it came.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    content_type: Mapped[str]
    content: Mapped[bytes]
