"""Push to apps: Firebase Cloud Messaging, HTTP v1.

| answer                                             | outcome                                          |
|----------------------------------------------------|--------------------------------------------------|
| 2xx with a `name`                                  | accepted; the name is the message id             |
| UNREGISTERED (404)                                 | rejected, the recipient's fault                  |
| SENDER_ID_MISMATCH (403)                           | rejected                                         |
| INVALID_ARGUMENT (400) of the token                | rejected, the recipient's fault                  |
| INVALID_ARGUMENT (400) of anything else            | rejected                                         |
| QUOTA_EXCEEDED (429)                               | unsent, throttled: Retry-After, else a minute    |
| UNAVAILABLE (503), INTERNAL (500)                  | unsent, the provider's fault                     |
| UNAUTHENTICATED (401)                              | unsent, the provider's fault; a new access token |
| THIRD_PARTY_AUTH_ERROR (401): iOS or browsers only | unsent, a route's fault                          |
| PERMISSION_DENIED (403)                            | unsent, the provider's fault                     |
| 404 without UNREGISTERED (no such project)         | unsent, the provider's fault                     |
| no access token is to be had                       | unsent, the provider's fault                     |

A recipient is a registration token, or a Firebase Installation ID. Other answers: see `providers.http.api`. The codes
are the v1 API's `FcmError`, and those of `google.rpc.Status` where there is none.

A payload may have 4096 bytes. A title is cut at 1000 bytes, a text where both together would take more than 3800 as
JSON; cut texts end in an ellipsis. FCM supports no idempotency: apps recognise a repeat by `notification_id`.
"""

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import orjson
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request as Transport
from google.oauth2.service_account import Credentials

from notifier.providers.dsn import Context, Dsn
from notifier.providers.http.api import Answer, HttpApi, NotNow, Verdict, accepted_as, by_status, shortened
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome, Result

_SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
_HOST: Final = "https://fcm.googleapis.com"
_FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_INVALID: Final = "The registration token is not a valid FCM"
#: In bytes of JSON; the rest of the 4096 is for the id and what FCM adds.
_TITLE_AT_MOST: Final = 1000
_BOTH_AT_MOST: Final = 3800
#: A token is renewed so many seconds before it expires.
_AHEAD: Final = 300.0
#: After a failure the next attempt to get a token waits so many seconds.
_PAUSE: Final = 2.0
_SLICE: Final = 0.1
#: Seconds that FCM wants to be left alone for, where it does not say how many.
_QUOTA_PAUSE: Final = 60.0
#: A Firebase Installation ID, which takes the place of registration tokens.
_INSTALLATION: Final = re.compile(r"[cdef][A-Za-z0-9_-]{21}")

#: The token's end, or no fault of the token's: with the key of another project, each one is another sender's.
_REJECTED: Final = {
    "UNREGISTERED": (Fault.RECIPIENT, "the app is not installed any more"),
    "SENDER_ID_MISMATCH": (None, "another sender's token"),
}
_WORDS: Final = {
    "INVALID_ARGUMENT": "not a valid message",
    "QUOTA_EXCEEDED": "too many messages",
    "RESOURCE_EXHAUSTED": "too many messages",
    "UNAVAILABLE": "overloaded",
    "INTERNAL": "an error of its own",
    "THIRD_PARTY_AUTH_ERROR": "no valid APNs or web push certificate",
    "UNAUTHENTICATED": "refuses the access token",
    "PERMISSION_DENIED": "the service account may not send",
    "NOT_FOUND": "no such project",
}


