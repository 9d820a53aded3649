"""Receipts of Amazon SES: its events, through an SNS topic. `ses://KEY:SECRET@default?region=…&topic=arn:aws:sns:…`

Events of a configuration set (`eventType`) and of an identity (`notificationType`):

| event                                            | receipt         | the address is suppressed                   |
|--------------------------------------------------|-----------------|---------------------------------------------|
| `Delivery`                                       | delivered       | no                                          |
| `Bounce`, by its type and sub-type               | see `_BOUNCES`  | where it is permanent, and nobody is there  |
| `Complaint`                                      | none            | `complaint`, but for feedback of `not-spam` |
| `Reject`, `RenderingFailure`, `Rendering Failure` | bounced        | no                                          |
| `Send`, `Open`, `Click`, `Subscription`, `DeliveryDelay`, others | none | no                                     |

An event names our notification by the tag that `ses` gives each email, `mail.tags.notification_id`; an identity's
event, which has no tags, by the Message-ID that we wrote, if it includes the original headers. Other events belong to
other mail, and are ignored.

SNS signs the events (see `sns`).
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from notifier.providers.dsn import Dsn
from notifier.providers.http.address_guard import Network
from notifier.providers.http.api import EVERYWHERE
from notifier.providers.receipts import AddressStatus, Callback, Kind, Malformed, Receipt, Report, SuppressionReason
from notifier.providers.vendors.sns import ARN, Topics
from notifier.vocabulary.states import Channel

TAG: Final = "notification_id"

_NOBODY_THERE: Final = (Kind.BOUNCED, SuppressionReason.HARD_BOUNCE)
_FOR_NOW: Final = (Kind.BOUNCED_FOR_NOW, None)
_HERE: Final = (Kind.BOUNCED_HERE, None)
#: By type and sub-type; any other is for good, and suppresses nobody.
_BOUNCES: Final[dict[tuple[str, str], tuple[Kind, SuppressionReason | None]]] = {
    ("Permanent", "General"): _NOBODY_THERE,
    ("Permanent", "NoEmail"): _NOBODY_THERE,
    ("Permanent", "Suppressed"): _NOBODY_THERE,
    ("Permanent", "OnAccountSuppressionList"): _NOBODY_THERE,
    ("Transient", "General"): _FOR_NOW,
    ("Transient", "MailboxFull"): _FOR_NOW,
    ("Transient", "MessageTooLarge"): _HERE,
    ("Transient", "ContentRejected"): _HERE,
    ("Transient", "AttachmentRejected"): _HERE,
}
_FAILED: Final = {"Reject": "reject", "RenderingFailure": "rendering failure", "Rendering Failure": "rendering failure"}
_WORD: Final = re.compile(r"[A-Za-z]{1,32}")
_ENHANCED_CODE: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
#: The Message-ID that `letters` writes.
_MESSAGE_ID: Final = re.compile(r"<?([0-9a-fA-F-]{36})@[^@<>\s]+>?")


class SesReceipts:
    """Reads what the topics of one account say."""

    name = "ses"
    reply = None

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def read(self, callback: Callback) -> Report:
        """See ReceiptSource."""
        text = self._topics.read(callback.body, callback.received_at)
        if text is None:
            return Report()
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            # The test messages of SNS, and of SES when it is connected to a topic, are sentences and not JSON.
            return Report()
        if not isinstance(event, dict):
            raise Malformed("has a Message that is no event")
        return _report(event, callback.received_at)


def _report(event: Mapping[str, Any], received_at: datetime) -> Report:
    """Return the report of an event of SES."""
    mail = _part(event, "mail")
    notification_id = _notification_of(mail)
    if notification_id is None:
        return Report()
    name = _text(event, "eventType") or _text(event, "notificationType")
    message_id = _text(mail, "messageId") or None
    detail = _part(event, name[:1].lower() + name[1:])
    happened_at = _moment(detail, received_at)

    def receipt(kind: Kind, error: str | None = None) -> tuple[Receipt, ...]:
        return (Receipt(SesReceipts.name, notification_id, kind, happened_at, error, message_id),)

    match name:
        case "Delivery":
            return Report(receipt(Kind.DELIVERED))
        case "Bounce":
            kind, reason = _BOUNCES.get((_text(detail, "bounceType"), _text(detail, "bounceSubType")), _OTHER)
            standings = _standings(detail, "bouncedRecipients", reason, notification_id) if reason else ()
            return Report(receipt(kind, _error(detail)), standings)
        case "Complaint" if _text(detail, "complaintFeedbackType") != "not-spam":
            return Report((), _standings(detail, "complainedRecipients", SuppressionReason.COMPLAINT, notification_id))
        case _ if name in _FAILED:
            return Report(receipt(Kind.BOUNCED, f"ses {_FAILED[name]}"))
        case _:
            return Report()


_OTHER: Final = (Kind.BOUNCED, None)


def _standings(
    detail: Mapping[str, Any], name: str, reason: SuppressionReason, notification_id: UUID
) -> tuple[AddressStatus, ...]:
    """Return a standing for each address to suppress; for the notification's own if none is named."""
    recipients = detail.get(name)
    named = [each for each in recipients if isinstance(each, dict)] if isinstance(recipients, list) else []
    addresses = [address for each in named if (address := _text(each, "emailAddress"))] or [""]
    return tuple(AddressStatus(Channel.EMAIL, each, reason, notification_id=notification_id) for each in addresses)


