# Written by `make client-types` from the OpenAPI description: changes belong there.
"""Parameters of queries, for each operation that has some."""

from typing import Literal, TypedDict

from notifier_client.types.words import By, Channel, EventStatus, Moment, NotificationStatus, Step


class ListEventsQuery(TypedDict, total=False):
    """The query of listEvents."""

    limit: int
    cursor: str | None
    event_type: str | None
    status: EventStatus | None
    source: str | None
    event_id: str | None
    notification_id: str | None
    subscription_id: str | None
    reason: str | None
    provider: str | None
    message_id: str | None
    request_id: str | None
    user_id: str | None
    category: str | None
    template: str | None
    cancellation_key: str | None
    dedup_key: str | None
    idempotency_key: str | None
    recipient: str | None
    created_after: Moment | None
    created_before: Moment | None
    reveal: bool


class ListNotificationsQuery(TypedDict, total=False):
    """The query of listNotifications."""

    limit: int
    cursor: str | None
    status: NotificationStatus | None
    channel: Channel | None
    user_id: str | None
    recipient: str | None
    event_type: str | None
    event_id: str | None
    request_id: str | None
    subscription_id: str | None
    source: str | None
    category: str | None
    template: str | None
    reason: str | None
    cancellation_key: str | None
    dedup_key: str | None
    idempotency_key: str | None
    provider: str | None
    message_id: str | None
    created_after: Moment | None
    created_before: Moment | None
    reveal: bool


class ListUsersQuery(TypedDict, total=False):
    """The query of listUsers."""

    limit: int
    cursor: str | None
    address: str | None
    created_after: Moment | None
    created_before: Moment | None
    reveal: bool


class ListTemplatesQuery(TypedDict, total=False):
    """The query of listTemplates."""

    limit: int
    cursor: str | None
    reveal: bool


class GetTemplateQuery(TypedDict, total=False):
    """The query of getTemplate."""

    channel: Channel | None
    locale: str | None
    version: int | None
    reveal: bool


class ListTemplateVersionsQuery(TypedDict, total=False):
    """The query of listTemplateVersions."""

    limit: int
    cursor: str | None
    channel: Channel | None
    locale: str | None
    version: int | None
    reveal: bool


class ListRoutesQuery(TypedDict, total=False):
    """The query of listRoutes."""

    limit: int
    cursor: str | None
    reveal: bool


class ListSubscriptionsQuery(TypedDict, total=False):
    """The query of listSubscriptions."""

    limit: int
    cursor: str | None
    enabled: bool | None
    url: str | None
    reveal: bool


class ListSubscriptionNotificationsQuery(TypedDict, total=False):
    """The query of listSubscriptionNotifications."""

    limit: int
    cursor: str | None
    status: NotificationStatus | None
    reveal: bool


class ListRecoveriesQuery(TypedDict, total=False):
    """The query of listRecoveries."""

    limit: int
    cursor: str | None
    reveal: bool


class ListSuppressionsQuery(TypedDict, total=False):
    """The query of listSuppressions."""

    limit: int
    cursor: str | None
    channel: Channel | None
    address: str | None
    reveal: bool


class ListErasuresQuery(TypedDict, total=False):
    """The query of listErasures."""

    limit: int
    cursor: str | None
    reveal: bool


class ListDeadLettersQuery(TypedDict, total=False):
    """The query of listDeadLetters."""

    limit: int
    cursor: str | None
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
    requeued: bool | None
    reveal: bool


class GroupDeadLettersQuery(TypedDict, total=False):
    """The query of groupDeadLetters."""

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
    by: str
    limit: int
    reveal: bool


class ListDeadLetterActsQuery(TypedDict, total=False):
    """The query of listDeadLetterActs."""

    limit: int
    cursor: str | None
    reveal: bool


class SearchEverythingQuery(TypedDict, total=False):
    """The query of searchEverything."""

    q: str
    limit: int
    status: NotificationStatus | None
    reason: str | None
    channel: Channel | None
    provider: str | None
    event_type: str | None
    source: str | None
    created_after: Moment | None
    created_before: Moment | None
    reveal: bool


class ListAuditQuery(TypedDict, total=False):
    """The query of listAudit."""

    limit: int
    cursor: str | None
    actor: str | None
    action: str | None
    target: str | None
    created_after: Moment | None
    created_before: Moment | None
    reveal: bool


_GetStatisticsQuery = TypedDict("_GetStatisticsQuery", {"from": "Moment | None"}, total=False)


class GetStatisticsQuery(_GetStatisticsQuery, total=False):
    """The query of getStatistics."""

    by: By
    step: Step
    to: Moment | None
    name: str | None
    format: Literal["json", "csv"] | None