class AccessToken:
    """A service account's access token, renewed in the background before it expires. Used by several threads at once.

    One thread at a time asks for it, so that one request of a token serves all messages.
    """

    def __init__(self, credentials: Credentials, timeout: float) -> None:
        """`timeout`: seconds that connecting, and each read, may take."""
        self._credentials = credentials
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy from the environment, as for all else that is sent
        self._transport = _Transport(self._session, timeout)
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._is_asking = False
        self._token: str | None = None
        self._expires_at = 0.0
        self._failed_at = -_PAUSE
        self._error = "token: not asked for yet"

    def get(self, wait: float) -> str:
        """Return the token, after waiting for a new one for at most so many seconds. Raises NotNow."""
        token = self._current()
        if token is None and self._settled.wait(wait):
            token = self._current()
        if token is None:
            raise NotNow(self._error)
        return token

    @property
    def is_settled(self) -> bool:
        """Whether there is a token, or was lately none to be had."""
        return self._current() is not None or self._settled.is_set()

    def drop(self, token: str) -> None:
        """Forget a token that was refused, unless there is a newer one."""
        with self._lock:
            if token == self._token:
                self._token = None

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def _current(self) -> str | None:
        with self._lock:
            left = self._expires_at - time.time() if self._token else 0.0
            may_ask = not self._is_asking and time.monotonic() - self._failed_at >= _PAUSE
            if left < _AHEAD and may_ask:
                self._is_asking = True
                self._settled.clear()
                threading.Thread(target=self._ask, name="fcm-token", daemon=True).start()
            return self._token if left > 0 else None

    def _ask(self) -> None:
        error = token = None
        expires_at = 0.0
        try:
            self._credentials.refresh(self._transport)  # type: ignore[no-untyped-call]  # google-auth is untyped
            token = self._credentials.token
            expiry: Any = self._credentials.expiry  # naive, and UTC
            expires_at = expiry.replace(tzinfo=UTC).timestamp()
        except GoogleAuthError as failure:
            error = f"token: {type(failure).__name__}, Google gives no access token to the service account"
        except BaseException as failure:  # whatever it is, messages must not wait for it for ever
            error = f"token: {type(failure).__name__}"
        with self._lock:
            self._is_asking = False
            if error:
                self._error, self._failed_at = error, time.monotonic()
            else:
                self._token, self._expires_at = token, expires_at
            self._settled.set()


class _Transport(Transport):
    """google-auth's own, with our timeout in place of its two minutes.

    It follows no redirect: what it sends is a credential, and would go wherever an answer says, over http too.
    """

    def __init__(self, session: requests.Session, timeout: float) -> None:
        super().__init__(session)
        self._timeout = timeout

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **options: Any,  # noqa: ANN401  # whatever google-auth hands on to requests
    ) -> Any:  # noqa: ANN401  # google-auth's own type is untyped
        del timeout
        options |= {"timeout": self._timeout, "allow_redirects": False}
        return super().__call__(url, method, body, headers, **options)  # type: ignore[no-untyped-call]  # google-auth is untyped


