"""Receipts of Twilio's Programmable Messaging, and incoming messages.

Status callbacks, which name the notification in their URL's query (see `twilio`):

| MessageStatus                                                            | receipt                       |
|--------------------------------------------------------------------------|-------------------------------|
| `delivered`, `read`                                                      | delivered                     |
| `undelivered`, `failed`                                                  | bounced, with their ErrorCode |
| `accepted`, `scheduled`, `queued`, `sending`, `sent`, `canceled`, others | none                          |

`_CODES` says for each ErrorCode whether a later attempt may arrive, by any provider or only by another one, and whether
the number is suppressed. 30006 is a landline, or a carrier that this sender cannot reach: it suppresses a number when
it occurs twice in a row. An unknown code is permanent, and suppresses nobody.

Incoming messages name no notification. With Advanced Opt-Out they have an OptOutType; without it the whole text counts,
in any case:

| OptOutType | text                                                           | the sender's number                |
|------------|----------------------------------------------------------------|------------------------------------|
| `STOP`     | STOP STOPALL UNSUBSCRIBE CANCEL END QUIT OPTOUT REVOKE         | is suppressed: `stop`              |
| `START`    | START YES UNSTOP                                               | is free again, where that was why  |
| `HELP`     | any other                                                      | stays as it is                     |

X-Twilio-Signature is HMAC-SHA1 with the account's auth token over the URL and the sorted parameters of the form. The
URL that Twilio signs may or may not contain a default port, and the fragment that asks Twilio to repeat a failed
callback ("connection overrides"). An API key signs nothing: if the DSN has one, and while the token is rotated,
`receipt_token` is a further token to verify with. Callbacks carry no signed time: a replayed one repeats an earlier
report, which changes nothing but a STOP or START that was reversed since.
"""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

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

#: The parameter of the status callback's URL that names the notification.
NOTIFICATION: Final = "notification"
#: The fragment of that URL: repeat what fails up to five times, whatever the failure is.
REPEATS: Final = "rc=5&rp=all"
#: Callbacks have some twenty.
_MOST_FIELDS: Final = 1000

_ARRIVED: Final = frozenset({"delivered", "read"})
_FAILED: Final = frozenset({"undelivered", "failed"})
#: The words of an answer, which counts where it is the whole message.
STOP: Final = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "REVOKE"})
START: Final = frozenset({"START", "YES", "UNSTOP"})

_FOR_GOOD: Final = Kind.BOUNCED
_HERE: Final = Kind.BOUNCED_HERE
_FOR_NOW: Final = Kind.BOUNCED_FOR_NOW

#: Twilio's codes: our words, whether a later attempt may arrive, and the reason to suppress the number, if any.
_CODES: Final[dict[str, tuple[str, Kind, SuppressionReason | None]]] = {
    "21211": ("not a phone number", _FOR_GOOD, SuppressionReason.HARD_BOUNCE),
    "21610": ("opted out", _FOR_GOOD, SuppressionReason.STOP),
    "21614": ("not a mobile number", _FOR_GOOD, SuppressionReason.HARD_BOUNCE),
    "21635": ("a landline", _FOR_GOOD, SuppressionReason.HARD_BOUNCE),
    "30001": ("queue overflow", _FOR_NOW, None),
    "30002": ("account suspended", _HERE, None),
    "30003": ("unreachable handset", _FOR_NOW, None),
    "30004": ("message blocked", _HERE, None),
    "30005": ("unknown handset", _FOR_GOOD, SuppressionReason.HARD_BOUNCE),
    "30006": ("a landline or an unreachable carrier", _HERE, SuppressionReason.HARD_BOUNCE),
    "30007": ("filtered by the carrier", _HERE, None),
    "30008": ("unknown error", _FOR_NOW, None),
    "30010": ("price exceeds the limit", _FOR_GOOD, None),
    "30017": ("carrier's network is congested", _FOR_NOW, None),
    "30018": ("sender is not registered in that country", _HERE, None),
    "30019": ("too large", _FOR_GOOD, None),
    "30020": ("internal failure", _FOR_NOW, None),
    "30021": ("internal failure", _FOR_NOW, None),
    "30022": ("carrier's rate limit", _FOR_NOW, None),
    "30023": ("carrier's daily limit", _FOR_NOW, None),
    "30024": ("sender is not provisioned by the carrier", _HERE, None),
    "30027": ("carrier's daily limit", _FOR_NOW, None),
    "30032": ("toll-free sender is not verified", _HERE, None),
    "30033": ("campaign suspended", _HERE, None),
    "30034": ("sender is not registered", _HERE, None),
    "30035": ("sender is being registered", _HERE, None),
    "30036": ("not sent in time", _FOR_NOW, None),
    "30037": ("outbound messaging is disabled", _HERE, None),
    "30038": ("filtered as a one-time password", _HERE, None),
    "30039": ("filtered as a loop", _HERE, None),
    "30040": ("sender is not registered with the carrier", _HERE, None),
    "30041": ("sender is generic in that country", _HERE, None),
    "30042": ("sender is generic in that country", _HERE, None),
    "30043": ("filtered as a gray route", _HERE, None),
    "30044": ("too long for a trial account", _FOR_GOOD, None),
    "30046": ("delivery not confirmed", _HERE, None),
    "30410": ("provider timeout", _FOR_NOW, None),
    "30450": ("destination blocked for a while", _FOR_NOW, None),
    "63003": ("not a recipient of that channel", _FOR_GOOD, SuppressionReason.HARD_BOUNCE),
    "63024": ("not a recipient of that channel", _FOR_GOOD, SuppressionReason.HARD_BOUNCE),
}
#: Codes that count against a number only when they are repeated.
_ON_REPEAT: Final = frozenset({"30006"})


