"""Amazon SNS over HTTPS: verify its messages, and confirm subscriptions.

A message is signed with a certificate that it names itself (SigningCertURL). That must be Amazon's: https, a host
`sns.<region>.amazonaws.com` (`.cn` in China) and a path that ends in `.pem`. Subscriptions are confirmed at such a host
too. SignatureVersion 1 is RSA-SHA1, 2 is RSA-SHA256. The signature proves *some* topic, which anybody can have: only
the configured topics count. Raw message delivery has no signature at all, and is refused.

A message may be a day and an hour old. A message that is replayed within that time changes nothing, except that
it may restore a suppression that was lifted since.
"""

import re
import threading
import time
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from notifier.providers.dsn import Dsn
from notifier.providers.http.address_guard import Network
from notifier.providers.http.fetching import Unreachable, fetch
from notifier.providers.receipts import Malformed, NotNow, NotSigned

ARN: Final = re.compile(r"arn:aws(-[a-z-]+)?:sns:[a-z0-9-]{1,32}:[0-9]{1,20}:[A-Za-z0-9_-]{1,256}(\.fifo)?")

NOTIFICATION: Final = "Notification"
#: The signed fields of each type, in this order; a field that is absent (a Subject) is left out.
_SIGNED: Final[Mapping[str, Sequence[str]]] = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    **dict.fromkeys(
        ("SubscriptionConfirmation", "UnsubscribeConfirmation"),
        ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_HASHES: Final = {"1": SHA1, "2": SHA256}
_HOST: Final = re.compile(r"sns\.[a-z0-9-]{1,32}\.amazonaws\.com(\.cn)?")
_CERTIFICATE: Final = re.compile(r"/[A-Za-z0-9._-]{1,128}\.pem")
#: Seconds for which a signature counts, and clocks may differ.
_SIGNED_FOR: Final = 25 * 3600
#: Seconds for which a certificate is kept, and for which one that could not be had is not asked for again.
_KEPT_FOR: Final = 24 * 3600.0
_FAILED_FOR: Final = 10.0
#: The most failed certificates that are remembered.
_FAILURES: Final = 64
#: The longest wait, in seconds, for a certificate that another thread is fetching; after it, the vendor must retry.
_PATIENCE: Final = 5.0


class Topics:
    """Reads messages of configured topics. Used by several threads at once."""

    def __init__(self, arns: Collection[str], dsn: Dsn, allowed_networks: Sequence[Network] = ()) -> None:
        """`dsn`: the host in it stands in for Amazon's. `allowed_networks`: what that may be in beside public ones."""
        self._arns = frozenset(arns)
        self._dsn = dsn
        self._allowed_networks = allowed_networks
        self._fetching = threading.Lock()
        #: The keys of certificates, by URL, and until when they hold: Amazon has one or two. And what could not be had.
        self._keys: dict[str, tuple[RSAPublicKey, float]] = {}
        self._failed: dict[str, float] = {}

    def read(self, body: bytes, received_at: datetime) -> str | None:
        """Return the text of a notification; None for another kind of message, which is handled here.

        Raises NotSigned, Malformed and NotNow.
        """
        message = _message(body)
        self._check(message, received_at)
        if message["Type"] == "SubscriptionConfirmation":
            self._confirm(message)
        return message["Message"] if message["Type"] == NOTIFICATION else None

    def _check(self, message: Mapping[str, str], received_at: datetime) -> None:
        """Raise NotSigned unless one of our topics has sent it, not long ago."""
        # First of all, since it costs nothing: nobody else makes us ask for certificates.
        if message.get("TopicArn") not in self._arns or message.get("SignatureVersion") not in _HASHES:
            raise NotSigned
        names = _SIGNED[message["Type"]]
        if any(name not in message for name in names if name != "Subject"):
            raise NotSigned
        text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
        try:
            signature = b64decode(message.get("Signature", ""), validate=True)
            age = received_at.timestamp() - _time(message["Timestamp"]).timestamp()
        except (NotBase64, ValueError):
            raise NotSigned from None
        if age > _SIGNED_FOR:
            raise NotSigned
        key = self._key(message.get("SigningCertURL", ""))
        try:
            key.verify(signature, text.encode(errors="replace"), PKCS1v15(), _HASHES[message["SignatureVersion"]]())
        except InvalidSignature:
            raise NotSigned from None

    def _key(self, url: str) -> RSAPublicKey:
        """Return the key of the certificate at a URL. Raises NotSigned and NotNow."""
        parts = _amazons(url)
        if parts is None or not _CERTIFICATE.fullmatch(parts[1]):
            raise NotSigned
        key = self._kept(url)
        if key is None and self._fetching.acquire(timeout=_PATIENCE):
            try:
                key = self._kept(url) or self._fetch_key(url, *parts)
            finally:
                self._fetching.release()
        if key is None:
            raise NotNow("the certificate that it was signed with cannot be had")
        return key

    def _kept(self, url: str) -> RSAPublicKey | None:
        key, until = self._keys.get(url, (None, 0.0))
        return key if until > time.monotonic() else None

    def _fetch_key(self, url: str, host: str, path: str) -> RSAPublicKey | None:
        """Fetch a certificate and keep its key; None where there is none to be had."""
        if self._failed.get(url, 0.0) > time.monotonic():
            return None
        now = datetime.now(UTC)
        try:
            certificate = x509.load_pem_x509_certificate(self._fetch(host, path))
            key = certificate.public_key()
            is_valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
        except (Unreachable, ValueError, UnsupportedAlgorithm):
            is_valid = False
        if is_valid and isinstance(key, RSAPublicKey):
            self._keys[url] = key, time.monotonic() + _KEPT_FOR
            return key
        if len(self._failed) >= _FAILURES:
            self._failed.clear()
        self._failed[url] = time.monotonic() + _FAILED_FOR
        return None

    def _fetch(self, host: str, path: str) -> bytes:
        return fetch(self._dsn.base_url(f"https://{host}") + path, self._allowed_networks)

    def _confirm(self, message: Mapping[str, str]) -> None:
        """Visit the address that confirms a subscription."""
        parts = _amazons(message["SubscribeURL"], query=True)
        if parts is None:
            raise Malformed("has a SubscribeURL that is not Amazon's")
        host, path = parts
        asked = parse_qs(urlsplit(path).query)
        if asked.get("Action") != ["ConfirmSubscription"] or asked.get("TopicArn") != [message["TopicArn"]]:
            raise Malformed("has a SubscribeURL that confirms something else")
        try:
            self._fetch(host, path)
        except Unreachable:
            raise NotNow("its SubscribeURL cannot be visited") from None


def _message(body: bytes) -> dict[str, str]:
    """Return the text members of a message. Raises Malformed, and NotSigned if nothing in it could be signed."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Malformed("is not JSON") from None
    if not isinstance(document, dict):
        raise Malformed("is not a message of SNS")
    message = {name: value for name, value in document.items() if isinstance(value, str)}
    if message.get("Type") not in _SIGNED:
        raise NotSigned
    return message


def _amazons(url: str, *, query: bool = False) -> tuple[str, str] | None:
    """Return host and path of a URL of Amazon SNS, with its query where it may have one; else None."""
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme == "https" and parts.netloc == parts.hostname and not parts.fragment
    except ValueError:
        return None
    if not is_plain or not _HOST.fullmatch(parts.netloc) or (parts.query and not query) or not url.isascii():
        return None
    if re.search(r"[\x00-\x20\x7f\\]", url):
        return None
    return parts.netloc, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _time(text: str) -> datetime:
    """Parse a moment as Amazon writes it. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