class Fcm(HttpApi):
    """Sends notifications to the registration tokens of one Firebase project."""

    name = "fcm"

    def __init__(self, *, base_url: str, project: str, token: AccessToken, timeout: float) -> None:
        """`timeout`: seconds that one message may take in all; its access token may take as long before that."""
        super().__init__(timeout=timeout)
        self._url = f"{base_url}/v1/projects/{project}/messages:send"
        self._token = token

    def takes(self, recipient: str) -> bool:
        """Return whether it may be a registration token: no URL, browser's subscription, or token of APNs or Expo."""
        if _INSTALLATION.fullmatch(recipient):
            return True
        is_document = recipient.startswith("{") or (recipient.startswith("ey") and ":" not in recipient)
        is_anothers = re.fullmatch(r"[0-9a-fA-F]{64,}|Expo(nent)?PushToken\[.*\]", recipient)
        return "://" not in recipient and not is_document and not is_anothers

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """See Provider."""
        until = time.monotonic() + self.timeout
        while not self._token.is_settled and time.monotonic() < until:
            yield []  # no message is taken before it can be sent
            time.sleep(_SLICE / 10)
        yield from super().send(messages)

    def close(self) -> None:
        """Close idle connections."""
        super().close()
        self._token.close()

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        title = shortened(message.subject or "", _TITLE_AT_MOST)
        body = shortened(message.text, _BOTH_AT_MOST - len(orjson.dumps(title)))
        address = "fid" if _INSTALLATION.fullmatch(message.recipient) else "token"
        document = {
            "message": {
                address: message.recipient,
                "notification": {"title": title, "body": body} if title else {"body": body},
                "data": {"notification_id": str(message.id)},
            }
        }
        lines = [
            f"authorization: Bearer {self._token.get(_SLICE / 2)}",
            "content-type: application/json",
            USER_AGENT,
            "expect:",
        ]
        return Request(message.id, self._url, lines, orjson.dumps(document))

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            name = answer.document.get("name")
            return accepted_as(answer, name.replace("\0", "")[:256] or None if isinstance(name, str) else None)
        code = _code(answer)
        # A third party's refusal (APNs) says nothing of our token, and one app's tokens alone can bring it about.
        if answer.status == 401 and code != "THIRD_PARTY_AUTH_ERROR":
            used = next(line for line in answer.exchange.request.headers if line.startswith("authorization:"))
            self._token.drop(used.rpartition(" ")[2])
        if code in _REJECTED:
            fault, words = _REJECTED[code]
            return Verdict(Outcome.REJECTED, f"http {answer.status}: fcm {code}, {words}", fault)
        detail = f"fcm {code}, {_WORDS[code]}" if code else None
        if code == "INVALID_ARGUMENT" and _is_of_token(answer):
            return Verdict(Outcome.REJECTED, f"http {answer.status}: fcm {code}, not a token", Fault.RECIPIENT)
        if code == "THIRD_PARTY_AUTH_ERROR":
            return Verdict(Outcome.UNSENT, f"http {answer.status}: {detail}", Fault.ROUTE)
        if answer.status == 429:
            wait = answer.exchange.retry_after
            error = f"http 429: {detail}" if detail else "http 429"
            wait = _QUOTA_PAUSE if wait is None and code == "QUOTA_EXCEEDED" else wait
            return Verdict(Outcome.UNSENT, error, Fault.THROTTLED, retry_after=wait)
        if answer.status == 404:
            return Verdict(Outcome.UNSENT, "http 404: fcm NOT_FOUND, no such project", Fault.PROVIDER)
        return by_status(answer, detail)


def _details(answer: Answer) -> list[dict[str, Any]]:
    error = answer.document.get("error")
    details = error.get("details") if isinstance(error, dict) else None
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _code(answer: Answer) -> str | None:
    """Return the known code of an answer: FCM's own before the general one."""
    codes = [detail.get("errorCode") for detail in _details(answer) if detail.get("@type") == _FCM_ERROR]
    codes.append(answer.text("error", "status"))
    return next((code for code in codes if isinstance(code, str) and (code in _REJECTED or code in _WORDS)), None)


def _is_of_token(answer: Answer) -> bool:
    """Return whether the token is invalid: FCM names the field, or says so in its message alone."""
    if (answer.text("error", "message") or "").startswith(_INVALID):
        return True
    violations = [violation for detail in _details(answer) for violation in detail.get("fieldViolations") or ()]
    return any(isinstance(each, dict) and each.get("field") in {"message.token", "message.fid"} for each in violations)


def provider(dsn: Dsn, context: Context) -> Fcm:
    """Create the provider of `fcm:///path/service-account.json`. Raises ValueError."""
    dsn.options()
    if dsn.username or dsn.password:
        raise ValueError("has a user or password, which fcm:///path/service-account.json needs not")
    if dsn.path in {"", "/"}:
        raise ValueError("names no key file: fcm:///path/service-account.json")
    try:
        account = orjson.loads(Path(dsn.path).read_bytes())
    except (OSError, ValueError):
        raise ValueError("names a key file that cannot be read as JSON: fcm:///path/service-account.json") from None
    project = account.get("project_id") if isinstance(account, dict) else None
    if not isinstance(project, str) or not re.fullmatch(r"[A-Za-z0-9.:_-]+", project):
        raise ValueError("names a key file without a project_id: it is not that of a service account")
    try:
        credentials = Credentials.from_service_account_info(account, scopes=[_SCOPE])  # type: ignore[no-untyped-call]  # google-auth is untyped
    except (GoogleAuthError, ValueError, TypeError):
        raise ValueError("names a key file that is not that of a service account") from None
    return Fcm(
        base_url=dsn.base_url(_HOST),
        project=project,
        token=AccessToken(credentials, context.timeout),
        timeout=context.timeout,
    )
