"""Statistics: counts of notifications and attempts by minute and by hour."""

from datetime import datetime

from sqlalchemy import ARRAY, BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base


class _Figures:
    """The columns that rows of minutes and rows of hours share."""

    #: One of notifier.vocabulary.statistics.Dimension.
    dimension: Mapped[str] = mapped_column(primary_key=True)
    #: The beginning of the minute or the hour.
    moment: Mapped[datetime] = mapped_column(primary_key=True)
    #: The channel of a provider or a queue; empty where the dimension has none.
    channel: Mapped[str] = mapped_column(primary_key=True)
    #: The channel, provider, event type, source or queue; see UNNAMED and OTHERS in notifier.vocabulary.statistics.
    name: Mapped[str] = mapped_column(primary_key=True)
    #: Notifications that were accepted.
    accepted: Mapped[int] = mapped_column(BigInteger())
    #: Attempts by outcome; those that were accepted by the provider are `sent`.
    sent: Mapped[int] = mapped_column(BigInteger())
    rejected: Mapped[int] = mapped_column(BigInteger())
    unsent: Mapped[int] = mapped_column(BigInteger())
    ambiguous: Mapped[int] = mapped_column(BigInteger())
    #: Attempts that were not the first of their notification.
    retries: Mapped[int] = mapped_column(BigInteger())
    #: Of `sent`: those whose notification is delivered.
    delivered: Mapped[int] = mapped_column(BigInteger())
    #: Dead letters that were written.
    failed: Mapped[int] = mapped_column(BigInteger())
    #: Histograms (notifier.statistics.histogram) of the provider's call, and of the time from acceptance to sending.
    call_buckets: Mapped[list[int]] = mapped_column(ARRAY(BigInteger()))
    wait_buckets: Mapped[list[int]] = mapped_column(ARRAY(BigInteger()))


class MinuteFigures(_Figures, Base):
    """The figures of one minute."""

    __tablename__ = "stats_minutes"


class HourFigures(_Figures, Base):
    """The figures of one hour, made of its minutes."""

    __tablename__ = "stats_hours"


class StatsProgress(Base):
    """How far a pass has come (notifier.statistics.rollups)."""

    __tablename__ = "stats_progress"

    name: Mapped[str] = mapped_column(primary_key=True)
    #: The end of the last minute that it has counted.
    until: Mapped[datetime]
