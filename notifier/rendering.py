"""From a notification to what its recipient reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from notifier.channels import Channel
from notifier.providers import Message

#: What a webhook without an event is called.
DIRECT_TYPE: Final = "notification"


@dataclass(frozen=True, slots=True)
class Content:
    """What a notification is about: an event's type and payload, or a direct notification's subject and body."""

    event_id: UUID | None
    event_type: str | None
    #: JSON text, exactly as it was posted.
    data: str
    #: When it happened, or else when it was accepted.
    timestamp: datetime


def rfc3339(moment: datetime) -> str:
    """A moment in UTC ending in `Z`, to the microsecond where it has any (RFC 3339)."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _lines(data: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}" for name, value in data.items()
    )


def _webhook_body(notification_id: UUID, content: Content) -> str:
    # Put together as text: the payload reaches the receiver as it was sent to us, and every attempt is the same.
    members = (
        f'"type":{orjson.dumps(content.event_type or DIRECT_TYPE).decode()}',
        f'"timestamp":"{rfc3339(content.timestamp)}"',
        f'"id":"{content.event_id or notification_id}"',
        f'"data":{content.data}',
    )
    return "{" + ",".join(members) + "}"


def render(notification_id: UUID, channel: Channel, recipient: str, content: Content) -> Message:
    """The message of a notification. Without a template the built-in one shows the event's type and payload."""
    if channel is Channel.WEBHOOK:
        return Message(notification_id, recipient, None, _webhook_body(notification_id, content))
    data = orjson.loads(content.data)
    if content.event_type is None:
        return Message(notification_id, recipient, data.get("subject"), data["body"])
    text = "\n\n".join(filter(None, (content.event_type, _lines(data))))
    return Message(notification_id, recipient, content.event_type, text)
