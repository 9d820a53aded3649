"""Delivery receipts of Vonage's SMS API, and answers such as STOP. `vonage://KEY:SECRET@default?from=…&signature_secret=…`

Vonage sends them by GET or POST, as a query, a form or JSON, depending on the account's settings. `client-ref` names
the notification.

| status                                | receipt                                              |
|---------------------------------------|------------------------------------------------------|
| `delivered`                           | delivered                                            |
| `expired`, `failed`, `rejected`       | bounced, as `_CODES` says of their `err-code`        |
| `accepted`, `buffered`, `unknown`, others | none                                             |

An unknown code is permanent, and suppresses nobody.

If signing is on for the account, `sig` is the MD5 of `&name=value` of all other parameters, sorted, and the signature
secret; or an HMAC of those with it, by MD5, SHA-1, SHA-256 or SHA-512, as the account has chosen. Any of these is
accepted, for a day and an hour. Without a signature secret Vonage signs nothing: then (`receipts=on`) each message's
callback URL carries a token that nobody else can create, and callbacks without one are refused.

An incoming message is trusted only if it is signed. STOP or a synonym suppresses its sender's number, and START lifts
that (the words are Twilio's: see `twilio_receipts`).
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import orjson

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
from notifier.providers.vendors.twilio_receipts import START, STOP
from notifier.vocabulary.states import Channel

#: The parameters of a message's own callback address.
_NOTIFICATION: Final = "notification"
_TOKEN: Final = "token"  # noqa: S105 -- its name
_MOST_FIELDS: Final = 200
#: Seconds for which a signature counts.
_SIGNED_FOR: Final = 25 * 3600

_FAILED: Final = frozenset({"expired", "failed", "rejected"})
#: Our words for Vonage's err-codes, whether a later attempt may arrive, and what they mean for the number.
_CODES: Final[dict[str, tuple[str, Kind, SuppressionReason | None]]] = {
    "1": ("unknown", Kind.BOUNCED, None),
    "2": ("absent for now", Kind.BOUNCED_FOR_NOW, None),
    "3": ("absent for good", Kind.BOUNCED, SuppressionReason.HARD_BOUNCE),
    "4": ("barred by the user", Kind.BOUNCED, SuppressionReason.HARD_BOUNCE),
    "5": ("portability error", Kind.BOUNCED, None),
    "6": ("refused as spam", Kind.BOUNCED, None),
    "7": ("handset busy", Kind.BOUNCED_FOR_NOW, None),
    "8": ("network error", Kind.BOUNCED_FOR_NOW, None),
    "9": ("opted out", Kind.BOUNCED, SuppressionReason.STOP),
    "10": ("invalid message", Kind.BOUNCED, None),
    "11": ("unroutable", Kind.BOUNCED_FOR_NOW, None),
    "12": ("destination unreachable", Kind.BOUNCED, None),
    "13": ("age restriction", Kind.BOUNCED, None),
    "14": ("blocked by the carrier", Kind.BOUNCED, None),
    "15": ("no pre-paid funds", Kind.BOUNCED, None),
    "99": ("general error", Kind.BOUNCED_FOR_NOW, None),
}


class VonageReceipts:
    """Reads what one account calls back with."""

    name = "vonage"
    #: Vonage wants a 200.
    reply = (b"", "text/plain")
    reads_queries = True

    def __init__(self, secrets: list[str], token_key: str | None) -> None:
        """`secrets`: any of these signature secrets may have signed. `token_key`: what tokens are made with."""
        self._secrets = [secret.encode() for secret in secrets]
        self._token_key = token_key

    def read(self, callback: Callback) -> Report:
        """See ReceiptSource."""
        query = _pairs(urlsplit(callback.url).query)
        given = {**query, **_body(callback)}
        self._check(query, given, callback.received_at)
        if "text" in given and "status" not in given:
            return Report(standings=tuple(_answers(given)) if self._secrets else ())
        return _receipt(given, callback.received_at)

    def _check(self, query: Mapping[str, str], given: Mapping[str, str], received_at: datetime) -> None:
        """Raise NotSigned unless our account has signed it, or was told this address for this message."""
        if not self._secrets:
            token = token_of(self._token_key or "", query.get(_NOTIFICATION, ""))
            is_ours = hmac.compare_digest(query.get(_TOKEN, "").encode(errors="replace"), token.encode())
            if not is_ours or given.get("client-ref", query.get(_NOTIFICATION)) != query.get(_NOTIFICATION):
                raise NotSigned
            return
        signature = given.get("sig", "").lower().encode(errors="replace")
        signed = {name: value for name, value in given.items() if name != "sig"}
        # It is not said whether the parameters of the address itself are among those of a form.
        texts = [_text_of(signed), _text_of({name: value for name, value in signed.items() if name not in query})]
        made = [each for secret in self._secrets for text in texts for each in _signatures(text, secret)]
        timestamp = given.get("timestamp", "")
        is_time = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12
        if not any(hmac.compare_digest(signature, each) for each in made) or not is_time:
            raise NotSigned
        if received_at.timestamp() - int(timestamp) > _SIGNED_FOR:
            raise NotSigned


def token_of(key: str, notification_id: str) -> str:
    """Return the token in a message's callback URL, which keeps others from calling it."""
    return hmac.new(key.encode(), f"vonage receipt {notification_id}".encode(), hashlib.sha256).hexdigest()[:32]


