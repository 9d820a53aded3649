"""Errors that callers of the product code may see.

NotifierError
├── Invalid            the request is wrong, and says which fields
│   └── KeyReused      an idempotency key came back with another body
├── Unavailable        Postgres cannot do its work now; nothing was written, or it is not known
├── Forbidden          the caller's key may not do this
└── Conflict           the record is not in a state that allows this
"""

from collections.abc import Mapping, Sequence


class NotifierError(Exception):
    """Something that Notifier itself refuses or cannot do."""


class Invalid(NotifierError):
    """The request is well-formed but wrong. `errors` maps a field to its list of messages."""

    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        super().__init__("; ".join(f"{field}: {' '.join(messages)}" for field, messages in errors.items()))
        self.errors = {field: list(messages) for field, messages in errors.items()}


class KeyReused(Invalid):
    """An idempotency key was used before with another body."""

    def __init__(self) -> None:
        super().__init__({"idempotency_key": ["This key was already used with a different body."]})


class Unavailable(NotifierError):
    """Postgres cannot do its work now, or did not answer in time. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int = 2) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Forbidden(NotifierError):
    """The key may not do this: it lacks a scope, or may not use a channel or an event type."""

    def __init__(self, field: str, message: str, scope: str | None = None) -> None:
        """`field`: the field of the request that asks for it. `scope`: the scope that is missing."""
        super().__init__(message)
        self.errors = {field: [message]}
        self.scope = scope


class Conflict(NotifierError):
    """The record is in a state that does not allow the request."""

    #: The rule that forbids it, for programs, where it is one.
    reason: str | None = None
