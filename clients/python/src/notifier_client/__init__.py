"""The Python client of Notifier: events in, people told.

from notifier_client import Client

with Client("https://notifier.example.com", key="…") as client:
    client.events.send({"event_type": "user.signup", "recipient": "ada@example.com", "channel": "email"})
"""

from notifier_client.batch_sender import BatchSender, BufferFull
from notifier_client.buffer import Limits
from notifier_client.client import Client
from notifier_client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    NotifierError,
    RateLimited,
    ServerError,
    TooLarge,
    Unauthenticated,
    Unsent,
)
from notifier_client.pagination import Listing, Page
from notifier_client.retries import RetryPolicy
from notifier_client.version import __version__
from notifier_client.webhooks import WebhookNotVerified, verify_webhook

__all__ = [
    "ApiError",
    "BatchSender",
    "BufferFull",
    "Client",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "Limits",
    "Listing",
    "NoAnswer",
    "NotFound",
    "NotifierError",
    "Page",
    "RateLimited",
    "RetryPolicy",
    "ServerError",
    "TooLarge",
    "Unauthenticated",
    "Unsent",
    "WebhookNotVerified",
    "__version__",
    "verify_webhook",
]
