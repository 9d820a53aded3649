"""Callbacks as vendors sign them, by their documentation: nothing of ours is used for it."""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from notifier.providers import Message
from notifier.providers.receipts import Callback

TOKEN = "hunter2token"
PUBLIC_URL = "https://notifier.example.com"
PATH = "/api/v1/receipts"
URL = f"{PUBLIC_URL}{PATH}/twilio"
FORM = "application/x-www-form-urlencoded"


def public_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


_KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
SENDGRID_KEY = b64encode(public_der(_KEY)).decode()


def message(notification_id: UUID) -> Message:
    return Message(id=notification_id, recipient="+15550123", subject=None, text="Hello")


def twilio_signature(url: str, form: Mapping[str, str], token: str = TOKEN) -> str:
    text = url
    for name in sorted(form):
        text += name + form[name]
    return b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def twilio_callback(form: Mapping[str, str], query: str = "", *, at: datetime, token: str = TOKEN) -> Callback:
    url = f"{URL}?{query}" if query else URL
    headers = {"content-type": FORM, "x-twilio-signature": twilio_signature(url, form, token)}
    return Callback(url, headers, urlencode(form).encode(), at)


def sendgrid_callback(body: bytes, *, at: datetime | None = None) -> Callback:
    at = at or datetime.now(UTC)
    timestamp = str(int(at.timestamp()))
    signature = _KEY.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    headers = {
        "content-type": "application/json",
        "x-twilio-email-event-webhook-signature": b64encode(signature).decode(),
        "x-twilio-email-event-webhook-timestamp": timestamp,
    }
    return Callback(f"{PUBLIC_URL}{PATH}/sendgrid", headers, body, at)
