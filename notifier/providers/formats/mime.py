"""MIME messages for SMTP: an envelope (RFC 5321) around a MIME message (RFC 5322, RFC 2045)."""

import re
from base64 import encodebytes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final
from uuid import uuid4

from notifier.providers.formats import header_check as check
from notifier.providers.formats.email_headers import (
    EOL,
    file_name,
    mailbox_field,
    parameters_field,
    subject_field,
    subject_text,
)
from notifier.providers.formats.mailboxes import Mailbox, bare_mailbox, mailbox
from notifier.providers.protocol import Attachment, Message
from notifier.vocabulary.uris import ascii_uri

# The email package writes bodies alone. Everything is encoded to seven bits, so that the server's extensions and the
# length of lines do not matter.
_POLICY: Final = policy.SMTP.clone(cte_type="7bit")
#: Types that may not be encoded like a file (RFC 2046, section 5), and would be taken for a part of the email itself.
_STRUCTURES: Final = frozenset({"multipart", "message"})
#: Octets of a value on one line: 998 may stand on it with the field's name (RFC 5322, section 2.1.1).
_LONGEST_VALUE: Final = 900
#: The longest line that the email package leaves as it is, and the fields that it writes for a text of such lines.
_LONGEST_LINE: Final = _POLICY.max_line_length or 0
_PLAIN_HEAD: Final = b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n'
_LINKS: Final = frozenset({"List-Unsubscribe"})
#: The fields after our own: they describe the content alone.
_CONTENT_FIELDS: Final = (("Content-Type",), ("Content-Type", "Content-Transfer-Encoding"))


class Unwritable(ValueError):
    """A header would not have the intended meaning, so the letter may not go out, now or later."""


@dataclass(frozen=True, slots=True)
class Letter:
    """The email that is sent for one message."""

    #: Envelope addresses.
    sender: str
    recipient: str
    #: The message with CRLF line ends; from `write` with its leading dots doubled and the line with a dot that ends it.
    data: bytes
    #: It can only go through a server that offers SMTPUTF8 (RFC 6531).
    international: bool


@dataclass(frozen=True, slots=True)
class Parties:
    """The sender and the recipient of a message, and the mailbox for answers."""

    sender: Mailbox
    recipient: Mailbox
    reply_to: Mailbox | None

    @property
    def are_international(self) -> bool:
        """Return whether any of the addresses needs a server that offers SMTPUTF8 (RFC 6531)."""
        parties = (self.sender, self.recipient, self.reply_to)
        return any(each is not None and not each.username.isascii() for each in parties)


def parties_of(message: Message, sender: Mailbox) -> Parties:
    """Read the sender and the recipient of a message; `sender` is the default sender. Raises NotAMailbox."""
    return Parties(
        sender if message.sender is None else mailbox(message.sender),
        bare_mailbox(message.recipient),
        None if message.reply_to is None else mailbox(message.reply_to),
    )


def is_for_every_server(recipient: str) -> bool:
    """Return whether an address needs no server that offers SMTPUTF8. A text that is no mailbox may give True too."""
    return recipient.rpartition("@")[0].isascii()


def write(message: Message, sender: Mailbox) -> Letter:
    """Write a message as a letter for SMTP's DATA. Raises what `draft` raises."""
    letter = draft(message, sender)
    return replace(letter, data=_stuffed(letter.data))


def draft(message: Message, sender: Mailbox) -> Letter:
    """Write a message as a letter, its data plain MIME. Its Message-ID is the same in every attempt.

    Raises NotAMailbox where its recipient is none, Unwritable, and whatever else the email package has to say.
    """
    parties = parties_of(message, sender)
    mailboxes = {"From": parties.sender, "To": parties.recipient}
    if parties.reply_to is not None:
        mailboxes["Reply-To"] = parties.reply_to
    date = format_datetime(datetime.now(UTC))
    plain = {"Date": date, **own_fields(message, parties.sender), "MIME-Version": "1.0"}
    subject = "" if message.subject is None else subject_field(message.subject)
    head = subject + "".join(mailbox_field(name, each) for name, each in mailboxes.items())
    head += "".join(f"{name}: {_in_lines(value)}{EOL}" for name, value in plain.items())
    data = head.encode() + _body(message)
    _check_head(data.partition(b"\r\n\r\n")[0] + b"\r\n", message.subject, mailboxes, plain)
    return Letter(parties.sender.addr_spec, parties.recipient.addr_spec, data, parties.are_international)