def _error(bounce: Mapping[str, Any]) -> str:
    """Return the reason of a bounce: SES's words that cannot be an address, and the server's enhanced code."""
    words = [_text(bounce, "bounceType"), _text(bounce, "bounceSubType")]
    details = [word for word in words if _WORD.fullmatch(word)]
    recipients = bounce.get("bouncedRecipients")
    first = recipients[0] if isinstance(recipients, list) and recipients else None
    code = _text(first, "status") if isinstance(first, dict) else ""
    return ", ".join(["ses bounce", *details, *([code] if _ENHANCED_CODE.fullmatch(code) else [])])


def _notification_of(mail: Mapping[str, Any]) -> UUID | None:
    """Return the notification of an email: by its tag, else by its Message-ID as we wrote it."""
    tags = _part(mail, "tags").get(TAG)
    tag = tags[0] if isinstance(tags, list) and tags else tags
    headers = mail.get("headers")
    written = [
        _text(header, "value")
        for header in (headers if isinstance(headers, list) else ())
        if isinstance(header, dict) and _text(header, "name").lower() == "message-id"
    ]
    for text in (_text(_part(mail, "commonHeaders"), "messageId"), *written):
        found = _MESSAGE_ID.fullmatch(text.strip())
        tag = found[1] if tag is None and found else tag
    try:
        return UUID(tag) if isinstance(tag, str) else None
    except ValueError:
        return None


def _moment(detail: Mapping[str, Any], received_at: datetime) -> datetime:
    """Return the time that SES gives, if it is readable and not in the future; else the time of receipt."""
    try:
        moment = datetime.fromisoformat(_text(detail, "timestamp"))
    except ValueError:
        return received_at
    return min(moment, received_at) if moment.tzinfo else received_at


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def source(dsn: Dsn) -> SesReceipts | None:
    """See receipts. Raises ValueError."""
    if "topic" not in dsn.query:
        return None
    arns = dsn.several("topic")
    if not arns or not all(ARN.fullmatch(arn) for arn in arns):
        raise ValueError("has a topic that is not the ARN of an SNS topic, arn:aws:sns:REGION:ACCOUNT:NAME")
    # A host that stands in for Amazon's was set by the operator, so it may be in any network.
    networks: tuple[Network, ...] = EVERYWHERE if dsn.host is not None else ()
    return SesReceipts(Topics(arns, dsn, networks))
