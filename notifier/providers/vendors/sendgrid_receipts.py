"""SendGrid's signed event webhook. `sendgrid://KEY@default?webhook_key=…`

| event                                                  | receipt         | the address is suppressed             |
|--------------------------------------------------------|-----------------|---------------------------------------|
| `delivered`                                            | delivered       | no                                    |
| `bounce`, status 5.1.x or `Invalid Address`            | bounced         | `hard_bounce`; 5.1.7 and 5.1.8 say no |
|                                                        |                 | more than that our sender is refused  |
| `bounce`, type `bounce`, another classification, or    | bounced here:   | no: it is the message, the mailbox or |
| 5.2.2                                                  | SendGrid itself | our reputation                        |
|                                                        | takes no more   |                                       |
|                                                        | for it          |                                       |
| `bounce`, type `bounce`, without either                | bounced         | no                                    |
| `bounce`, type `blocked`: Technical Failure, Frequency | bounced for now | no                                    |
| or Volume Too High, Mailbox Unavailable; 4.x.x, 5.2.2  |                 |                                       |
| `bounce`, type `blocked`: Content, Reputation          | bounced here    | no                                    |
| `bounce`, type `blocked`, `expired` or any other       | bounced         | no                                    |
| `dropped`, reason `Bounced Address` or `Invalid`       | bounced         | `hard_bounce`                         |
| `dropped`, reason `Spam Reporting Address`             | bounced         | `complaint`                           |
| `dropped`, `Recipient List over Package Quota`         | bounced here    | no                                    |
| `dropped`, any other reason                            | bounced         | no                                    |
| `spamreport`                                           | none            | `complaint`                           |
| `unsubscribe`, `group_unsubscribe`                     | none            | no: unsubscribing ends a category,    |
|                                                        |                 | not an address; our own links do that |
|                                                        |                 | (RFC 8058)                            |
| `processed`, `deferred`, `open`, `click`, others       | none            | no                                    |

Events without our `notification_id` belong to somebody else's mail, and are ignored.

The signature is ECDSA (P-256, SHA-256) over the timestamp's header and the body. SendGrid repeats a callback that
failed for a day, and does not document whether it signs it anew: so signatures of the last day and hour are valid. A
callback that is replayed within that time changes nothing, except that it may restore a suppression that was lifted
since.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from notifier.providers.dsn import Dsn
from notifier.providers.receipts import (
    AddressStatus,
    Callback,
    Kind,
    Malformed,
    NotSigned,
    Receipt,
    Report,
    SuppressionReason,
)
from notifier.vocabulary.states import Channel

_SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
_TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"
#: Seconds for which a signature counts.
_SIGNED_FOR: Final = 25 * 3600

#: Reasons of `dropped`, in small letters, that say something of the address.
_DROPPED: Final = {
    "bounced address": SuppressionReason.HARD_BOUNCE,
    "invalid": SuppressionReason.HARD_BOUNCE,
    "spam reporting address": SuppressionReason.COMPLAINT,
}
_OVER_QUOTA: Final = "recipient list over package quota"
#: Classifications of a bounce, in small letters.
_INVALID: Final = "invalid address"
_FOR_NOW: Final = frozenset({"technical failure", "frequency or volume too high", "mailbox unavailable"})
_HERE: Final = frozenset({"content", "reputation"})
#: Enhanced codes (RFC 3463): nobody is there, but not those of a bad sender; and a full mailbox.
_NOBODY_THERE: Final = re.compile(r"5\.1\.(?![78]$)[0-9]{1,3}")
_FULL: Final = "5.2.2"
#: SendGrid's words about a message that cannot be an address.
_KNOWN_WORDS: Final = frozenset(
    {
        *_DROPPED,
        "unsubscribed address",
        "spam content",
        "recipient list over package quota",
        "invalid smtpapi header",
        "invalid address",
        "mailbox unavailable",
        "content",
        "reputation",
        "frequency or volume too high",
        "unclassified",
        "technical failure",
    }
)
_ENHANCED_CODE: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")


class SendGridReceipts:
    """Reads what one account calls back with."""

    name = "sendgrid"
    reply = None

    def __init__(self, *keys: EllipticCurvePublicKey) -> None:
        """`keys`: any of them may have signed: an account may have several webhooks, and each has its own."""
        self._keys = keys

    def read(self, callback: Callback) -> Report:
        """See ReceiptSource."""
        self._check(callback)
        try:
            events = orjson.loads(callback.body)
        except orjson.JSONDecodeError:
            raise Malformed("is not JSON") from None
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            raise Malformed("is not a list of events")
        receipts, standings = [], []
        for event in events:
            notification_id = _notification_of(event)
            if notification_id is None:
                continue
            kind, reason = _meaning(event)
            if kind is not None:
                error = _error(event) if kind is not Kind.DELIVERED else None
                happened_at = _moment(event, callback.received_at)
                message_id = _text(event, "sg_message_id") or None
                receipts.append(Receipt(self.name, notification_id, kind, happened_at, error, message_id))
            if reason is not None:
                address = _text(event, "email")
                standings.append(AddressStatus(Channel.EMAIL, address, reason, notification_id=notification_id))
        return Report(tuple(receipts), tuple(standings))

    def _check(self, callback: Callback) -> None:
        """Raise NotSigned unless our account has signed the callback, not long ago."""
        timestamp = callback.headers.get(_TIMESTAMP, "")
        try:
            signature = b64decode(callback.headers.get(_SIGNATURE, ""), validate=True)
        except (NotBase64, ValueError):
            raise NotSigned from None
        if not any(_is_signed(key, signature, timestamp.encode() + callback.body) for key in self._keys):
            raise NotSigned
        is_time = re.fullmatch(r"[0-9]{1,12}", timestamp)
        if not is_time or callback.received_at.timestamp() - int(timestamp) > _SIGNED_FOR:
            raise NotSigned


def _is_signed(key: EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def _notification_of(event: Mapping[str, Any]) -> UUID | None:
    try:
        return UUID(_text(event, "notification_id"))
    except ValueError:
        return None


def _meaning(event: Mapping[str, Any]) -> tuple[Kind | None, SuppressionReason | None]:
    """Return the receipt's kind, and whether the address is suppressed."""
    match _text(event, "event"):
        case "delivered":
            return Kind.DELIVERED, None
        case "bounce":
            return _bounce(event)
        case "dropped":
            reason = _text(event, "reason").lower()
            return Kind.BOUNCED_HERE if reason == _OVER_QUOTA else Kind.BOUNCED, _DROPPED.get(reason)
        case "spamreport":
            return None, SuppressionReason.COMPLAINT
        case _:
            return None, None


