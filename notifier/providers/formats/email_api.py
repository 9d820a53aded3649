"""Email APIs: the common base of vendors' HTTP APIs for email."""

from notifier.providers.dsn import Context
from notifier.providers.formats.mailboxes import Mailbox, NotAMailbox, mailbox
from notifier.providers.formats.mime import Letter, Parties, draft, is_for_every_server, parties_of
from notifier.providers.http.api import CannotSend, HttpApi
from notifier.providers.protocol import Message


class EmailApi(HttpApi):
    """Hands each email to a vendor that does not offer SMTPUTF8 (RFC 6531)."""

    def __init__(self, *, sender: Mailbox, timeout: float) -> None:
        """`sender`: the sender of emails that name none. `timeout`: the seconds that one email may take in all."""
        super().__init__(timeout=timeout)
        self._sender = sender

    def takes(self, recipient: str) -> bool:
        """See Provider."""
        return is_for_every_server(recipient)

    def parties(self, message: Message) -> Parties:
        """Read the sender and the recipient of a message. Raises CannotSend."""
        try:
            found = parties_of(message, self._sender)
        except NotAMailbox:
            raise CannotSend("address: not a mailbox") from None
        self._check(international=found.are_international)
        return found

    def letter(self, message: Message) -> Letter:
        """Write a message as an email, its data plain MIME. Raises CannotSend, and the errors of `mime.draft`."""
        try:
            written = draft(message, self._sender)
        except NotAMailbox:
            raise CannotSend("address: not a mailbox") from None
        self._check(international=written.international)
        return written

    def _check(self, *, international: bool) -> None:
        if international:
            raise CannotSend(f"address: international, and {self.name} does not offer SMTPUTF8")


def default_sender(context: Context) -> Mailbox:
    """Read the mailbox of NOTIFIER_EMAIL_FROM. Raises ValueError."""
    try:
        return mailbox(context.sender)
    except NotAMailbox:
        raise ValueError("has no sender: NOTIFIER_EMAIL_FROM is not a mailbox") from None
