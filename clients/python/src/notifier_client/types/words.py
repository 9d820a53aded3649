# Written by `make client-types` from the OpenAPI description: changes belong there.
"""The values that members of requests and answers may have."""

from datetime import datetime
from typing import Literal, TypeAlias

#: RFC 3339 with an offset, or a datetime with a time zone.
Moment: TypeAlias = str | datetime


Channel: TypeAlias = Literal["email", "sms", "push", "chat", "webhook"]


Priority: TypeAlias = Literal["high", "normal", "low"]


DedupScope: TypeAlias = Literal["source", "everyone"]


OnAmbiguous: TypeAlias = Literal["retry", "fallback", "hold"]


Strategy: TypeAlias = Literal["all", "first"]


Act: TypeAlias = Literal["requeue", "drop"]


ProblemType: TypeAlias = Literal[
    "/problems/bad-request",
    "/problems/invalid-json",
    "/problems/invalid-api-key",
    "/problems/invalid-signature",
    "/problems/missing-scope",
    "/problems/cross-site",
    "/problems/key-restricted",
    "/problems/not-found",
    "/problems/invalid-id",
    "/problems/method-not-allowed",
    "/problems/timed-out",
    "/problems/conflict",
    "/problems/body-too-large",
    "/problems/unsupported-media-type",
    "/problems/misdirected-request",
    "/problems/validation-failed",
    "/problems/idempotency-key-reused",
    "/problems/rate-limited",
    "/problems/internal-error",
    "/problems/unavailable",
]


EventStatus: TypeAlias = Literal["accepted", "processed", "failed"]


NotificationStatus: TypeAlias = Literal[
    "scheduled", "queued", "sending", "retrying", "sent", "delivered", "failed", "cancelled", "expired", "skipped"
]


NotificationReason: TypeAlias = Literal[
    "quiet_hours",
    "held",
    "breaker_open",
    "throttled",
    "no_address",
    "no_provider",
    "no_template",
    "invalid_address",
    "invalid_target_date",
    "broken_route",
    "opted_out",
    "suppressed",
    "duplicate",
    "subscription_disabled",
    "subscription_deleted",
    "replaced",
    "may_have_been_sent",
    "user_deleted",
    "retries_exhausted",
    "permanent_error",
    "worker_lost",
    "too_old",
    "ambiguous",
    "bounced",
    "fan_out_failed",
]


Outcome: TypeAlias = Literal["accepted", "rejected", "unsent", "ambiguous"]


ReceiptKind: TypeAlias = Literal["delivered", "bounced", "bounced_here", "bounced_for_now"]


EarlierSendHow: TypeAlias = Literal["resend", "another_provider", "requeue", "recover"]


Encoding: TypeAlias = Literal["gsm-7", "ucs-2"]


RecoveryStatus: TypeAlias = Literal["running", "finished"]


DeadLetterReason: TypeAlias = Literal[
    "retries_exhausted", "permanent_error", "worker_lost", "too_old", "ambiguous", "bounced", "fan_out_failed"
]


DeadLetterActStatus: TypeAlias = Literal["running", "finished", "stopped"]


SearchItemType: TypeAlias = Literal["notification", "event", "user", "dead_letter", "subscription", "suppression"]


By: TypeAlias = Literal["channel", "provider", "event_type", "source", "queue"]


Step: TypeAlias = Literal["minute", "hour", "total"]


Name: TypeAlias = Literal[
    "fan_out",
    "email.high",
    "sms.high",
    "push.high",
    "chat.high",
    "webhook.high",
    "email",
    "sms",
    "push",
    "chat",
    "webhook",
    "email.low",
    "sms.low",
    "push.low",
    "chat.low",
    "webhook.low",
    "email.retry",
    "sms.retry",
    "push.retry",
    "chat.retry",
    "webhook.retry",
    "webhook.slow",
]


State: TypeAlias = Literal["closed", "open", "half_open"]


ProcessStateKind: TypeAlias = Literal["worker", "clock", "stuck"]


CheckStatus: TypeAlias = Literal["ok", "failed"]


ReadyStatus: TypeAlias = Literal["ok", "degraded", "unavailable"]
