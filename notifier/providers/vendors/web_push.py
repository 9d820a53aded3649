"""Push to browsers: Web Push (RFC 8030), encrypted (RFC 8188, 8291), with identification of our server (RFC 8292).

| answer                     | outcome                                              |
|----------------------------|------------------------------------------------------|
| 2xx                        | accepted; its Location is the message id             |
| 404, 410                   | rejected, the recipient's fault: it unsubscribed     |
| 400, 413                   | rejected                                             |
| 401, 403                   | unsent: it refuses our key                           |
| 406 (Windows' service), 429 | unsent, throttled: its Retry-After counts           |

Other answers: see `providers.http.api`. A recipient is the browser's `PushSubscription` as JSON without spaces, or
base64url of it. Its endpoint is an untrusted URL: connections go to public and to allowed addresses alone, over https.
Failures there are nobody's fault: otherwise a few hanging endpoints would open the breaker for all.

The encrypted content is JSON, `title`, `body` and `id`, of at most 3000 bytes: a title is cut at 800 bytes, a text at
the remaining size; cut texts end in an ellipsis. The Topic derives from the id, so that a repeat replaces a message
that still waits.
"""

import base64
import re
import time
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import http_ece  # type: ignore[import-untyped]  # ships no types
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from py_vapid import Vapid02, VapidException  # type: ignore[import-untyped]  # ships no types

from notifier.providers.dsn import Context, Dsn
from notifier.providers.http.address_guard import Network
from notifier.providers.http.api import Answer, CannotSend, HttpApi, Verdict, by_status, shortened
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Exchange, Request
from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.uris import ascii_uri

#: Seconds that a push service keeps a message for a browser that is away.
_TTL: Final = 86400
#: Seconds that our word for who we are holds; at most a day (RFC 8292, section 2).
_VAPID_LIFE: Final = 12 * 3600
#: The longest wait that a push service may ask for, in seconds.
_LONGEST_WAIT: Final = 24 * 3600.0
#: The contact for push services. Apple accepts none with spaces or angle brackets (BadJwtToken).
_SUBJECT: Final = re.compile(r"mailto:[^\s<>@]+@[^\s<>@]+|https://[^\s<>]+")
_PLAIN_AT_MOST: Final = 3000
_TITLE_AT_MOST: Final = 800

_EXAMPLE: Final = "webpush:///path/vapid-private-key.pem?subject=mailto:ops@example.com"
_WORDS: Final = {400: "not a request that it understands", 413: "the message is too large", 403: "refuses our key"}


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where a browser's messages go, and what encrypts them."""

    endpoint: str = field(repr=False)
    #: Its public key, an uncompressed point of P-256, and its secret of 16 bytes.
    p256dh: bytes = field(repr=False)
    auth: bytes = field(repr=False)

    @property
    def origin(self) -> str:
        """The endpoint's scheme, host and port, as the audience of RFC 8292."""
        parts = urlsplit(self.endpoint)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        usual = {"https": 443, "http": 80}[parts.scheme]
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in {None, usual} else "")


def subscription(recipient: str) -> Subscription:
    """Parse a browser's subscription from a recipient. Raises ValueError, whose message shows nothing of it."""
    try:
        document: Any = orjson.loads(recipient if recipient.startswith("{") else _decoded(recipient))
        endpoint, keys = ascii_uri(document["endpoint"]), document["keys"]
        found = Subscription(endpoint, _decoded(keys["p256dh"]), _decoded(keys["auth"]))
        parts = urlsplit(endpoint)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and not parts.username
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError("not a browser's subscription") from None
    if not is_url or len(found.p256dh) != 65 or len(found.auth) != 16:
        raise ValueError("not a browser's subscription")
    return found


def _decoded(text: str) -> bytes:
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)


