"""Web Push: a browser that subscribed at a push service on this machine. `{port}` in its address is the server's."""

import base64
import functools
import tempfile
from pathlib import Path
from typing import Any

import http_ece  # type: ignore[import-untyped]  # ships no types
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02  # type: ignore[import-untyped]  # ships no types

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

_FOLDER = tempfile.TemporaryDirectory(prefix="notifier-web-push-")
#: The browser's.
_BROWSER = ec.generate_private_key(ec.SECP256R1())
_AUTH = bytes(range(16))


@functools.cache
def key_file() -> Path:
    """The application server's key."""
    file = Path(_FOLDER.name) / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(*form))
    return file


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def subscribed(endpoint: str) -> str:
    """The browser's subscription."""
    point = _BROWSER.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    keys = {"p256dh": encoded(point), "auth": encoded(_AUTH)}
    return orjson.dumps({"endpoint": endpoint, "keys": keys}).decode()


def decrypted(request: Received) -> Any:
    """Return what the browser gets of a request."""
    plain = http_ece.decrypt(request.body, private_key=_BROWSER, auth_secret=_AUTH, version="aes128gcm")
    assert len(plain) <= 3000
    return orjson.loads(plain)


def claims(request: Received) -> Any:
    """Return what the sender claims of itself; its signature is checked."""
    authorization = request.headers["authorization"]
    assert Vapid02.verify(authorization)
    payload = authorization.partition("t=")[2].split(".")[1]
    return orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def check(request: Received, message: Message) -> None:
    assert request.line == "POST /push/abc HTTP/1.1"
    assert decrypted(request) == {"title": message.subject, "body": message.text, "id": str(message.id)}
    claimed = claims(request)
    assert claimed["aud"] == f"http://{request.headers['host']}"
    assert claimed["sub"] == "mailto:ops@example.com"
    assert request.headers["content-encoding"] == "aes128gcm"
    assert (request.headers["ttl"], request.headers["urgency"]) == ("86400", "normal")
    assert request.headers["topic"] == encoded(message.id.bytes)


_R, _U = Outcome.REJECTED, Outcome.UNSENT
_LOCATION = "https://push.example.com/m/0:1500415314455276"

VENDOR = Vendor(
    name="webpush",
    channel=Channel.PUSH,
    dsn=lambda port: f"webpush://{key_file()}?subject=mailto:ops@example.com",
    recipient=subscribed("http://127.0.0.1:{port}/push/abc"),
    success=response(201, b"", f"location: {_LOCATION}"),
    message_id=_LOCATION,
    errors=[
        Case("never subscribed", response(404, b"not found"), _R, Fault.RECIPIENT),
        Case("unsubscribed", response(410, b"push subscription has unsubscribed or expired."), _R, Fault.RECIPIENT),
        Case("too large", response(413), _R),
        Case("bad request", response(400, b"invalid"), _R),
        Case("throttled", response(429, b"", "retry-after: 120"), _U, Fault.THROTTLED, 120.0),
        Case("slow down", response(406, b"", "retry-after: 30"), _U, Fault.THROTTLED, 30.0),
        Case("no key", response(401), _U),
        Case("another key", response(403, b"the VAPID credentials do not correspond"), _U),
        Case("down", response(503, b"", "retry-after: 9"), _U, None, 9.0),
    ],
    check=check,
    needs_body=False,
    own_fault=None,
)
