"""Shapes of requests and answers."""

from typing import Any, Literal, TypedDict


class Event(TypedDict, total=False):
    """An event, to be posted."""

    event_type: str
    payload: dict[str, Any]
    recipient: str
    channel: Literal["email", "sms", "push", "chat", "webhook"]
    user_id: str
    idempotency_key: str


class AcceptedEvent(TypedDict):
    """The answer to an event."""

    id: str
    event_type: str
    status: str
    duplicate: bool
    created_at: str
