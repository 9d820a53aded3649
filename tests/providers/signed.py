"""Callbacks as vendors sign them, by their documentation: nothing of ours is used for it."""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from notifier.providers.protocol import Message
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


TOPIC = "arn:aws:sns:eu-central-1:123456789012:mail"
SNS = "https://sns.eu-central-1.amazonaws.com"
CERTIFICATE_PATH = "/SimpleNotificationService-0a1b.pem"


@cache
def amazon_key() -> rsa.RSAPrivateKey:
    """Return a private key that stands in for Amazon's, with which SNS signs."""
    return rsa.generate_private_key(65537, 2048)


def certificate(key: Any = None, *, valid_for: timedelta = timedelta(days=1)) -> bytes:
    """A certificate as SNS shows it."""
    key = key or amazon_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=9)).not_valid_after(now + valid_for)
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)


def sns_message(message: str, *, kind: str = "Notification", version: str = "2", **more: str) -> dict[str, str]:
    """A message of SNS, signed as its documentation says."""
    document = {
        "Type": kind,
        "MessageId": "22b80b92",
        "TopicArn": TOPIC,
        "Message": message,
        "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "SignatureVersion": version,
        "SigningCertURL": SNS + CERTIFICATE_PATH,
        **more,
    }
    if kind == "Notification":
        names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    else:
        document.setdefault("Token", "token")
        document.setdefault("SubscribeURL", f"{SNS}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=token")
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{document[name]}\n" for name in names if name in document)
    signature = amazon_key().sign(text.encode(), PKCS1v15(), SHA1() if version == "1" else SHA256())
    return {"Signature": b64encode(signature).decode(), **document}


def sns_callback(document: Mapping[str, Any] | bytes, *, at: datetime | None = None) -> Callback:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    headers = {"content-type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification"}
    return Callback(f"{PUBLIC_URL}{PATH}/ses", headers, body, at or datetime.now(UTC))
