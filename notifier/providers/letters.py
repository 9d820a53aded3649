"""Messages as SMTP carries them: an envelope (RFC 5321) around a MIME message (RFC 5322, RFC 2045)."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Final

from notifier.providers import Message

# Everything is encoded to seven bits, so that it does not matter what the server offers and how long lines are.
_POLICY: Final = policy.SMTP.clone(cte_type="7bit")
#: Header fields in UTF-8 (RFC 6532), which only an international address needs.
_INTERNATIONAL_POLICY: Final = policy.SMTPUTF8.clone(cte_type="7bit")

#: A mailbox without quoting and comments. In a header, any of the characters left out begins something else.
_MAILBOX: Final = re.compile(r"[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]+@[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]+")


class NotAMailbox(ValueError):
    """It is not an address of the form name@domain."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes over the wire for one message."""

    #: Envelope addresses.
    sender: str
    recipient: str
    #: The message with CRLF line ends, its leading dots doubled, and the line with a dot that ends it.
    data: bytes
    #: It can only go through a server that offers SMTPUTF8 (RFC 6531).
    international: bool


def mailbox(text: str) -> Address:
    """A mailbox, `name@domain` or `Name <name@domain>`. Raises NotAMailbox."""
    name, address = parseaddr(text)
    if not _MAILBOX.fullmatch(address):
        raise NotAMailbox
    username, _, domain = address.rpartition("@")
    return Address(display_name=name, username=username, domain=domain)


def write(message: Message, sender: Address) -> Letter:
    """Write a message as a letter. Its Message-ID is the same in every attempt.

    Raises NotAMailbox where its recipient is none, and whatever else the email package has to say.
    """
    if not _MAILBOX.fullmatch(message.recipient):
        raise NotAMailbox
    username, _, domain = message.recipient.rpartition("@")
    international = not (message.recipient.isascii() and sender.addr_spec.isascii())
    mail = EmailMessage(policy=_INTERNATIONAL_POLICY if international else _POLICY)
    mail["From"] = sender
    mail["To"] = Address(username=username, domain=domain)
    if message.subject:
        # A line break would begin another header field.
        mail["Subject"] = re.sub(r"[\s\x00-\x1f\x7f]+", " ", message.subject).strip()
    mail["Date"] = datetime.now(UTC)
    mail["Message-ID"] = f"<{message.id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: so that no vacation notice comes back
    mail.set_content(message.text)
    if message.html is not None:
        mail.add_alternative(message.html, subtype="html")
    return Letter(sender.addr_spec, message.recipient, _stuffed(mail.as_bytes()), international)


def _stuffed(data: bytes) -> bytes:
    """As DATA wants it (RFC 5321, section 4.5.2), with no bare CR or LF that a server could take for a line's end."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", data).removesuffix(b"\r\n")
    return re.sub(rb"(?m)^\.", b"..", lines) + b"\r\n.\r\n"
