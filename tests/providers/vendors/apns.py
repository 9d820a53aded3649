"""The wire of Apple's push service, over HTTP/1.1 where there is no TLS; `tests.providers.http2` has the real one."""

import base64
import functools
import tempfile
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

_FOLDER = tempfile.TemporaryDirectory(prefix="notifier-apns-")
_KEY = ec.generate_private_key(ec.SECP256R1())
DEVICE = "0a1B" * 16
APNS_ID = "EABCDE12-0000-7000-8000-000000000001"


@functools.cache
def key_file() -> Path:
    file = Path(_FOLDER.name) / "AuthKey.p8"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(_KEY.private_bytes(*form))
    return file


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def token_of(request: Received) -> str:
    """The provider token of a request, its signature verified."""
    scheme, _, token = request.headers["authorization"].partition(" ")
    assert scheme == "bearer"
    head, claims, signature = token.split(".")
    raw = _decoded(signature)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    _KEY.public_key().verify(der, f"{head}.{claims}".encode(), ec.ECDSA(SHA256()))
    assert orjson.loads(_decoded(head)) == {"alg": "ES256", "kid": "ABC123DEFG"}
    assert orjson.loads(_decoded(claims))["iss"] == "DEF123GHIJ"
    return token


def refused(status: int, reason: str, *lines: str) -> bytes:
    return response(status, orjson.dumps({"reason": reason}), *lines)


def check(request: Received, message: Message) -> None:
    assert request.line == f"POST /3/device/{message.recipient} HTTP/1.1"
    check_content(request, message)


def check_content(request: Received, message: Message) -> None:
    """Check the headers and the body of a request."""
    token_of(request)
    headers = {name: value for name, value in request.headers.items() if name.startswith("apns-")}
    assert headers == {
        "apns-topic": "com.example.app",
        "apns-push-type": "alert",
        "apns-id": str(message.id),
        "apns-collapse-id": str(message.id),
    }
    payload: Any = orjson.loads(request.body)
    assert payload["aps"]["alert"] == {"title": message.subject, "body": message.text}
    assert payload["notification_id"] == str(message.id)


_R, _U = Outcome.REJECTED, Outcome.UNSENT
_REJECTED = {
    400: "DeviceTokenNotForTopic BadCollapseId BadExpirationDate BadMessageId BadPriority DuplicateHeaders"
    " InvalidPushType PayloadEmpty",
    413: "PayloadTooLarge",
}
_RECIPIENTS = {400: "BadDeviceToken MissingDeviceToken", 410: "Unregistered ExpiredToken"}
_OURS = {
    400: "BadTopic MissingTopic TopicDisallowed IdleTimeout",
    403: "BadCertificate BadCertificateEnvironment BadEnvironmentKeyIdInToken ExpiredProviderToken Forbidden"
    " InvalidProviderToken MissingProviderToken UnrelatedKeyIdInToken",
    404: "BadPath",
    405: "MethodNotAllowed",
    429: "TooManyProviderTokenUpdates",
    500: "InternalServerError",
    503: "ServiceUnavailable Shutdown",
}


def _cases(table: dict[int, str], outcome: Outcome, fault: Fault | None) -> list[Case]:
    return [
        Case(reason, refused(status, reason), outcome, fault)
        for status, reasons in table.items()
        for reason in reasons.split()
    ]


def dsn(host: str, *options: str) -> str:
    query = "&".join(("key=ABC123DEFG", "team=DEF123GHIJ", "topic=com.example.app", *options))
    return f"apns://{host}{key_file()}?{query}"


VENDOR = Vendor(
    name="apns",
    channel=Channel.PUSH,
    dsn=lambda port: dsn(f"127.0.0.1:{port}", "tls=none"),
    recipient=DEVICE,
    success=response(200, b"", f"apns-id: {APNS_ID}"),
    message_id=APNS_ID,
    errors=[
        *_cases(_REJECTED, _R, None),
        *_cases(_RECIPIENTS, _R, Fault.RECIPIENT),
        *_cases(_OURS, _U, Fault.PROVIDER),
        Case("to one device", refused(429, "TooManyRequests", "retry-after: 4"), _U, Fault.THROTTLED, 4.0),
        Case("new reason", refused(400, "SomethingNew"), _R),
    ],
    check=check,
    needs_body=False,
)