class TwilioReceipts:
    """Reads what one account calls back with."""

    name = "twilio"
    #: TwiML that does nothing: an incoming message is answered with whatever else stands there.
    reply = (b'<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml")

    def __init__(self, *tokens: str) -> None:
        """`tokens`: any of them may have signed."""
        self._tokens = [token.encode() for token in tokens]

    def read(self, callback: Callback) -> Report:
        """See ReceiptSource."""
        try:
            body = callback.body.decode("ascii")
            pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise Malformed("is not a form") from None
        self._check(callback, pairs)
        query = dict(parse_qsl(urlsplit(callback.url).query, keep_blank_values=True))
        form = dict(pairs)
        if NOTIFICATION not in query:
            return Report(standings=tuple(_answers(form)))
        try:
            notification_id = UUID(query[NOTIFICATION])
        except ValueError:
            raise Malformed(f"names a {NOTIFICATION} that is no id") from None
        return _status(callback, notification_id, form)

    def _check(self, callback: Callback, pairs: Sequence[tuple[str, str]]) -> None:
        """Raise NotSigned unless our account has signed the callback."""
        given = callback.headers.get("x-twilio-signature", "").encode(errors="replace")
        # A field that is there several times is signed once for each of its values.
        form = "".join(name + value for name, value in sorted(set(pairs)))
        texts = [url + form for url in _as_signed(callback.url)]
        signatures = [_sign(token, text) for token in self._tokens for text in texts]
        if not any(hmac.compare_digest(given, signature) for signature in signatures):
            raise NotSigned


def _sign(token: bytes, text: str) -> bytes:
    return b64encode(hmac.new(token, text.encode(errors="replace"), hashlib.sha1).digest())


def _as_signed(url: str) -> Iterator[str]:
    """Yield a URL as Twilio may have written it when it signed: with and without its port and its fragment."""
    for each in _ports(url):
        yield each
        yield f"{each}#{REPEATS}"


def _ports(url: str) -> Iterator[str]:
    """Yield a URL as it is, without a port, and with the implied one."""
    yield url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    yield parts._replace(netloc=parts.netloc[: len(parts.netloc) - len(host)] + name).geturl()
    if name == host:
        yield parts._replace(netloc=f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}").geturl()


def _status(callback: Callback, notification_id: UUID, form: dict[str, str]) -> Report:
    """Return the receipt in a status callback."""
    status = form.get("MessageStatus", "")
    if status in _ARRIVED:
        return Report((Receipt(TwilioReceipts.name, notification_id, Kind.DELIVERED, callback.received_at),))
    if status not in _FAILED:
        return Report()
    code = form.get("ErrorCode", "")
    words, kind, reason = _CODES.get(code, (None, Kind.BOUNCED, None))
    # The callback does not say when it happened.
    error = _error(status, code, words)
    message_id = form.get("MessageSid") or None
    receipt = Receipt(TwilioReceipts.name, notification_id, kind, callback.received_at, error, message_id)
    if reason is None:
        return Report((receipt,))
    repeats = error if code in _ON_REPEAT else None
    to = form.get("To", "")
    return Report(
        (receipt,), (AddressStatus(Channel.SMS, to, reason, notification_id=notification_id, repeats=repeats),)
    )


def _error(status: str, code: str, words: str | None) -> str:
    if not (code.isascii() and code.isdigit() and len(code) <= 6):
        return f"twilio says {status}"
    return f"twilio {code}, {words}" if words else f"twilio {code}"


def _answers(form: dict[str, str]) -> Iterator[AddressStatus]:
    """Yield the address statuses in an incoming message."""
    asked = form.get("OptOutType", "").upper()
    text = form.get("Body", "").strip().upper()
    if not asked:
        asked = "STOP" if text in STOP else "START" if text in START else ""
    if asked in {"STOP", "START"}:
        yield AddressStatus(Channel.SMS, form.get("From", ""), SuppressionReason.STOP, lifted=asked == "START")


def is_key(dsn: Dsn) -> bool:
    """Return whether a DSN has an API key, which signs nothing, in place of the account and its token."""
    return (dsn.username or "").startswith("SK")


def source(dsn: Dsn) -> TwilioReceipts | None:
    """See receipts."""
    own = [] if is_key(dsn) or not dsn.password else [dsn.password]
    tokens = [*own, *dsn.several("receipt_token")]
    return TwilioReceipts(*tokens) if tokens else None