def _bounce(event: Mapping[str, Any]) -> tuple[Kind, SuppressionReason | None]:
    """Return the meaning of a bounce, from its type, SendGrid's classification and the server's enhanced code."""
    kind, status = _text(event, "type"), _text(event, "status")
    classification = _text(event, "bounce_classification").lower()
    nobody_there = classification == _INVALID or _NOBODY_THERE.fullmatch(status) is not None
    if kind == "blocked":
        if classification in _FOR_NOW or status.startswith("4.") or status == _FULL:
            return Kind.BOUNCED_FOR_NOW, None
        return Kind.BOUNCED_HERE if classification in _HERE else Kind.BOUNCED, None
    if kind == "bounce" and nobody_there:
        return Kind.BOUNCED, SuppressionReason.HARD_BOUNCE
    if kind == "bounce" and (classification in _FOR_NOW | _HERE or status == _FULL):
        return Kind.BOUNCED_HERE, None
    return Kind.BOUNCED, None


def _error(event: Mapping[str, Any]) -> str:
    """Return why it bounced. SendGrid's own words may repeat the address, so only known words are returned."""
    what = "blocked" if _text(event, "type") == "blocked" else _text(event, "event")
    said = _text(event, "reason" if what == "dropped" else "bounce_classification").lower()
    details = [said] if said in _KNOWN_WORDS else []
    code = _text(event, "status")
    if _ENHANCED_CODE.fullmatch(code):
        details.insert(0, code)
    return ", ".join([f"sendgrid {what}", *details])


def _moment(event: Mapping[str, Any], received_at: datetime) -> datetime:
    """Return when it happened: SendGrid's time, unless that is impossible."""
    try:
        return min(datetime.fromtimestamp(event["timestamp"], UTC), received_at)
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return received_at


def verification_key(text: str) -> EllipticCurvePublicKey:
    """Return the key that SendGrid shows for its webhook: DER in base64. Raises ValueError.

    In a DSN's query a plus may have become a space.
    """
    try:
        key = load_der_public_key(b64decode(text.replace(" ", "+"), validate=True))
    except (NotBase64, ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError("has a webhook_key that is not SendGrid's verification key, MFkw…, percent-encoded")


def source(dsn: Dsn) -> SendGridReceipts | None:
    """See receipts. Raises ValueError."""
    if "webhook_key" not in dsn.query:
        return None
    keys = dsn.several("webhook_key") or [""]
    return SendGridReceipts(*(verification_key(key) for key in keys))
