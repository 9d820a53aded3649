"""Notifications: one message to one recipient over one channel."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, Index, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models.declarative import BY_DAY, UNDRAFTED, Base, JsonText

#: Notifications that are in no worker's hands and in no queue: what some indexes have.
SETTLED: Final = "status NOT IN ('queued', 'sending')"
#: Rows that are neither delivered nor on the usual way to it.
UNUSUAL: Final = "status NOT IN ('queued', 'sending', 'sent', 'delivered')"


class Notification(Base):
    """A notification and its state. `due_at` is when it must be looked at again; finished rows have none."""

    __tablename__ = "notifications"
    __table_args__ = (
        CheckConstraint(
            "(due_at IS NOT NULL) = (status IN ('scheduled', 'queued', 'sending', 'retrying'))",
            name="live_rows_are_due",
        ),
        Index("notifications_due_idx", "queue", "due_at", postgresql_where="due_at IS NOT NULL"),
        Index("notifications_event_id_idx", "event_id"),
        # With the id, so that the newest rows of a frequent value are read and no others.
        Index("notifications_recipient_newest_idx", "recipient", "id"),
        Index("notifications_user_id_newest_idx", "user_id", "id", postgresql_where="user_id IS NOT NULL"),
        Index(
            "notifications_cancellation_key_idx", "cancellation_key", postgresql_where="cancellation_key IS NOT NULL"
        ),
        Index(
            "notifications_subscription_id_idx",
            "subscription_id",
            "id",
            postgresql_where="subscription_id IS NOT NULL",
        ),
        Index(
            "notifications_missed_idx",
            "subscription_id",
            "id",
            postgresql_where="subscription_id IS NOT NULL AND status IN ('failed', 'skipped')",
        ),
        Index(
            "notifications_receiver_idx",
            "subscription_id",
            "reason",
            "due_at",
            postgresql_where="reason IN ('throttled', 'breaker_open') AND due_at IS NOT NULL",
        ),
        # Held rows, and rows that owe their next channel: the clock looks for both every second.
        Index("notifications_held_idx", "id", postgresql_where="reason = 'held' AND due_at IS NOT NULL"),
        Index(
            "notifications_next_idx",
            "id",
            postgresql_where="next_channels IS NOT NULL AND status IN ('failed', 'skipped')",
        ),
        Index("notifications_request_id_idx", "request_id", postgresql_where="request_id IS NOT NULL"),
        Index("notifications_dedup_key_idx", "dedup_key", postgresql_where="dedup_key IS NOT NULL"),
        # Filters of lists (notifier.notifications.filters). The first two have no row that is delivered as usual. The
        # others are written once for each, when it leaves the workers: without SETTLED it would be three times.
        Index("notifications_reason_idx", "reason", "id", postgresql_where="reason IS NOT NULL"),
        Index("notifications_status_idx", "status", "id", postgresql_where=UNUSUAL),
        Index(
            "notifications_event_type_idx",
            "event_type",
            "id",
            postgresql_where=f"event_type IS NOT NULL AND {SETTLED}",
        ),
        Index("notifications_source_idx", "source", "id", postgresql_where=SETTLED),
        Index("notifications_channel_idx", "channel", "id", postgresql_where=SETTLED),
        BY_DAY,
    )

    #: A UUIDv7, derived from event and target (see notifier.events.fan_out); receivers see it in every attempt.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID | None]
    event_type: Mapped[str | None]
    source: Mapped[str]
    user_id: Mapped[str | None]
    #: Null if the user cannot be reached: such a row is skipped.
    recipient: Mapped[str | None]
    channel: Mapped[str | None]
    category: Mapped[str | None]
    critical: Mapped[bool]
    priority: Mapped[str]
    #: `{"subject", "body"}` or `{"data"}` of a notification without an event, or content from a handler; beside that
    #: `from`, `reply_to` and `attachments` (their ids), for an email with its own.
    content: Mapped[str | None] = mapped_column(JsonText())
    #: The queue it waits for, or waited for last.
    queue: Mapped[str]
    #: One of notifier.vocabulary.states.Status.
    status: Mapped[str]
    reason: Mapped[str | None]
    due_at: Mapped[datetime | None] = mapped_column(info=UNDRAFTED)
    send_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    cancellation_key: Mapped[str | None]
    #: How often it was claimed. It never decreases: the fence against a worker that comes back late.
    claims: Mapped[int] = mapped_column(server_default="0", info=UNDRAFTED)
    #: Calls to a provider, ever.
    attempts: Mapped[int] = mapped_column(server_default="0", info=UNDRAFTED)
    #: Failed attempts since it was queued or requeued: the retry budget, and Celery's `retries`.
    tries: Mapped[int] = mapped_column(server_default="0", info=UNDRAFTED)
    #: The claim whose lease has ended once: its worker has some seconds to say that it still holds the row.
    silent_claim: Mapped[int | None] = mapped_column(info=UNDRAFTED)
    #: How often its worker died while it was being sent.
    lost: Mapped[int] = mapped_column(server_default="0", info=UNDRAFTED)
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None] = mapped_column(info=UNDRAFTED)
    delivered_at: Mapped[datetime | None] = mapped_column(info=UNDRAFTED)
    #: The event, the replay or the request that made it; later ones sort behind earlier ones.
    origin_id: Mapped[UUID | None]
    #: The name of the route that made it.
    route: Mapped[str | None]
    #: The template's name, and its version as it was when the notification was made.
    template: Mapped[str | None]
    template_id: Mapped[UUID | None]
    template_version: Mapped[int | None]
    #: A reminder of this moment, so long before it (an ISO 8601 duration, days on the wall clock of `timezone`).
    target_date: Mapped[datetime | None]
    lead_time: Mapped[str | None]
    timezone: Mapped[str | None]
    dedup_key: Mapped[str | None]
    #: An ISO 8601 duration.
    dedup_window: Mapped[str | None]
    #: One of notifier.vocabulary.states.DedupScope; null is `source`.
    dedup_scope: Mapped[str | None]
    #: Strategy `first`: the channels that are tried in turn once this one is dead or cannot be used.
    next_channels: Mapped[list[str] | None] = mapped_column(ARRAY(Text()))
    #: Notifications to the user's other push tokens: the next channel comes once all of them are dead.
    siblings: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid()))
    #: The notification on the channel before, which could not be used.
    follows: Mapped[UUID | None]
    #: While `reason` is `breaker_open` or `throttled`: what it waits for, in words of notifier.vocabulary.deferrals, by
    #: which the clock finds it. Null where the release before deferred it.
    waits_for: Mapped[list[str] | None] = mapped_column(ARRAY(Text()), info=UNDRAFTED)
    #: Why it was deferred or skipped, in words; see the property.
    _explanation: Mapped[str | None] = mapped_column("explanation")
    #: `explanation` as the release before reads and writes it. Migration 0024 keeps the two alike.
    rule: Mapped[str | None] = mapped_column(info=UNDRAFTED)
    #: The subscription that it is for.
    subscription_id: Mapped[UUID | None]
    #: How to treat an attempt that may have been sent; null is `retry`. See notifier.vocabulary.states.OnAmbiguous.
    on_ambiguous: Mapped[str | None]
    #: The request that brought it or its event, and its place in a trace (W3C's traceparent).
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    #: When a rule first put it off, since it last became due.
    deferred_at: Mapped[datetime | None] = mapped_column(info=UNDRAFTED)
    #: The last rule of its recipient that put it off or stopped it, as notifier.notifications.claims.Judged has it.
    judged: Mapped[str | None] = mapped_column(JsonText(), info=UNDRAFTED)

    @property
    def explanation(self) -> str | None:
        """The rule that deferred or skipped it, in words. Rows of the release before have it in `rule` alone."""
        return self.rule if self._explanation is None else self._explanation

    @explanation.setter
    def explanation(self, words: str | None) -> None:
        self._explanation = self.rule = words

    @property
    def pinned_template(self) -> dict[str, object] | None:
        """Its template and version, where it has one."""
        if self.template_version is None:
            return None
        return {"name": self.template, "version": self.template_version}
