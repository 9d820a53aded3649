"""Messages as SMTP carries them: an envelope (RFC 5321) around a MIME message (RFC 5322, RFC 2045)."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Final

from notifier.providers import Attachment, Message

# Everything is encoded to seven bits, so that it does not matter what the server offers and how long lines are.
_POLICY: Final = policy.SMTP.clone(cte_type="7bit")
#: Header fields in UTF-8 (RFC 6532), which only an international address needs.
_INTERNATIONAL_POLICY: Final = policy.SMTPUTF8.clone(cte_type="7bit")

# A mailbox without quoting and comments. In a header, any of the characters left out begins something else.
_ATOMS: Final = r"[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]+"
_ADDRESS: Final = re.compile(f"({_ATOMS})@({_ATOMS})")
_NAMED: Final = re.compile(rf"([^<>\x00-\x1f\x7f]*)<({_ADDRESS.pattern})>")

_EOL: Final = "\r\n"
#: What may not be encoded as a file is (RFC 2046, section 5), and would be taken for a part of the letter itself.
_STRUCTURES: Final = frozenset({"multipart", "message"})
#: A subject that needs no folding, in characters.
_PLAIN_SUBJECT: Final = 60


class NotAMailbox(ValueError):
    """It is not an address of the form name@domain."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes over the wire for one message."""

    #: Envelope addresses.
    sender: str
    recipient: str
    #: The message with CRLF line ends; from `write` with its leading dots doubled and the line with a dot that ends it.
    data: bytes
    #: It can only go through a server that offers SMTPUTF8 (RFC 6531).
    international: bool


def mailbox(text: str) -> Address:
    """A mailbox, `name@domain` or `Name <name@domain>`. Raises NotAMailbox."""
    named = _NAMED.fullmatch(text.strip())
    name, address = (named[1].strip().strip('"'), named[2]) if named else ("", text.strip())
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise NotAMailbox
    return Address(display_name=name, username=parts[1], domain=parts[2])


def write(message: Message, sender: Address) -> Letter:
    """Write a message as a letter for SMTP's DATA. Raises what `draft` raises."""
    letter = draft(message, sender)
    return replace(letter, data=_stuffed(letter.data))


def draft(message: Message, sender: Address) -> Letter:
    """Write a message as a letter, its data plain MIME. Its Message-ID is the same in every attempt.

    Raises NotAMailbox where its recipient is none, and whatever else the email package has to say.
    """
    parts = _ADDRESS.fullmatch(message.recipient)
    if parts is None:
        raise NotAMailbox
    if message.sender is not None:
        sender = mailbox(message.sender)
    international = not (message.recipient.isascii() and sender.addr_spec.isascii())
    mail = EmailMessage(policy=_INTERNATIONAL_POLICY if international else _POLICY)
    mail["From"] = sender
    mail["To"] = Address(username=parts[1], domain=parts[2])
    if message.reply_to is not None:
        mail["Reply-To"] = mailbox(message.reply_to)
    mail["Date"] = datetime.now(UTC)
    mail["Message-ID"] = f"<{message.id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: so that no vacation notice comes back
    mail.set_content(message.text)
    if message.html is not None:
        mail.add_alternative(message.html, subtype="html")
    for attachment in message.attachments:
        _attach(mail, attachment)
    data = _subject(message.subject) + _unsubscribe(message.unsubscribe) + mail.as_bytes()
    return Letter(sender.addr_spec, message.recipient, data, international)


def _attach(mail: EmailMessage, attachment: Attachment) -> None:
    maintype, _, subtype = attachment.content_type.partition("/")
    if maintype.lower() in _STRUCTURES:
        maintype, subtype = "application", "octet-stream"
    mail.add_attachment(attachment.content, maintype=maintype, subtype=subtype, filename=attachment.name)


def _subject(subject: str | None) -> bytes:
    """The header field of a subject, if there is one, on lines of at most 76 characters.

    Not left to EmailMessage: where it folds encoded words it loses the spaces between them (CPython 3.11).
    """
    if subject is None:
        return b""
    # A line break would begin another header field.
    text = re.sub(r"[\s\x00-\x1f\x7f]+", " ", subject).strip()
    is_plain = text.isascii() and len(text) <= _PLAIN_SUBJECT and "=?" not in text
    charset = "us-ascii" if is_plain else "utf-8"
    return f"Subject: {Header(text, charset, header_name='Subject').encode(linesep=_EOL)}{_EOL}".encode("ascii")


def _unsubscribe(url: str | None) -> bytes:
    """The header fields of one-click unsubscribe (RFC 8058).

    Not left to EmailMessage, which would encode a long URL.
    """
    if url is None:
        return b""
    lines = (f"List-Unsubscribe: <{url}>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click")
    return "".join(f"{line}{_EOL}" for line in lines).encode("ascii")


def _stuffed(data: bytes) -> bytes:
    """As DATA wants it (RFC 5321, section 4.5.2)."""
    return re.sub(rb"(?m)^\.", b"..", data.removesuffix(b"\r\n")) + b"\r\n.\r\n"
