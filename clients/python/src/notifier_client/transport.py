"""HTTP: makes one request of the API, repeats it where that is safe, and turns answers into values or errors."""

import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, NewConnectionError

from notifier_client.errors import ApiError, NoAnswer, NotifierError, class_of
from notifier_client.retries import NOT_DONE, RETRIED, RetryPolicy, parse_retry_after
from notifier_client.version import __version__

#: Seconds to connect, and seconds of silence; or one number for both. The API answers within 10 s.
Timeout = float | tuple[float, float]

_IDEMPOTENT: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})  # each PATCH of the API sets values
_MASK: Final = "***"
#: The connection could not be made, or ended early.
_BROKEN: Final = requests.ConnectionError | requests.exceptions.ChunkedEncodingError


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request of the API."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    #: JSON, encoded.
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether making it twice does the same as making it once.
    repeatable: bool

    def __str__(self) -> str:
        """Name it without what may be personal: query and body."""
        return f"{self.method} {self.path}"


class _Bearer(AuthBase):
    """Sends the key. An object, since requests would prefer a password of ~/.netrc to a plain header."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Transport:
    """Makes requests of one API with one key. Threads may share it, and a forked process may go on with it."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None,
        timeout: Timeout,
        policy: RetryPolicy,
        new_session: Callable[[], requests.Session],
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._key = _checked_key(key)
        self._auth = _Bearer(self._key)
        self._timeout = timeout
        self.policy = policy
        self._new_session = new_session
        #: The process that opened it, and the session.
        self._session: tuple[int, requests.Session] | None = None

    def close(self) -> None:
        """Close its connections. A later request opens new ones."""
        found, self._session = self._session, None
        if found is not None and found[0] == os.getpid():
            found[1].close()

    def request(self, call: Call) -> requests.Response:
        """Make a request, repeated as the policy says, and return its answer, which is a success.

        Raises ApiError for an answer that is an error, and NoAnswer where none came.
        """
        began = time.monotonic()
        may_have_arrived = False
        for retry in itertools.count():
            outcome = self._attempt(call)
            if isinstance(outcome, requests.Response):
                return outcome
            outcome.attempts = retry + 1
            if isinstance(outcome, NoAnswer):
                may_have_arrived = outcome.may_have_arrived = may_have_arrived or outcome.may_have_arrived
            wait = self._wait_before(call, retry, outcome, time.monotonic() - began)
            if wait is None:
                raise outcome
            self.policy.sleep(wait)
        raise AssertionError("a policy ends")

    def document(self, call: Call) -> dict[str, Any]:
        """Make a request, and return the JSON object that answers it. Raises as `request` does."""
        answer = self.request(call)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            words = f"{answer.status_code} without a JSON object; does {self.base_url} lead to the API?"
            raise NotifierError(f"{call}: {words}")
        return found

    def _wait_before(self, call: Call, retry: int, failure: ApiError | NoAnswer, elapsed: float) -> float | None:
        """Return the seconds until a retry, counted from 0; None where there is to be none."""
        if not _may_repeat(call, failure):
            return None
        return self.policy.wait_before(retry, getattr(failure, "retry_after", None), elapsed)

    def _attempt(self, call: Call) -> requests.Response | ApiError | NoAnswer:
        """Make a request once. What went wrong is returned: raised in here, it would drag the request along."""
        try:
            answer = self._current_session().request(
                call.method,
                f"{self.base_url}{call.path}",
                params=dict(call.query),
                data=call.body,
                headers={"User-Agent": f"notifier-client/{__version__}", **call.headers},
                auth=self._auth,
                timeout=self._timeout,
                allow_redirects=False,  # the API has none, and the key is not for others
            )
        except requests.RequestException as error:
            failure = error
        else:
            return answer if 200 <= answer.status_code < 300 else self._api_error(call, answer)
        return _no_answer(call, failure)

    def _current_session(self) -> requests.Session:
        """Return the session of this process: a forked one must not speak on its parent's connections.

        There is no lock, which a fork could leave locked for ever; at worst two threads open a session each.
        """
        found = self._session
        if found is None or found[0] != os.getpid():
            found = self._session = (os.getpid(), self._new_session())
        return found[1]

    def _api_error(self, call: Call, answer: requests.Response) -> ApiError:
        try:
            found = answer.json()
        except ValueError:
            found = None
        document = self._masked(found) if isinstance(found, dict) else {}
        words = document.get("detail") or document.get("title") or "no problem document"
        request_id = self._masked(answer.headers.get("X-Request-Id"))
        message = f"{call}: {answer.status_code} {words}"
        if errors := document.get("errors"):
            message = f"{message} {json.dumps(errors, ensure_ascii=False)}"
        return class_of(answer.status_code)(
            f"{message} (request {request_id})" if request_id else message,
            status=answer.status_code,
            document=document,
            request_id=request_id,
            retry_after=parse_retry_after(answer.headers.get("Retry-After")),
        )

    def _masked(self, value: Any) -> Any:  # noqa: ANN401 -- any part of a JSON document
        """Return a value without the key, which a server that echoes its requests would have in its answer."""
        if isinstance(value, str):
            return value.replace(self._key, _MASK) if self._key else value
        if isinstance(value, dict):
            return {self._masked(name): self._masked(each) for name, each in value.items()}
        return [self._masked(each) for each in value] if isinstance(value, list) else value


