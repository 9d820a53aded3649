"""Push to Apple devices: APNs, over HTTP/2. `apns:///path/AuthKey.p8?key=KEY_ID&team=TEAM_ID&topic=com.example.app`

| answer                                                                      | outcome                           |
|-----------------------------------------------------------------------------|-----------------------------------|
| 200                                                                         | accepted as the `apns-id`         |
| 410 Unregistered, ExpiredToken; 400 BadDeviceToken                          | rejected, the recipient's fault   |
| 400 DeviceTokenNotForTopic                                                  | rejected: another app's token     |
| 400 of anything else that a message says, 413 PayloadTooLarge               | rejected                          |
| 400 BadTopic, MissingTopic, TopicDisallowed; 404 BadPath, 405               | unsent, the provider's fault      |
| 403 ExpiredProviderToken, InvalidProviderToken                              | the same; a new provider token    |
| 403 of anything else (key, team, environment)                               | unsent, the provider's fault      |
| 429 TooManyRequests (to one device)                                         | unsent, throttled                 |
| 429 TooManyProviderTokenUpdates                                             | unsent, the provider's fault      |
| 5xx (InternalServerError, ServiceUnavailable, Shutdown)                     | unsent, the provider's fault      |

Other answers: see `providers.http.api`. A notification's id is its `apns-id` and its `apns-collapse-id`: a repeated
message replaces the first. Reasons: Apple's "Handling notification responses from APNs".
"""

import re
import threading
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from notifier.providers.dsn import Context, Dsn
from notifier.providers.http.api import Answer, HttpApi, Verdict, by_status, shortened
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome

_URLS: Final = {"production": "https://api.push.apple.com", "sandbox": "https://api.sandbox.push.apple.com"}
_USAGE: Final = "apns:///path/AuthKey.p8?key=KEY_ID&team=TEAM_ID&topic=com.example.app"
_DEVICE_TOKEN: Final = re.compile(r"[0-9a-fA-F]{64,200}")
_ID: Final = re.compile(r"[A-Z0-9]{10}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9.-]{1,255}")
#: The largest payload, in bytes of JSON; the rest of the 4,096 is for the id.
_TITLE_AT_MOST: Final = 1000
_BOTH_AT_MOST: Final = 3800
#: Seconds for which a provider token is used: Apple takes none older than an hour, and no new one within 20 minutes.
_TOKEN_LASTS: Final = 45 * 60.0

_RECIPIENT: Final = (Outcome.REJECTED, Fault.RECIPIENT)
_REJECTED: Final = (Outcome.REJECTED, None)
_PROVIDER: Final = (Outcome.UNSENT, Fault.PROVIDER)
_THROTTLED: Final = (Outcome.UNSENT, Fault.THROTTLED)
#: The outcome, and the fault, of each reason.
_REASONS: Final[dict[str, tuple[Outcome, Fault | None]]] = {
    **dict.fromkeys(("BadDeviceToken", "MissingDeviceToken", "Unregistered", "ExpiredToken"), _RECIPIENT),
    **dict.fromkeys(
        (
            "DeviceTokenNotForTopic",
            "BadCollapseId",
            "BadExpirationDate",
            "BadMessageId",
            "BadPriority",
            "DuplicateHeaders",
            "InvalidPushType",
            "PayloadEmpty",
            "PayloadTooLarge",
        ),
        _REJECTED,
    ),
    **dict.fromkeys(
        (
            "BadTopic",
            "MissingTopic",
            "TopicDisallowed",
            "BadCertificate",
            "BadCertificateEnvironment",
            "BadEnvironmentKeyIdInToken",
            "ExpiredProviderToken",
            "Forbidden",
            "InvalidProviderToken",
            "MissingProviderToken",
            "UnrelatedKeyIdInToken",
            "BadPath",
            "MethodNotAllowed",
            "TooManyProviderTokenUpdates",
            "IdleTimeout",
            "InternalServerError",
            "ServiceUnavailable",
            "Shutdown",
        ),
        _PROVIDER,
    ),
    "TooManyRequests": _THROTTLED,
}
_RENEW: Final = frozenset({"ExpiredProviderToken", "InvalidProviderToken"})


