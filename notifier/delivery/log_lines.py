"""Log lines of a notification: one for each call to a provider, and one each time it is put aside.

(That it is dead, notifier.notifications.dead_letters tells.)

Ids and states, no addresses and no contents: by its `request_id` everything can be found that a request brought about.
"""

import re
from typing import Any, Final

import structlog

from notifier.notifications.attempts import Record
from notifier.notifications.claims import Aside, Claimed
from notifier.providers.protocol import Outcome
from notifier.vocabulary.states import Channel

log = structlog.get_logger()

_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9._:=+-]{1,64}")

ATTEMPT: Final = "attempt"
PUT_ASIDE: Final = "put_aside"


def _harmless(message_id: str | None) -> str | None:
    """Return a vendor's id for a message where it looks like one: vendors and browsers choose it."""
    return message_id if message_id and _MESSAGE_ID.fullmatch(message_id) else None


def _class(error: str | None) -> str | None:
    return error.partition(":")[0][:64] if error else None


def _of(row: Claimed) -> dict[str, Any]:
    fields = {
        "notification_id": str(row.id),
        "event_id": str(row.event_id) if row.event_id else None,
        "event_type": row.event_type,
        "request_id": row.request_id,
        "traceparent": row.traceparent,
    }
    return {name: value for name, value in fields.items() if value is not None}


def log_attempt(channel: Channel, row: Claimed, record: Record) -> None:
    """Log a call to a provider that is recorded."""
    result = record.result
    fields = {
        "channel": channel.value,
        "provider": result.provider,
        "outcome": result.outcome.value,
        "number": record.number,
        "ms": round(result.duration_ms, 1),
        "code": result.status_code,
        "fault": result.fault.value if result.fault else None,
        "message_id": _harmless(result.message_id),
        # Its class alone: details come from servers, who like to repeat addresses.
        "error": _class(result.error),
        "handed_on": result.handed_on or None,
    }
    log_line = log.info if result.outcome is Outcome.ACCEPTED else log.warning
    log_line(ATTEMPT, **_of(row), **{name: value for name, value in fields.items() if value is not None})


def log_put_aside(channel: Channel, row: Claimed, verdict: Aside) -> None:
    """Log why a notification is not sent, or not now."""
    more = {"reason": verdict.reason, "until": verdict.due_at.isoformat() if verdict.due_at else None}
    fields = {name: value for name, value in more.items() if value is not None}
    log.info(PUT_ASIDE, **_of(row), channel=channel.value, status=verdict.status.value, **fields)