def new_key() -> str:
    """Return an idempotency key that nobody else has."""
    return str(uuid.uuid4())


def encoded(body: object) -> bytes:
    """Encode a body as JSON. Raises ValueError or TypeError for values that JSON cannot hold."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_text)
    return text.encode()


def _as_text(value: object) -> str:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs a time zone: it would mean another moment elsewhere")
        return value.isoformat()
    raise TypeError(f"JSON has no {type(value).__name__}")


class CallOptions(TypedDict, total=False):
    """The parts of a request beside its method and path."""

    query: Mapping[str, Any] | None
    body: object
    idempotency_key: str | None
    #: Whether making it twice does the same as making it once. Unless this says so, a POST may only be repeated with an
    #: idempotency key, and all others may.
    repeatable: bool


def call_of(method: str, path: str, **options: Unpack[CallOptions]) -> Call:
    """Return the request for these values. Raises ValueError or TypeError for those that cannot be sent."""
    body, key = options.get("body"), options.get("idempotency_key")
    headers = {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if key is not None:
        headers["Idempotency-Key"] = _checked_header(key)
    return Call(
        method=method,
        path=path,
        query={name: _query_value(each) for name, each in (options.get("query") or {}).items() if each is not None},
        body=None if body is None else encoded(body),
        headers=headers,
        repeatable=options.get("repeatable", method in _IDEMPOTENT or key is not None),
    )


def _query_value(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return _as_text(value) if isinstance(value, uuid.UUID | datetime) else str(value)


def _may_repeat(call: Call, failure: ApiError | NoAnswer) -> bool:
    """Return whether a request that failed may be made again: it may succeed, and is not done twice."""
    if isinstance(failure, ApiError):
        return failure.status in RETRIED and (call.repeatable or failure.status in NOT_DONE)
    return failure.may_pass and (call.repeatable or not failure.may_have_arrived)


def _no_answer(call: Call, error: requests.RequestException) -> NoAnswer:
    """Return the error for a request that got no answer: in words of our own, since a URL may hold what is personal."""
    reasons = _reasons(error)
    insecure = isinstance(error, requests.exceptions.SSLError)
    unsent = (
        insecure
        or isinstance(error, requests.ConnectTimeout)
        or any(isinstance(each, NewConnectionError) for each in reasons)
    )
    if insecure:
        words = "the TLS handshake failed"
    elif isinstance(error, requests.Timeout):
        words = "timed out while connecting" if unsent else "timed out while waiting for the answer"
    elif isinstance(error, _BROKEN):
        words = "could not connect" if unsent else "the connection broke"
    else:
        words = f"failed with {type(error).__name__}"
    system = next((each.strerror for each in reasons if isinstance(each, OSError) and each.strerror), None)
    return NoAnswer(
        f"{call}: {words}{f' ({system})' if system else ''}",
        may_have_arrived=not unsent,
        may_pass=isinstance(error, requests.Timeout | _BROKEN) and not insecure,
    )


def _reasons(error: BaseException | None) -> list[BaseException]:
    """Return an error and all that it came from."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            inner = [*each.args, getattr(each, "reason", None)] if isinstance(each, HTTPError | OSError) else []
            waiting += [each.__cause__, each.__context__, *(one for one in inner if isinstance(one, BaseException))]
    return found


def _checked_url(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("base_url must be an http or https URL without a query, such as https://notifier.example.com")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must hold no user and password; give the API key as key=")
    return base_url.rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """Return an API key. Raises ValueError, without the key, for one that no header can hold."""
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("key must be the API key as it was shown: printable, without spaces or line ends")
    return key


def _checked_header(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError("an idempotency key that is not printable ASCII goes into the event, not beside it")
    return value
