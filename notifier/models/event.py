"""Events: something that happened, as a service reported it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import BY_DAY, UNDRAFTED, Base, JsonText


class Event(Base):
    """An accepted event. `due_at` is set exactly while it waits to be fanned out."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint("(due_at IS NOT NULL) = (status = 'accepted')", name="live_rows_are_due"),
        Index("events_due_idx", "due_at", postgresql_where="due_at IS NOT NULL"),
        Index("events_cancellation_key_idx", "cancellation_key", postgresql_where="cancellation_key IS NOT NULL"),
        Index("events_user_id_newest_idx", "user_id", "id", postgresql_where="user_id IS NOT NULL"),
        Index("events_request_id_idx", "request_id", postgresql_where="request_id IS NOT NULL"),
        # Filters of lists: written once for each event, when it is fanned out.
        Index("events_event_type_idx", "event_type", "id", postgresql_where="due_at IS NULL"),
        Index("events_source_idx", "source", "id", postgresql_where="due_at IS NULL"),
        Index("events_failed_idx", "id", postgresql_where="status = 'failed'"),
        BY_DAY,
    )

    #: A UUIDv7 of the millisecond in which it was accepted.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    event_type: Mapped[str]
    #: The name of the API key that posted it; `anonymous` without authentication.
    source: Mapped[str]
    #: One of notifier.vocabulary.states.EventStatus.
    status: Mapped[str]
    payload: Mapped[str] = mapped_column(JsonText())
    recipient: Mapped[str | None]
    channel: Mapped[str | None]
    user_id: Mapped[str | None]
    category: Mapped[str | None]
    critical: Mapped[bool]
    priority: Mapped[str]
    send_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    cancellation_key: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    occurred_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None] = mapped_column(info=UNDRAFTED)
    #: How often its fan-out was begun after the clock had handed it over, and did not end.
    handovers: Mapped[int] = mapped_column(server_default="0", info=UNDRAFTED)
    #: Why fan-out failed the last time.
    error: Mapped[str | None] = mapped_column(info=UNDRAFTED)
    #: The name of a template.
    template: Mapped[str | None]
    #: The target of its reminders, and their lead times: ISO 8601 durations.
    target_date: Mapped[datetime | None]
    lead_time: Mapped[list[str] | None] = mapped_column(ARRAY(Text()))
    #: An IANA time zone, for days on the wall clock.
    timezone: Mapped[str | None]
    dedup_key: Mapped[str | None]
    #: An ISO 8601 duration.
    dedup_window: Mapped[str | None]
    #: One of notifier.vocabulary.states.DedupScope; null is `source`.
    dedup_scope: Mapped[str | None]
    #: See Notification.
    on_ambiguous: Mapped[str | None]
    #: The request that brought it, and its place in a trace (W3C's traceparent).
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    #: The last subscription for which it made a notification, while it is being fanned out in several steps.
    fan_out_after: Mapped[UUID | None] = mapped_column(info=UNDRAFTED)
    #: Cancelled before its fan-out: its notifications are cancelled from the start.
    cancelled_at: Mapped[datetime | None] = mapped_column(info=UNDRAFTED)