def callback_query(dsn: Dsn, notification_id: UUID) -> str:
    """Return the query of a message's callback URL."""
    named = f"{_NOTIFICATION}={notification_id}"
    return f"{named}&{_TOKEN}={token_of(dsn.password or '', str(notification_id))}"


def _pairs(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise Malformed("is not a form") from None


def _body(callback: Callback) -> dict[str, str]:
    """Return the parameters of a body: JSON if it looks like that, else a form."""
    if callback.body.lstrip()[:1] == b"{":
        try:
            document: dict[str, Any] = orjson.loads(callback.body)
        except orjson.JSONDecodeError:
            raise Malformed("is not JSON") from None
        plain = (str, int, float)
        return {
            name: str(value)
            for name, value in document.items()
            if isinstance(value, plain) and not isinstance(value, bool)
        }
    try:
        return _pairs(callback.body.decode("ascii"))
    except ValueError:
        raise Malformed("is not a form") from None


def _text_of(signed: Mapping[str, str]) -> bytes:
    parts = (f"&{name}={value.translate(_SEPARATORS)}" for name, value in sorted(signed.items()))
    return "".join(parts).encode(errors="replace")


#: They separate parameters, so that a value's own are underscores to the signature.
_SEPARATORS: Final = str.maketrans("&=", "__")


def _signatures(text: bytes, secret: bytes) -> Iterator[bytes]:
    """Yield the signature of a text by each of the methods, in lower-case hexadecimal."""
    yield hashlib.md5(text + secret, usedforsecurity=False).hexdigest().encode()
    for name in ("md5", "sha1", "sha256", "sha512"):
        yield hmac.new(secret, text, name).hexdigest().encode()


def _receipt(given: Mapping[str, str], received_at: datetime) -> Report:
    """Return the report of a delivery receipt."""
    status, code = given.get("status", ""), given.get("err-code", "")
    if status != "delivered" and status not in _FAILED:
        return Report()
    try:
        notification_id = UUID(given.get("client-ref") or given.get(_NOTIFICATION, ""))
    except ValueError:
        return Report()  # of a message that somebody else has sent
    message_id, happened_at = given.get("messageId") or None, _moment(given, received_at)
    if status == "delivered":
        receipt = Receipt(VonageReceipts.name, notification_id, Kind.DELIVERED, happened_at, None, message_id)
        return Report((receipt,))
    words, kind, reason = _CODES.get(code, (f"says {status}", Kind.BOUNCED, None))
    error = f"vonage {code}, {words}" if code in _CODES else f"vonage {words}"
    receipt = Receipt(VonageReceipts.name, notification_id, kind, happened_at, error, message_id)
    if reason is None:
        return Report((receipt,))
    return Report((receipt,), (AddressStatus(Channel.SMS, _number(given), reason, notification_id=notification_id),))


def _answers(given: Mapping[str, str]) -> Iterator[AddressStatus]:
    """Yield the suppression, or its lifting, that an incoming message asks for."""
    text = given["text"].strip().upper()
    if text in STOP | START:
        yield AddressStatus(Channel.SMS, _number(given), SuppressionReason.STOP, lifted=text in START)


def _number(given: Mapping[str, str]) -> str:
    """Return the sender's number, which Vonage writes without its plus; the notification's own if it is none."""
    number = given.get("msisdn", "").removeprefix("+")
    return f"+{number}" if number.isascii() and number.isdigit() else ""


def _moment(given: Mapping[str, str], received_at: datetime) -> datetime:
    """Return the time that Vonage gives (in UTC), if it is readable and not in the future; else the time of receipt."""
    try:
        moment = datetime.strptime(given.get("message-timestamp", ""), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return received_at
    return min(moment, received_at)


def source(dsn: Dsn) -> VonageReceipts | None:
    """See receipts. Raises ValueError."""
    if dsn.query.get("receipts", "on") != "on":
        raise ValueError("has receipts that are not on")
    secrets = dsn.several("signature_secret")
    if "signature_secret" in dsn.query and not secrets:
        raise ValueError("has an empty signature_secret")
    if not secrets and "receipts" not in dsn.query:
        return None
    return VonageReceipts(secrets, dsn.password)
