"""The Python client of Notifier: events in, people told.

from notifier_client import Client

with Client("https://notifier.example.com", key="…") as client:
    client.events.send({"event_type": "user.signup", "recipient": "ada@example.com", "channel": "email"})
"""

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
)
from notifier_client.retries import RetryPolicy
from notifier_client.version import __version__

__all__ = [
    "ApiError",
    "Client",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "NoAnswer",
    "NotFound",
    "NotifierError",
    "RateLimited",
    "RetryPolicy",
    "ServerError",
    "TooLarge",
    "Unauthenticated",
    "__version__",
]