def own_fields(message: Message, sender: Mailbox) -> dict[str, str]:
    """Return the header fields that we write ourselves: their values are ASCII, on one line each."""
    fields = {
        "Message-ID": f"<{message.id}@{sender.domain}>",  # the same in every attempt
        "Auto-Submitted": "auto-generated",  # RFC 3834: so that no vacation notice comes back
    }
    if message.unsubscribe is not None:  # one click (RFC 8058)
        fields["List-Unsubscribe"] = f"<{ascii_uri(message.unsubscribe)}>"
        fields["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return fields


def _in_lines(value: str) -> str:
    """Fold a value into lines that SMTP can carry. Links alone are so long, and RFC 2369 ignores spaces in them."""
    return f"{EOL} ".join(value[at : at + _LONGEST_VALUE] for at in range(0, len(value), _LONGEST_VALUE))


def _check_head(head: bytes, subject: str | None, mailboxes: dict[str, Mailbox], plain: dict[str, str]) -> None:
    """Raise Unwritable unless a strict reader finds exactly what was meant, each field once and in order."""
    meant: list[tuple[str, object]] = [] if subject is None else [("Subject", subject_text(subject))]
    meant += [(name, (each.display_name, each.addr_spec)) for name, each in mailboxes.items()]
    meant += plain.items()
    readers = dict.fromkeys(mailboxes, check.mailbox_of) | {"Subject": check.text_of}
    found: list[tuple[str, object]] = []
    try:
        for name, value in check.fields_of(head):
            read = readers.get(name)
            found.append((name, read(value) if read else value.replace(" ", "") if name in _LINKS else value))
    except check.Malformed as error:
        raise Unwritable(str(error)) from None
    of_content = tuple(name for name, _ in found[len(meant) :])
    if found[: len(meant)] != meant or of_content not in _CONTENT_FIELDS:
        raise Unwritable("a field does not say what was meant")


def _plain(text: str) -> bytes | None:
    """Write a text of seven bits and short lines as the email package does, in a hundredth of its time, or return None.

    The tests hold it to the package: `test_a_plain_text_is_what_the_email_package_writes`.
    """
    if not text.isascii():
        return None
    lines = text.encode().splitlines()
    if any(len(line) > _LONGEST_LINE for line in lines):
        return None
    return _PLAIN_HEAD + EOL.encode().join(lines) + EOL.encode()


def _written(text: str, html: str | None) -> bytes:
    """Have the email package write a text, and its other form."""
    mail = EmailMessage(policy=_POLICY)
    mail.set_content(text)
    if html is not None:
        mail.add_alternative(html, subtype="html")
    del mail["MIME-Version"]
    return mail.as_bytes()


def _body(message: Message) -> bytes:
    """Return the fields of the content, and the content, without a Mime-Version."""
    plain = _plain(message.text) if message.html is None else None
    text = _written(message.text, message.html) if plain is None else plain
    if not message.attachments:
        return text
    boundary = f"=_{uuid4().hex}"  # nobody who writes a message can know it
    head = parameters_field("Content-Type", "multipart/mixed", [f'boundary="{boundary}"'])
    parts = [text, *map(_part, message.attachments)]
    delimiter = f"{EOL}--{boundary}"
    return b"".join(
        (
            head.encode(),
            *(f"{delimiter}{EOL}".encode() + part for part in parts),
            f"{delimiter}--{EOL}".encode(),
        )
    )


def _part(attachment: Attachment) -> bytes:
    """Return a file as a part of an email. Raises Unwritable."""
    kind, *given = re.split(r"; *", attachment.content_type)
    if kind.partition("/")[0].lower() in _STRUCTURES:
        kind, given = "application/octet-stream", []
    head = parameters_field("Content-Type", kind, given)
    head += f"Content-Transfer-Encoding: base64{EOL}"
    head += parameters_field("Content-Disposition", "attachment", file_name(attachment.name))
    _check_part(head.encode(), attachment, kind, given)
    return f"{head}{EOL}".encode() + encodebytes(attachment.content).replace(b"\n", b"\r\n")


def _check_part(head: bytes, attachment: Attachment, kind: str, given: Sequence[str]) -> None:
    """Raise Unwritable unless a strict reader finds the type and the name that were meant."""
    try:
        found = [(name, check.parameters_of(value)) for name, value in check.fields_of(head)]
    except check.Malformed as error:
        raise Unwritable(str(error)) from None
    [(_, (found_kind, found_given)), *rest] = found
    meant = [
        ("Content-Transfer-Encoding", ("base64", {})),
        ("Content-Disposition", ("attachment", {"filename": attachment.name})),
    ]
    wanted = dict(each.lower().split("=", 1) for each in given if "=" in each)
    if found_kind != kind or found_given.keys() != wanted.keys() or len(given) != len(wanted) or rest != meant:
        raise Unwritable("a field of a part does not say what was meant")


def _stuffed(data: bytes) -> bytes:
    """Return the text dot-stuffed for DATA (RFC 5321, section 4.5.2)."""
    return re.sub(rb"(?m)^\.", b"..", data.removesuffix(b"\r\n")) + b"\r\n.\r\n"
