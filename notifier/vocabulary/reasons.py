"""Reasons why a notification waits, was not sent, or is dead, for programs (`reason` in the API).

Each has a sentence for people. The OpenAPI description and docs/reasons.md list the same reasons.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """The reason of a notification's status, of a dead letter, or of a refusal to send again."""

    # It waits.
    QUIET_HOURS = "quiet_hours"
    HELD = "held"
    BREAKER_OPEN = "breaker_open"
    THROTTLED = "throttled"

    # It was skipped.
    NO_ADDRESS = "no_address"
    NO_PROVIDER = "no_provider"
    NO_TEMPLATE = "no_template"
    INVALID_ADDRESS = "invalid_address"
    INVALID_TARGET_DATE = "invalid_target_date"
    BROKEN_ROUTE = "broken_route"
    OPTED_OUT = "opted_out"
    SUPPRESSED = "suppressed"
    DUPLICATE = "duplicate"
    SUBSCRIPTION_DISABLED = "subscription_disabled"
    SUBSCRIPTION_DELETED = "subscription_deleted"

    # It was cancelled.
    REPLACED = "replaced"
    MAY_HAVE_BEEN_SENT = "may_have_been_sent"
    USER_DELETED = "user_deleted"

    # It is dead.
    RETRIES_EXHAUSTED = "retries_exhausted"
    PERMANENT_ERROR = "permanent_error"
    WORKER_LOST = "worker_lost"
    TOO_OLD = "too_old"
    AMBIGUOUS = "ambiguous"
    BOUNCED = "bounced"
    #: Of an event, not of a notification.
    FAN_OUT_FAILED = "fan_out_failed"


#: Reasons of dead letters of notifications.
DEAD_LETTER_REASONS: Final = (
    Reason.RETRIES_EXHAUSTED,
    Reason.PERMANENT_ERROR,
    Reason.WORKER_LOST,
    Reason.TOO_OLD,
    Reason.AMBIGUOUS,
    Reason.BOUNCED,
)

#: Reason → the status of a notification that has it. `failed` also covers dead letters of events.
STATUS_OF: Final[Mapping[Reason, str]] = {
    **dict.fromkeys((Reason.QUIET_HOURS, Reason.HELD, Reason.BREAKER_OPEN, Reason.THROTTLED), "scheduled"),
    **dict.fromkeys(
        (
            Reason.NO_ADDRESS,
            Reason.NO_PROVIDER,
            Reason.NO_TEMPLATE,
            Reason.INVALID_ADDRESS,
            Reason.INVALID_TARGET_DATE,
            Reason.BROKEN_ROUTE,
            Reason.OPTED_OUT,
            Reason.SUPPRESSED,
            Reason.DUPLICATE,
            Reason.SUBSCRIPTION_DISABLED,
            Reason.SUBSCRIPTION_DELETED,
        ),
        "skipped",
    ),
    **dict.fromkeys((Reason.REPLACED, Reason.MAY_HAVE_BEEN_SENT, Reason.USER_DELETED), "cancelled"),
    **dict.fromkeys((*DEAD_LETTER_REASONS, Reason.FAN_OUT_FAILED), "failed"),
}

#: Reason → a sentence about it.
SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.QUIET_HOURS: "The recipient's quiet hours defer it until they end.",
    Reason.HELD: "An operator holds its channel, its route or everything.",
    Reason.BREAKER_OPEN: "Its endpoint, or every provider of its channel, fails; it goes when one recovers.",
    Reason.THROTTLED: "Its endpoint, provider or recipient has reached a rate limit; it waits for a place.",
    Reason.NO_ADDRESS: "The user has no address for the channel.",
    Reason.NO_PROVIDER: "The channel has no provider.",
    Reason.NO_TEMPLATE: "The template has no version for the channel and locale.",
    Reason.INVALID_ADDRESS: "The address that a route or a handler found is not valid.",
    Reason.INVALID_TARGET_DATE: "The target date that a route found in the event is not a valid time.",
    Reason.BROKEN_ROUTE: "The route's definition cannot be used.",
    Reason.OPTED_OUT: "The recipient's preferences switch off the channel or the category.",
    Reason.SUPPRESSED: "The address is on the suppression list.",
    Reason.DUPLICATE: "Another notification with the same dedup_key was sent to the same recipient within the window.",
    Reason.SUBSCRIPTION_DISABLED: "The subscription is disabled.",
    Reason.SUBSCRIPTION_DELETED: "The subscription was deleted.",
    Reason.REPLACED: "A later reminder with the same cancellation_key replaced it.",
    Reason.MAY_HAVE_BEEN_SENT: "It was cancelled, but an earlier attempt may have sent it.",
    Reason.USER_DELETED: "Its user was deleted.",
    Reason.RETRIES_EXHAUSTED: "Every attempt failed, and MAX_RETRIES allows no more.",
    Reason.PERMANENT_ERROR: "The provider refused it for good, or its data cannot be sent.",
    Reason.WORKER_LOST: "Workers died again and again while they sent it.",
    Reason.TOO_OLD: "Rules deferred it for longer than NOTIFIER_MAX_AGE allows.",
    Reason.AMBIGUOUS: "An attempt may have sent it, and on_ambiguous is hold.",
    Reason.BOUNCED: "The provider accepted it and reported later that it did not arrive.",
    Reason.FAN_OUT_FAILED: "Making the event's notifications failed again and again.",
}
