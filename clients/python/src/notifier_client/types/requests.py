# Written by `make client-types` from the OpenAPI description: changes belong there.
"""Bodies of requests."""

from typing import Any, Required, TypedDict

from notifier_client.types.words import Act, Channel, DedupScope, Moment, OnAmbiguous, Priority, Strategy


class Event(TypedDict, total=False):
    """Something that happened. No field but `event_type` is required."""

    recipient: str | None
    channel: Channel | None
    user_id: str | None
    category: str | None
    critical: bool
    priority: Priority
    send_at: Moment | None
    expires_at: Moment | None
    target_date: Moment | None
    lead_time: str | list[str] | None
    lead_time_days: int | None
    timezone: str | None
    template: str | None
    dedup_key: str | None
    dedup_window: str | None
    dedup_scope: DedupScope | None
    on_ambiguous: OnAmbiguous | None
    cancellation_key: str | None
    idempotency_key: str | None
    event_type: Required[str]
    payload: dict[str, Any]
    occurred_at: Moment | None


class Attachment(TypedDict, total=False):
    """A file that goes along with an email."""

    name: Required[str]
    content_type: str | None
    content: Required[str]


_DirectNotification = TypedDict("_DirectNotification", {"from": "str | None"}, total=False)


class DirectNotification(_DirectNotification, total=False):
    """A message to one recipient or user, without an event: a template and its data, or a subject and a body."""

    recipient: str | None
    channel: Channel | None
    user_id: str | None
    category: str | None
    critical: bool
    priority: Priority
    send_at: Moment | None
    expires_at: Moment | None
    target_date: Moment | None
    lead_time: str | list[str] | None
    lead_time_days: int | None
    timezone: str | None
    template: str | None
    dedup_key: str | None
    dedup_window: str | None
    dedup_scope: DedupScope | None
    on_ambiguous: OnAmbiguous | None
    cancellation_key: str | None
    idempotency_key: str | None
    channels: list[Channel] | None
    strategy: Strategy
    data: dict[str, Any] | None
    subject: str | None
    body: str | None
    reply_to: str | None
    attachments: list[Attachment] | None


class Cancel(TypedDict, total=False):
    """The notifications to cancel."""

    cancellation_key: Required[str]


class Move(TypedDict, total=False):
    """Another time for a scheduled notification."""

    send_at: Moment | None
    target_date: Moment | None
    expires_at: Moment | None


class Resend(TypedDict, total=False):
    """How a notification is sent again."""

    another_provider: bool


class User(TypedDict, total=False):
    """Where a person can be reached. A PUT replaces all of it."""

    email: str | None
    phone: str | None
    push_tokens: list[str]
    webhook_url: str | None
    chat_url: str | None
    timezone: str | None
    locale: str | None
    attributes: dict[str, Any]


class QuietHours(TypedDict, total=False):
    """When not to disturb: from `start` (inclusive) to `end` (exclusive), over midnight where it ends earlier."""

    channels: list[Channel]
    start: Required[str]
    end: Required[str]
    timezone: str | None


class Preferences(TypedDict, total=False):
    """A person's preferences. Unset ones mean yes. A PUT replaces all of them."""

    channels: dict[str, bool]
    categories: dict[str, dict[str, bool]]
    quiet_hours: list[QuietHours]


class PreferenceCheck(TypedDict, total=False):
    """A notification that might be sent."""

    user_id: Required[str]
    channel: Required[Channel]
    category: str | None
    critical: bool
    at: Moment | None


_Template = TypedDict("_Template", {"from": "str | None"}, total=False)


class Template(_Template, total=False):
    """A new version of a template for one channel and locale. Jinja2, sandboxed; what is undefined is an error."""

    channel: Required[Channel]
    locale: str | None
    subject: str | None
    text: str | None
    html: str | None
    reply_to: str | None


class Preview(TypedDict, total=False):
    """The data to preview a template with."""

    channel: Channel | None
    locale: str | None
    version: int | None
    data: dict[str, Any]


class Recipient(TypedDict, total=False):
    """Whom a route tells: the users that a path leads to, or an address and its channel."""

    user_id: str
    recipient: str
    channel: Channel


class Route(TypedDict, total=False):
    """A route: which people an event type notifies. Recipients and times are JMESPath over the event."""

    event_type: Required[str]
    to: Required[Recipient]
    filter: str | None
    channels: list[Channel] | None
    strategy: Strategy
    template: str | None
    category: str | None
    critical: bool | None
    priority: Priority | None
    target_date: str | None
    lead_time: str | list[str] | None
    enabled: bool


class SubscriptionFields(TypedDict, total=False):
    """A receiver, and what it wants to hear of."""

    url: Required[str]
    event_types: Required[list[str]]
    filter: str | None
    description: str | None
    headers: dict[str, str]
    rate_limit_per_second: float | None
    permanent_statuses: list[int]
    enabled: bool


class SubscriptionChanges(TypedDict, total=False):
    """Changes to a subscription; absent fields stay as they are."""

    url: str
    event_types: list[str]
    filter: str | None
    description: str | None
    headers: dict[str, str]
    rate_limit_per_second: float | None
    permanent_statuses: list[int]
    enabled: bool


class Enable(TypedDict, total=False):
    """The missed events to recover at once, if any."""

    recover_since: Moment | None


class Recover(TypedDict, total=False):
    """From when on."""

    since: Required[Moment]


class Suppression(TypedDict, total=False):
    """An address that gets nothing over a channel."""

    channel: Required[Channel]
    address: Required[str]
    reason: str
    until: Moment | None


class Lift(TypedDict, total=False):
    """Which suppression is lifted."""

    channel: Required[Channel]
    address: Required[str]


class Person(TypedDict, total=False):
    """Somebody, by an address and its channel, or by the id that callers gave them."""

    address: str | None
    channel: Channel | None
    user_id: str | None


class DeadLetterFilter(TypedDict, total=False):
    """Which dead letters are meant: those that match all of these filters. At least one is needed."""

    channel: Channel | None
    reason: str | None
    event_type: str | None
    event_id: str | None
    notification_id: str | None
    user_id: str | None
    request_id: str | None
    source: str | None
    category: str | None
    template: str | None
    recipient: str | None
    subscription_id: str | None
    cancellation_key: str | None
    dedup_key: str | None
    idempotency_key: str | None
    provider: str | None
    last_provider: str | None
    error: str | None
    message_id: str | None
    created_after: Moment | None
    created_before: Moment | None


class Requeue(DeadLetterFilter, total=False):
    """The dead letters to requeue: all, or the ones that match the filters."""

    all: bool


class NewDeadLetterAct(TypedDict, total=False):
    """An act on dead letters: on all that stand, or on those that match a filter."""

    act: Required[Act]
    filter: DeadLetterFilter
    all: bool
    dry_run: bool
