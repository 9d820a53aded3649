"""Webhook subscriptions: receivers that services run themselves."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Index, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import Base, JsonText


class Subscription(Base):
    """A URL that receives some events, signed with a secret of its own."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index("subscriptions_event_types_idx", "event_types", postgresql_using="gin"),
        Index("subscriptions_url_idx", "url", postgresql_using="hash"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: With `***` where `sealed_url` has the whole, encrypted (notifier.security.sealed_columns).
    url: Mapped[str]
    sealed_url: Mapped[bytes | None]
    #: Patterns (notifier.vocabulary.event_types).
    event_types: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    #: JMESPath over the event.
    filter: Mapped[str | None]
    description: Mapped[str | None]
    #: Headers of the receiver's own, name → value; values are `***` where `sealed_headers` has the whole, encrypted.
    headers: Mapped[str] = mapped_column(JsonText())
    sealed_headers: Mapped[bytes | None]
    rate_limit_per_second: Mapped[float | None]
    #: The 4xx that are final for a message, beside 410.
    permanent_statuses: Mapped[list[int]] = mapped_column(ARRAY(Integer()), server_default="{}")
    enabled: Mapped[bool]
    #: Why it is not enabled: `by_hand`, `gone` (410), `failing`.
    disabled_reason: Mapped[str | None]
    #: Encrypted (notifier.security.secret_box); the one before signs too until its end.
    secret: Mapped[bytes]
    previous_secret: Mapped[bytes | None]
    previous_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Listeners(Base):
    """One row with a number that grows with every change of a subscription."""

    __tablename__ = "listeners"
    #: The table has one row and needs no key; the mapper wants one.
    version: Mapped[int] = mapped_column(BigInteger(), primary_key=True)


class Endpoint(Base):
    """The health of a subscription's URL. A healthy one has no row."""

    __tablename__ = "endpoints"
    __table_args__ = (Index("endpoints_waited_for_idx", "looked_at", postgresql_where="waited_for"),)

    #: The subscription's.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: Nothing but failures since then.
    failing_since: Mapped[datetime | None]
    #: Failures in a row.
    failures: Mapped[int] = mapped_column(server_default="0")
    #: When its breaker becomes half-open, or when a probe under way is overdue; NULL while it is closed.
    open_until: Mapped[datetime | None]
    #: Length of the last open period in seconds; and whether a probe is under way.
    open_for: Mapped[float | None]
    probing: Mapped[bool] = mapped_column(server_default="false")
    #: Until then its webhooks wait in the slow queue, because it keeps callers waiting.
    slow_until: Mapped[datetime | None]
    #: When its failing was reported by an event.
    warned_at: Mapped[datetime | None]
    #: From when on the rate limit lets the next message through.
    next_slot: Mapped[datetime | None]
    #: Rows wait because of it; and when the clock last asked whether they still must.
    waited_for: Mapped[bool] = mapped_column(server_default="false")
    looked_at: Mapped[datetime | None]
