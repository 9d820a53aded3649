"""The health of a provider, shared by all workers."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class ProviderState(Base):
    """A provider's breaker and its rate. One that does well, and has no rate, has no row."""

    __tablename__ = "providers"

    channel: Mapped[str] = mapped_column(primary_key=True)
    #: As attempts record it.
    name: Mapped[str] = mapped_column(primary_key=True)
    #: Failures of its own in a row.
    failures: Mapped[int] = mapped_column(server_default="0")
    failing_since: Mapped[datetime | None]
    #: Its last failure, and in which words.
    failed_at: Mapped[datetime | None]
    error: Mapped[str | None]
    #: When its breaker becomes half-open, and the length of the last open period in seconds; NULL while it is closed.
    open_until: Mapped[datetime | None]
    open_for: Mapped[float | None]
    #: A probe is under way: nobody sends another one before this.
    probing_until: Mapped[datetime | None]
    #: Where it takes only so many a second: when the next one may go.
    next_slot: Mapped[datetime | None]
    #: The last place in line that was given to a message.
    line_until: Mapped[datetime | None]
    #: Notifications wait for it.
    waited_for: Mapped[bool] = mapped_column(server_default="false")
