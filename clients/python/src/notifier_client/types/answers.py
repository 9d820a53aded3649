# Written by `make client-types` from the OpenAPI description: changes belong there.
"""Bodies of answers."""

from typing import Any, Literal, NotRequired, TypedDict

from notifier_client.types.requests import Recipient
from notifier_client.types.words import (
    Act,
    By,
    Channel,
    CheckStatus,
    DeadLetterActStatus,
    DeadLetterReason,
    EarlierSendHow,
    Encoding,
    EventStatus,
    Name,
    NotificationReason,
    NotificationStatus,
    Outcome,
    Priority,
    ProblemType,
    ProcessStateKind,
    ReadyStatus,
    ReceiptKind,
    RecoveryStatus,
    SearchItemType,
    State,
    Step,
    Strategy,
)


class PinnedTemplate(TypedDict):
    """The version of a template that a notification was given when it was made."""

    name: str
    version: int


class Attempt(TypedDict):
    """One call to a provider."""

    number: int
    provider: str | None
    outcome: Outcome
    status_code: int | None
    message_id: str | None
    error: str | None
    response_excerpt: str | None
    duration_ms: float | None
    started_at: str | None
    request_headers: dict[str, str] | None
    response_headers: dict[str, str] | None
    timing: dict[str, float | None] | None


class Receipt(TypedDict):
    """A receipt from a provider, after it accepted a message."""

    provider: str
    kind: ReceiptKind
    happened_at: str
    taken_at: str
    error: str | None
    message_id: str | None
    applied: bool


class EarlierSend(TypedDict):
    """The state of a notification when somebody had it sent again, and who that was."""

    how: EarlierSendHow
    asked_by: str
    asked_at: str
    status: NotificationStatus
    reason: NotificationReason | None
    explanation: str | None
    sent_at: str | None
    delivered_at: str | None
    attempts: int


class Notification(TypedDict):
    """A notification and where it stands."""

    id: str
    event_id: str | None
    user_id: str | None
    recipient: str | None
    channel: Channel | None
    category: str | None
    critical: bool
    priority: str
    template: PinnedTemplate | None
    event_type: str | None
    source: str
    request_id: str | None
    status: NotificationStatus
    reason: NotificationReason | None
    due_at: str | None
    attempts: int
    created_at: str
    sent_at: str | None
    delivered_at: str | None
    subscription_id: str | None
    route: str | None
    target_date: str | None
    lead_time: str | None
    send_at: str | None
    expires_at: str | None
    cancellation_key: str | None
    follows: str | None


class NotificationWithAttempts(Notification):
    """A notification with its attempts, and its state each time that it was sent again."""

    explanation: str | None
    attempt_log: list[Attempt]
    judged: dict[str, Any] | None
    receipts: list[Receipt]
    earlier_sends: list[EarlierSend]


class Problem(TypedDict):
    """The form of every error."""

    type: ProblemType
    title: str
    status: int
    detail: str
    errors: NotRequired[dict[str, list[str]]]
    reason: NotRequired[str]
    notification: NotRequired[NotificationWithAttempts]


class AcceptedEvent(TypedDict):
    """The answer to an event."""

    id: str
    event_type: str
    status: Literal["accepted"]
    duplicate: bool
    created_at: str


class BatchItem(TypedDict):
    """The result of one item: an id and a word, or the problem that a request with this item alone would get."""

    index: int
    id: NotRequired[str]
    status: Literal["accepted", "duplicate"] | int
    type: NotRequired[ProblemType]
    errors: NotRequired[dict[str, list[str]]]


class BatchAnswer(TypedDict):
    """The result of a batch; `accepted` excludes duplicates."""

    accepted: int
    duplicates: int
    rejected: int
    items: list[BatchItem]


class EventOut(TypedDict):
    """An event as it was accepted."""

    id: str
    event_type: str
    source: str
    status: EventStatus
    payload: dict[str, Any] | None
    recipient: str | None
    channel: str | None
    user_id: str | None
    category: str | None
    critical: bool
    priority: str
    send_at: str | None
    expires_at: str | None
    cancellation_key: str | None
    target_date: str | None
    lead_time: list[str] | None
    timezone: str | None
    template: str | None
    dedup_key: str | None
    dedup_window: str | None
    dedup_scope: str | None
    on_ambiguous: str | None
    idempotency_key: str | None
    request_id: str | None
    occurred_at: str | None
    created_at: str


class EventWithNotifications(EventOut):
    """An event and its notifications."""

    explanation: str
    notifications: list[Notification]


class Notifications(TypedDict):
    """The notifications that a request made."""

    items: list[Notification]


class Attached(TypedDict):
    """A file that goes along with an email, without its content."""

    name: str
    content_type: str
    bytes: int


_Content = TypedDict("_Content", {"from": "str | None"})


