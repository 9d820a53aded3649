"""Receipts and answers of Twilio's Programmable Messaging.

Status callbacks, which name the notification in their URL's query (see `twilio`):

| MessageStatus                                                            | receipt                       |
|--------------------------------------------------------------------------|-------------------------------|
| `delivered`, `read`                                                      | delivered                     |
| `undelivered`, `failed`                                                  | bounced, with their ErrorCode |
| `accepted`, `scheduled`, `queued`, `sending`, `sent`, `canceled`, others | none                          |

| ErrorCode of one that bounced                                            | the number is suppressed      |
|--------------------------------------------------------------------------|-------------------------------|
| 21211, 21217 (no number), 21614, 21635, 30006 (takes no SMS), 30005 (unknown) | `hard_bounce`            |
| 21610 (has answered STOP)                                                | `stop`                        |
| 30003 (switched off, out of reach), 30004, 30007 (blocked, filtered), others | no: another message may arrive |

Incoming messages, which name no notification. OptOutType is there where Advanced Opt-Out is on; else the whole text
counts, in any case:

| OptOutType | text                                                           | the sender's number                |
|------------|----------------------------------------------------------------|------------------------------------|
| `STOP`     | STOP STOPALL UNSUBSCRIBE CANCEL END QUIT OPTOUT REVOKE         | is suppressed: `stop`              |
| `START`    | START YES UNSTOP                                               | is free again, where that was why  |
| `HELP`     | any other                                                      | stays as it is                     |

X-Twilio-Signature is HMAC-SHA1 with the account's token over the URL and the parameters of the form, sorted. Ports that
go without saying may be in the URL that Twilio signs, or not. Callbacks carry no time that is signed: one that is
played back says what was said before, which changes nothing but a STOP or START that was taken back since.
"""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from notifier.channels import Channel
from notifier.providers.dsn import Dsn
from notifier.providers.receipts import Callback, Kind, Malformed, NotSigned, Reason, Receipt, Report, Standing

#: The parameter of the status callback's URL that names the notification.
NOTIFICATION: Final = "notification"
#: Callbacks have some twenty.
_MOST_FIELDS: Final = 1000

_ARRIVED: Final = frozenset({"delivered", "read"})
_FAILED: Final = frozenset({"undelivered", "failed"})
_STOP: Final = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "REVOKE"})
_START: Final = frozenset({"START", "YES", "UNSTOP"})

#: Our words for Twilio's codes, and what they mean for the number.
_CODES: Final[dict[str, tuple[str, Reason | None]]] = {
    "21211": ("not a phone number", Reason.HARD_BOUNCE),
    "21217": ("not a phone number", Reason.HARD_BOUNCE),
    "21610": ("opted out", Reason.STOP),
    "21612": ("not reachable from this sender", None),
    "21614": ("not a mobile number", Reason.HARD_BOUNCE),
    "21635": ("a landline", Reason.HARD_BOUNCE),
    "30001": ("queue overflow", None),
    "30002": ("account suspended", None),
    "30003": ("unreachable handset", None),
    "30004": ("message blocked", None),
    "30005": ("unknown handset", Reason.HARD_BOUNCE),
    "30006": ("a landline or an unreachable carrier", Reason.HARD_BOUNCE),
    "30007": ("filtered by the carrier", None),
    "30008": ("unknown error", None),
    "30010": ("price exceeds the limit", None),
    "30022": ("carrier's rate limit", None),
    "30034": ("sender is not registered", None),
    "30036": ("not sent in time", None),
}


class TwilioReceipts:
    """Reads what one account calls back with."""

    name = "twilio"
    #: TwiML that does nothing: an incoming message is answered with whatever else stands there.
    reply = (b'<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml")

    def __init__(self, token: str) -> None:
        self._token = token.encode()

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
        signatures = [self._sign(url + form) for url in _as_signed(callback.url)]
        if not any(hmac.compare_digest(given, signature) for signature in signatures):
            raise NotSigned

    def _sign(self, text: str) -> bytes:
        return b64encode(hmac.new(self._token, text.encode(errors="replace"), hashlib.sha1).digest())


def _as_signed(url: str) -> Iterator[str]:
    """A URL as Twilio may have written it when it signed: as it is, without a port, and with the one that is meant."""
    yield url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    yield parts._replace(netloc=parts.netloc[: len(parts.netloc) - len(host)] + name).geturl()
    if name == host:
        yield parts._replace(netloc=f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}").geturl()


def _status(callback: Callback, notification_id: UUID, form: dict[str, str]) -> Report:
    """What a status callback says."""
    status = form.get("MessageStatus", "")
    if status in _ARRIVED:
        return Report((Receipt(TwilioReceipts.name, notification_id, Kind.DELIVERED, callback.received_at),))
    if status not in _FAILED:
        return Report()
    code = form.get("ErrorCode", "")
    words, reason = _CODES.get(code, (None, None))
    # The callback does not say when it happened.
    error = _error(status, code, words)
    message_id = form.get("MessageSid") or None
    receipt = Receipt(TwilioReceipts.name, notification_id, Kind.BOUNCED, callback.received_at, error, message_id)
    standings = (Standing(Channel.SMS, form.get("To", ""), reason),) if reason else ()
    return Report((receipt,), standings)


def _error(status: str, code: str, words: str | None) -> str:
    if not (code.isascii() and code.isdigit() and len(code) <= 6):
        return f"twilio says {status}"
    return f"twilio {code}, {words}" if words else f"twilio {code}"


def _answers(form: dict[str, str]) -> Iterator[Standing]:
    """What an incoming message says of its sender."""
    asked = form.get("OptOutType", "").upper()
    text = form.get("Body", "").strip().upper()
    if not asked:
        asked = "STOP" if text in _STOP else "START" if text in _START else ""
    if asked in {"STOP", "START"}:
        yield Standing(Channel.SMS, form.get("From", ""), Reason.STOP, lifted=asked == "START")


def source(dsn: Dsn) -> TwilioReceipts | None:
    """See receipts."""
    return TwilioReceipts(dsn.password) if dsn.password else None