class WebPush(HttpApi):
    """Sends to browsers' push services as the one application server that a key stands for."""

    name = "webpush"

    def __init__(
        self, *, key: ec.EllipticCurvePrivateKey, subject: str, allowed_networks: tuple[Network, ...], timeout: float
    ) -> None:
        """`subject`: whom a push service may turn to, a mailto: or https: URL."""
        super().__init__(timeout=timeout, allowed_networks=allowed_networks)
        self._vapid = Vapid02(key)
        self._subject = subject
        self._allowed_networks = allowed_networks

    def takes(self, recipient: str) -> bool:
        """Return whether the address is a browser's subscription."""
        try:
            subscription(recipient)
        except ValueError:
            return False
        return True

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        try:
            browser = subscription(message.recipient)
        except ValueError as error:
            raise CannotSend(f"address: {error}") from None
        if browser.origin.startswith("http:") and not self._is_allowed(browser.endpoint):
            raise CannotSend("address: the endpoint's URL does not begin with https://")
        try:
            body = http_ece.encrypt(
                _plain(message),
                private_key=ec.generate_private_key(ec.SECP256R1()),  # one for each message (RFC 8291, section 3.1)
                dh=browser.p256dh,
                auth_secret=browser.auth,
                version="aes128gcm",
            )
        except (ValueError, http_ece.ECEException):
            raise CannotSend("address: the browser's key is not a point of P-256") from None
        lines = [
            f"authorization: {self._authorization(browser.origin)}",
            "content-type: application/octet-stream",
            "content-encoding: aes128gcm",
            f"ttl: {_TTL}",
            "urgency: normal",
            f"topic: {base64.urlsafe_b64encode(message.id.bytes).decode().rstrip('=')}",
            USER_AGENT,
            "expect:",
        ]
        return Request(message.id, browser.endpoint, lines, body)

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return Verdict(Outcome.ACCEPTED, message_id=answer.header("location"))
        if answer.status in {404, 410}:
            error = f"http {answer.status}: web push, the browser is subscribed no more"
            return Verdict(Outcome.REJECTED, error, Fault.RECIPIENT)
        if answer.status == 406:
            error = "http 406: web push, too many messages to this browser"
            return Verdict(Outcome.UNSENT, error, Fault.THROTTLED, retry_after=_wait(answer))
        return by_status(answer, _WORDS.get(answer.status))

    def _verdict(self, exchange: Exchange) -> Verdict:
        verdict = super()._verdict(exchange)
        return replace(verdict, fault=None) if verdict.fault is Fault.PROVIDER else verdict

    def _is_allowed(self, endpoint: str) -> bool:
        """Return whether its host is a literal address that the operator has allowed."""
        try:
            address = ip_address(urlsplit(endpoint).hostname or "")
        except ValueError:
            return False
        return any(address in network for network in self._allowed_networks)

    def _authorization(self, origin: str) -> str:
        claims = {"aud": origin, "sub": self._subject, "exp": int(time.time()) + _VAPID_LIFE}
        try:
            return str(self._vapid.sign(claims)["Authorization"])
        except VapidException:
            raise CannotSend("address: the endpoint's host cannot be signed for") from None


def _wait(answer: Answer) -> float | None:
    """Return the seconds of a Retry-After, which counts with a 406 too here."""
    value = answer.header("retry-after") or ""
    return min(float(value), _LONGEST_WAIT) if re.fullmatch(r"[0-9]{1,9}", value) else None


def _plain(message: Message) -> bytes:
    title = shortened(message.subject or "", _TITLE_AT_MOST)
    room = _PLAIN_AT_MOST - len(orjson.dumps({"title": title, "body": "", "id": message.id}))
    return orjson.dumps({"title": title, "body": shortened(message.text, room), "id": message.id})


def provider(dsn: Dsn, context: Context) -> WebPush:
    """Create the provider of `webpush:///path/vapid-private-key.pem?subject=mailto:…`. Raises ValueError."""
    options = dsn.options("subject")
    if dsn.username or dsn.password or dsn.host or dsn.port or "tls" in options:
        raise ValueError(f"has more than a key file and a subject: {_EXAMPLE}")
    if dsn.path in {"", "/"}:
        raise ValueError(f"names no key file: {_EXAMPLE}")
    try:
        key = load_pem_private_key(Path(dsn.path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise ValueError(f"names a key file that is not a private key in PEM: {_EXAMPLE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("names a key that is not one of P-256 (prime256v1)")  # noqa: TRY004  # a setting is wrong, not a type
    if not _SUBJECT.fullmatch(options.get("subject", "")):
        raise ValueError(f"has no subject that is a mailto: or https: URL, without spaces, < and >: {_EXAMPLE}")
    made = WebPush(
        key=key,
        subject=options.get("subject", ""),
        allowed_networks=context.allowed_networks,
        timeout=context.timeout,
    )
    try:
        made._authorization("https://push.example.com")
    except CannotSend:
        raise ValueError(f"has no subject that is a mailto: or https: URL: {_EXAMPLE}") from None
    return made