class Content(_Content):
    """The content of a notification."""

    id: str
    channel: Channel
    status: NotificationStatus
    attempts: int
    template: PinnedTemplate | None
    rendered_now: bool
    subject: str | None
    text: str
    html: str | None
    reply_to: str | None
    attachments: list[Attached]


class Cancelled(TypedDict):
    """How many were cancelled, and for how many it was too late."""

    cancelled: int
    too_late: int


class UserOut(TypedDict):
    """A user."""

    user_id: str
    email: str | None
    phone: str | None
    push_tokens: list[str]
    webhook_url: str | None
    chat_url: str | None
    timezone: str | None
    locale: str | None
    attributes: dict[str, Any]
    created_at: str
    updated_at: str


class UserExport(TypedDict):
    """All that is known of a person. Rows are whole, as they are stored, and may have more fields in later versions."""

    exported_at: str
    user: dict[str, Any] | None
    suppressions: list[dict[str, Any]]
    opt_outs: list[dict[str, Any]]
    notifications: list[dict[str, Any]]
    events: list[dict[str, Any]]
    outbox: list[dict[str, Any]]
    dedup_keys: list[dict[str, Any]]


class Decision(TypedDict):
    """Whether it would be sent, when, and which rule says so."""

    allowed: bool
    at: str | None
    rule: str | None
    explanation: str


_TemplateOut = TypedDict("_TemplateOut", {"from": "str | None"})


class TemplateOut(_TemplateOut):
    """One version of a template."""

    name: str
    channel: str
    locale: str
    version: int
    subject: str | None
    text: str | None
    html: str | None
    reply_to: str | None
    created_at: str


class TemplateWithVariants(TemplateOut):
    """The version that was saved last, and the current one of every channel and locale."""

    variants: list[TemplateOut]


class Segments(TypedDict):
    """The segments of a text as an SMS: each is sent, and billed, on its own."""

    encoding: Encoding
    units: int
    segments: int


class Previewed(TypedDict):
    """The rendered message, as a recipient would read it."""

    name: str
    channel: str
    locale: str
    version: int
    subject: str | None
    text: str | None
    html: str | None
    sms: Segments | None


class RouteOut(TypedDict):
    """A route."""

    event_type: str
    to: Recipient
    filter: NotRequired[str | None]
    channels: NotRequired[list[Channel] | None]
    strategy: NotRequired[Strategy]
    template: NotRequired[str | None]
    category: NotRequired[str | None]
    critical: NotRequired[bool | None]
    priority: NotRequired[Priority | None]
    target_date: NotRequired[str | None]
    lead_time: NotRequired[str | list[str] | None]
    enabled: NotRequired[bool]
    name: str
    created_at: str
    updated_at: str


class Subscription(TypedDict):
    """A subscription. Its secret is shown when it is made and when it is rotated only."""

    id: str
    url: str | None
    event_types: list[str]
    filter: str | None
    description: str | None
    headers: dict[str, str] | None
    rate_limit_per_second: float | None
    permanent_statuses: list[int]
    enabled: bool
    disabled_reason: str | None
    created_at: str
    updated_at: str


class NewSubscription(Subscription):
    """A subscription with its secret."""

    secret: str


class Secret(TypedDict):
    """A new secret; the one before signs too for 24 hours."""

    secret: str
    previous_secret_until: str


class Recovery(TypedDict):
    """A recovery and its progress. Notifications that are created after its start are not part of it."""

    id: str
    subscription_id: str
    since: str
    status: RecoveryStatus
    total: int
    recovered: int
    refused: int
    refused_reasons: dict[str, int] | None
    asked_by: str | None
    source: str | None
    created_at: str
    finished_at: str | None


class Enabled(Subscription):
    """A subscription that was enabled, and the recovery that was asked for with it."""

    recovery: Recovery | None


class SuppressionOut(TypedDict):
    """An address on the suppression list."""

    id: str
    channel: str
    address: str | None
    reason: str | None
    until: str | None
    created_at: str


class Hold(TypedDict):
    """A hold, and what it holds back."""

    target: str
    held_by: str
    created_at: str


class Erasure(TypedDict):
    """An erasure, and how far it is. It does not say whose it is."""

    id: str
    status: str
    asked_by: str
    created_at: str
    round: int
    stage: str | None
    erased: int
    left_in: list[str]
    finished_at: str | None


class DeadLetter(TypedDict):
    """A notification or event that failed for good, and why."""

    id: str
    notification_id: str | None
    event_id: str | None
    channel: str | None
    event_type: str | None
    reason: DeadLetterReason
    error: str | None
    attempts: int
    created_at: str
    requeued_at: str | None


class DeadLetterGroupFilter(TypedDict):
    """The filters that select the letters of a group."""

    reason: NotRequired[str]
    last_provider: NotRequired[str]
    error: NotRequired[str]
    event_type: NotRequired[str]
    channel: NotRequired[str]


