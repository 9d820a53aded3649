"""Receipts by email: delivery status notifications (RFC 3464) and complaints (ARF, RFC 5965) from mail servers.

| report                                               | receipt         | the address is suppressed |
|------------------------------------------------------|-----------------|---------------------------|
| `Action: failed`, 5.1.x                              | bounced         | `hard_bounce`             |
| the same, 5.1.7 or 5.1.8 (our sender), 5.7.x (policy) | bounced here   | no                        |
| the same, 4.x.x (given up), 5.2.2 (full)             | bounced for now | no                        |
| the same, any other                                  | bounced         | no                        |
| `Action: delivered`                                  | delivered       | no                        |
| `Action: delayed`, `relayed`, `expanded`             | none            | no                        |
| a complaint, `Feedback-Type: abuse`, `fraud`, …      | none            | `complaint`               |
| a complaint of `not-spam`                            | none            | no                        |
| any other mail                                       | none            | no                        |

If a `Status` is no more specific than 5.0.0, the enhanced code in the server's own words counts. Our return path alone
identifies the email (see `smtp_return_paths`), and that email's recipient is suppressed: anybody may have written the
rest of a report.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from email import message_from_bytes, policy
from email.message import Message as Mail
from email.utils import parsedate_to_datetime
from typing import Final
from uuid import UUID

from notifier.providers.receipts import AddressStatus, Kind, Receipt, Report, SuppressionReason
from notifier.providers.vendors.smtp_return_paths import ReturnPaths
from notifier.vocabulary.states import Channel

#: The provider of what is bounced, as attempts record it where it has no name of its own.
NAME: Final = "smtp"
#: The bytes of a mail that are read: reports stand at its beginning.
READ_AT_MOST: Final = 1024 * 1024
#: Parts of a mail that are looked at.
_PARTS: Final = 50

#: Fields that may hold the address to which a mail was delivered; the last of them is set by the sender.
_DELIVERED_TO: Final = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-delivered-to", "to")
_CODE: Final = re.compile(r"(?<![0-9.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")
_VAGUE: Final = re.compile(r"[245]\.0\.0")
_NOBODY_THERE: Final = re.compile(r"5\.1\.(?![78]$)[0-9]{1,3}")
_OUR_SENDER: Final = re.compile(r"5\.1\.[78]|5\.7\.[0-9]{1,3}")
_FULL: Final = "5.2.2"


def read(raw: bytes, paths: ReturnPaths, received_at: datetime) -> Report:
    """Return the report in a mail; an empty one if the mail is no report, or not about an email of ours.

    Raises what the database raises, where the key of the return paths is to be read.
    """
    try:
        mail = message_from_bytes(raw[:READ_AT_MOST], policy=policy.compat32)
        parts = _parts(mail)
        status = next((part for part in parts if part.get_content_type() == "message/delivery-status"), None)
        feedback = next((part for part in parts if part.get_content_type() == "message/feedback-report"), None)
        happened_at = _moment(mail, received_at)
        if feedback is not None:
            texts, said = list(_complained_of(feedback, parts)), _field(_blocks(feedback), "feedback-type")
        else:
            texts, said = [text for name in _DELIVERED_TO for text in _all(mail, name)], ""
        outcome = _outcome(_blocks(status)) if status is not None and feedback is None else None
    except Exception:  # the email package has many ways to say no, and mails come from anybody
        return Report()
    if outcome is None and feedback is None:
        return Report()
    notification_id = paths.read(texts)
    if notification_id is None:
        return Report()
    if outcome is not None:
        return _bounce(notification_id, *outcome, happened_at)
    if said.lower() in {"", "not-spam"}:
        return Report()
    return Report((), (AddressStatus(Channel.EMAIL, "", SuppressionReason.COMPLAINT, notification_id=notification_id),))


def _bounce(notification_id: UUID, kind: Kind, code: str, happened_at: datetime) -> Report:
    error = None if kind is Kind.DELIVERED else f"smtp bounce, {code}" if code else "smtp bounce"
    receipts = (Receipt(NAME, notification_id, kind, happened_at, error),)
    if kind is not Kind.BOUNCED or not _NOBODY_THERE.fullmatch(code):
        return Report(receipts)
    return Report(
        receipts, (AddressStatus(Channel.EMAIL, "", SuppressionReason.HARD_BOUNCE, notification_id=notification_id),)
    )


def _outcome(blocks: list[Mail]) -> tuple[Kind, str] | None:
    """Return the fate of the email, and the enhanced code; None if the report does not decide it.

    An email of ours has one recipient; where there are several blocks, the first that decides anything counts.
    """
    for block in blocks:
        action = _first(block, "action").strip().lower()
        if action == "delivered":
            return Kind.DELIVERED, ""
        if action == "failed":
            code = _code(block)
            return _kind(code), code
    return None


def _code(block: Mail) -> str:
    """Return the enhanced code of a recipient's block; from the server's own words if Status says nothing."""
    status = _CODE.search(_first(block, "status"))
    detail = _CODE.search(_first(block, "diagnostic-code"))
    code = status[1] if status else ""
    return detail[1] if detail and (not code or _VAGUE.fullmatch(code)) else code


def _kind(code: str) -> Kind:
    if code.startswith("4.") or code == _FULL:
        return Kind.BOUNCED_FOR_NOW
    return Kind.BOUNCED_HERE if _OUR_SENDER.fullmatch(code) else Kind.BOUNCED


def _complained_of(feedback: Mail, parts: list[Mail]) -> Iterator[str]:
    """Yield the texts that may hold the complained-of email's return path, from the report and its attached email."""
    for block in _blocks(feedback):
        yield from _all(block, "original-mail-from")
    for part in parts:
        if part.get_content_type() == "text/rfc822-headers":
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                yield from _all(message_from_bytes(payload, policy=policy.compat32), "return-path")
        elif part.get_content_type() == "message/rfc822":
            payload = part.get_payload()
            if isinstance(payload, list) and payload and isinstance(payload[0], Mail):
                yield from _all(payload[0], "return-path")


def _parts(mail: Mail) -> list[Mail]:
    """Return the parts of a report, without those of the email that it returns."""
    if mail.get_content_type() != "multipart/report":
        return []
    payload = mail.get_payload()
    return [part for part in payload[:_PARTS] if isinstance(part, Mail)] if isinstance(payload, list) else []


def _blocks(part: Mail) -> list[Mail]:
    """Return the groups of fields of a report's part, whether the email package has parsed them or not."""
    payload = part.get_payload()
    if isinstance(payload, list):
        return [block for block in payload[:_PARTS] if isinstance(block, Mail)]
    decoded = part.get_payload(decode=True)
    if not isinstance(decoded, bytes):
        return []
    groups = re.split(rb"\r?\n\r?\n", decoded.strip())
    return [message_from_bytes(group, policy=policy.compat32) for group in groups[:_PARTS]]


def _field(blocks: list[Mail], name: str) -> str:
    return next((value.strip() for block in blocks for value in _all(block, name)), "")


def _first(mail: Mail, name: str) -> str:
    return next(iter(_all(mail, name)), "")


def _all(mail: Mail, name: str) -> list[str]:
    return [str(value) for value in mail.get_all(name, [])]


def _moment(mail: Mail, received_at: datetime) -> datetime:
    """Return the date of the mail, if it is readable and not in the future; else the time of receipt."""
    try:
        moment = parsedate_to_datetime(_first(mail, "date"))
        return min(moment, received_at) if moment.tzinfo else received_at
    except (ValueError, TypeError, OverflowError):
        return received_at