class ProviderToken:
    """The token that says who sends: a JWT (RFC 7519) signed with ES256, made anew in time. Used by several threads."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, key_id: str, team: str) -> None:
        self._key = key
        self._head = _encoded(orjson.dumps({"alg": "ES256", "kid": key_id}))
        self._team = team
        self._lock = threading.Lock()
        self._token = ""
        self._made_at = -_TOKEN_LASTS

    def get(self) -> str:
        """Return the token."""
        with self._lock:
            if time.monotonic() - self._made_at >= _TOKEN_LASTS:
                self._token = self._signed(int(time.time()))
                self._made_at = time.monotonic()
            return self._token

    def drop(self, token: str) -> None:
        """Forget a token that was refused, unless there is a newer one."""
        with self._lock:
            if token == self._token:
                self._made_at = -_TOKEN_LASTS

    def _signed(self, now: int) -> str:
        text = f"{self._head}.{_encoded(orjson.dumps({'iss': self._team, 'iat': now}))}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(SHA256())))
        return f"{text}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Apns(HttpApi):
    """Sends notifications to one app's device tokens."""

    name = "apns"

    def __init__(self, *, url: str, token: ProviderToken, topic: str, timeout: float) -> None:
        """`topic`: the app's bundle id."""
        super().__init__(timeout=timeout, http2=True)
        self._url = f"{url}/3/device/"
        self._token = token
        self._topic = topic

    def takes(self, recipient: str) -> bool:
        """Return whether it is a device token: 32 bytes or more in hexadecimal."""
        return _DEVICE_TOKEN.fullmatch(recipient) is not None

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        title = shortened(message.subject or "", _TITLE_AT_MOST)
        body = shortened(message.text, _BOTH_AT_MOST - len(orjson.dumps(title)))
        alert = {"title": title, "body": body} if title else {"body": body}
        lines = [
            f"authorization: bearer {self._token.get()}",
            f"apns-topic: {self._topic}",
            "apns-push-type: alert",
            f"apns-id: {message.id}",
            f"apns-collapse-id: {message.id}",
            "content-type: application/json",
            USER_AGENT,
            "expect:",
        ]
        payload = {"aps": {"alert": alert, "sound": "default"}, "notification_id": str(message.id)}
        return Request(message.id, self._url + message.recipient, lines, orjson.dumps(payload))

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return Verdict(Outcome.ACCEPTED, message_id=answer.header("apns-id"))
        reason = answer.text("reason") or ""
        if reason in _RENEW:
            used = next(line for line in answer.exchange.request.headers if line.startswith("authorization:"))
            self._token.drop(used.rpartition(" ")[2])
        if reason not in _REASONS:
            return by_status(answer)
        outcome, fault = _REASONS[reason]
        wait = answer.exchange.retry_after if outcome is Outcome.UNSENT else None
        return Verdict(outcome, f"http {answer.status}: apns {reason}", fault, retry_after=wait)


def provider(dsn: Dsn, context: Context) -> Apns:
    """Make the provider of `apns://`. Raises ValueError."""
    options = dsn.options("key", "team", "topic", "environment")
    if dsn.username or dsn.password:
        raise ValueError(f"has a user or password, which {_USAGE} needs not")
    if dsn.path in {"", "/"}:
        raise ValueError(f"names no key file: {_USAGE}")
    if not _ID.fullmatch(options.get("key", "")) or not _ID.fullmatch(options.get("team", "")):
        raise ValueError(f"has no key and team of 10 capitals and digits each: {_USAGE}")
    if not _TOPIC.fullmatch(options.get("topic", "")):
        raise ValueError(f"has no topic, the app's bundle id: {_USAGE}")
    environment = options.get("environment", "production")
    if environment not in _URLS:
        raise ValueError("has an environment that is neither production nor sandbox")
    try:
        key = load_pem_private_key(Path(dsn.path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"names a key file that is not a private key in PEM: {_USAGE}") from None
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"):
        raise ValueError("names a key file with another key than one of P-256, as Apple's are")
    token = ProviderToken(key, options["key"], options["team"])
    url = dsn.base_url(_URLS[environment])
    return Apns(url=url, token=token, topic=options["topic"], timeout=context.timeout)