class DeadLetterGroup(TypedDict):
    """The standing letters that are alike. It has the members that are grouped by."""

    reason: NotRequired[str | None]
    provider: NotRequired[str | None]
    error: NotRequired[str | None]
    event_type: NotRequired[str | None]
    channel: NotRequired[str | None]
    count: int
    first_at: str
    last_at: str
    hourly: list[int]
    daily: list[int]
    filter: DeadLetterGroupFilter | None


class DeadLetterGroups(TypedDict):
    """Groups of the dead letters that stand, the largest first."""

    by: list[Literal["reason", "provider", "error", "event_type", "channel"]]
    items: list[DeadLetterGroup]
    groups: int
    counted: int
    is_sample: bool


class Requeued(TypedDict):
    """The number of dead letters that were requeued, and of those that were left as they are."""

    requeued: int
    refused: int
    refused_reasons: dict[str, int]


class DeadLetterPreview(TypedDict):
    """The letters that an act would begin with. Nothing was changed."""

    act: Act
    total: int
    by_reason: dict[str, int]
    sample: list[str]


class DeadLetterActFilter(TypedDict):
    """The filters of an act; those that were not given are null."""

    channel: str | None
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
    created_after: str | None
    created_before: str | None


class DeadLetterAct(TypedDict):
    """An act on dead letters, and how far it is. Letters that are written after its beginning are not part of it."""

    id: str
    act: Act
    status: DeadLetterActStatus
    filter: DeadLetterActFilter | None
    source: str | None
    total: int | None
    done: int
    refused: int
    refused_reasons: dict[str, int]
    asked_by: str
    created_at: str
    finished_at: str | None
    stopped_at: str | None


class SearchItem(TypedDict):
    """A record that was found. Members that its type does not have are null."""

    type: SearchItemType
    id: str
    matched: list[str]
    created_at: str
    status: str | None
    reason: str | None
    channel: str | None
    event_type: str | None
    source: str | None
    user_id: str | None
    recipient: str | None
    notification_id: str | None
    event_id: str | None
    subscription_id: str | None


class More(TypedDict):
    """A list that has more than was found."""

    type: SearchItemType
    matched: str
    path: str | None


class Search(TypedDict):
    """The records that were found: newest first within each type."""

    items: list[SearchItem]
    more: list[More]


class AuditLine(TypedDict):
    """One act, or several alike within a minute."""

    id: str
    at: str
    actor: str
    action: str
    target: str | None
    outcome: str
    request_id: str | None
    peer: str | None
    times: int
    number: int | None


class Percentiles(TypedDict):
    """How long something took, in milliseconds: half of all were quicker than `p50_ms`. Null where nothing was."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Figures(TypedDict):
    """The figures of one name in one minute, hour or span."""

    start: str
    channel: str | None
    name: str | None
    accepted: int
    attempts: int
    sent: int
    rejected: int
    unsent: int
    ambiguous: int
    retries: int
    delivered: int
    failed: int
    success_rate: float | None
    call: Percentiles
    wait: Percentiles


_Statistics = TypedDict("_Statistics", {"from": "str"})


class Statistics(_Statistics):
    """Figures of a span of time."""

    by: By
    step: Step
    to: str
    complete_until: str | None
    items: list[Figures]


class QueueState(TypedDict):
    """A queue of rows in Postgres: what is due or handed over to workers, and who serves it."""

    name: Name
    channel: str | None
    depth: int
    more: bool
    oldest_due_seconds: float | None
    attempts_per_minute: float | None
    workers: list[str]
    held: bool


class ProviderState(TypedDict):
    """A provider that workers can send by, or that had trouble."""

    channel: str
    name: str
    in_use: bool
    state: State
    failures: int
    failing_since: str | None
    failed_at: str | None
    error: str | None
    open_until: str | None
    next_slot: str | None
    line_until: str | None


class EndpointState(TypedDict):
    """A webhook's endpoint that fails, or that keeps callers waiting."""

    id: str
    is_subscription: bool
    state: State
    failures: int
    failing_since: str | None
    open_until: str | None
    slow_until: str | None


class ProcessState(TypedDict):
    """A process that was seen lately."""

    name: str
    kind: ProcessStateKind
    queues: list[str]
    seen_seconds: float


class SystemState(TypedDict):
    """The state of the whole system at one moment."""

    at: str
    queues: list[QueueState]
    providers: list[ProviderState]
    endpoints: list[EndpointState]
    more_endpoints: bool
    holds: list[Hold]
    processes: list[ProcessState]


class Health(TypedDict):
    """The process lives."""

    status: str


class Check(TypedDict):
    """The state of one part."""

    status: CheckStatus
    detail: NotRequired[str]


class Ready(TypedDict):
    """The state of each part."""

    status: ReadyStatus
    sandbox: bool
    checks: dict[str, Check]
