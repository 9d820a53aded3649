"""Errors of the client. None of them holds the API key, nor a request's body or query.

NotifierError
├── NoAnswer                  no answer came: it is not known what became of the request, see `may_have_arrived`
├── ApiError                  the API answered with an error, or something between answered for it
│   ├── InvalidRequest        400, 415, 422: the same request fails again; `errors` names the fields
│   ├── Unauthenticated       401: no API key, or none that is in use
│   ├── Forbidden             403: the key may not do this
│   ├── NotFound              404
│   ├── Conflict              409: the record is in a state that does not allow this
│   ├── TooLarge              413: the body is larger than the API takes
│   ├── RateLimited           429: more requests a second than the key may make
│   └── ServerError           5xx
└── Unsent                    events were not sent; the error has them
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from notifier_client.types import BatchItem, Event


class NotifierError(Exception):
    """An error of the client."""


class NoAnswer(NotifierError):
    """No answer came to a request, after all attempts that it may have."""

    def __init__(self, message: str, *, may_have_arrived: bool, may_pass: bool = True, attempts: int = 1) -> None:
        super().__init__(message)
        #: False where no attempt got as far as sending the request.
        self.may_have_arrived = may_have_arrived
        #: Whether another attempt may succeed: False for a server's certificate that does not fit, for instance.
        self.may_pass = may_pass
        #: How often the request was made.
        self.attempts = attempts


class ApiError(NotifierError):
    """An error that the API answered: a problem document of RFC 9457."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        document: Mapping[str, Any],
        request_id: str | None,
        retry_after: float | None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        #: The HTTP status.
        self.status = status
        #: The whole problem document; empty where the answer was none, as a proxy's may be.
        self.document = document
        #: The answer's `X-Request-Id`, which stands in the server's logs.
        self.request_id = request_id
        #: The seconds to wait that the answer asked for.
        self.retry_after = retry_after
        #: How often the request was made.
        self.attempts = attempts

    @property
    def type(self) -> str:
        """The problem's type, such as `/problems/not-found`, which never changes; `about:blank` where there is none."""
        return str(self.document.get("type", "about:blank"))

    @property
    def title(self) -> str:
        """The meaning of the type, in a few words."""
        return str(self.document.get("title", ""))

    @property
    def detail(self) -> str:
        """The cause, for people."""
        return str(self.document.get("detail", ""))

    @property
    def errors(self) -> Mapping[str, Sequence[str]]:
        """Field → what is wrong with it."""
        found = self.document.get("errors")
        return found if isinstance(found, dict) else {}


class InvalidRequest(ApiError):
    """The request is not one that the API takes, and the same one fails again."""


class Unauthenticated(ApiError):
    """There is no API key, or none that is in use."""


class Forbidden(ApiError):
    """The API key may not do this."""


class NotFound(ApiError):
    """There is no such record, or the key may not see it."""


class Conflict(ApiError):
    """The record is in a state that does not allow this."""


class TooLarge(ApiError):
    """The body is larger than the API takes."""


class RateLimited(ApiError):
    """The key makes more requests a second than it may."""


class ServerError(ApiError):
    """The server could not do its work."""


class Unsent(NotifierError):
    """Events were not sent, or nobody knows whether they were. Nothing is lost: the error has them."""

    def __init__(
        self,
        cause: NotifierError | None,
        *,
        events: Sequence[Event],
        refused: Sequence[tuple[Event, BatchItem]] = (),
        answers: Sequence[BatchItem] = (),
    ) -> None:
        super().__init__(_unsent_words(cause, len(events), len(refused)))
        #: The error that stopped the sending; None where the events were refused one by one, or time was over.
        self.cause = cause
        #: The events that may be sent again: each has its idempotency key, so none is accepted twice.
        self.events = events
        #: The events that the API refused, each with its item of the answer: sent again, they are refused again.
        self.refused = refused
        #: Items of the answer for events before these, of `send_many`.
        self.answers = answers


def _unsent_words(cause: NotifierError | None, events: int, refused: int) -> str:
    found = [f"{events} unsent (see events)"] if events else []
    found += [f"{refused} refused (see refused)"] if refused else []
    return f"events: {', '.join(found)}" + (f"; {cause}" if cause else "")


_OF_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
}


def class_of(status: int) -> type[ApiError]:
    """Return the class of errors for an HTTP status."""
    return _OF_STATUS.get(status, ServerError if status >= 500 else ApiError)
