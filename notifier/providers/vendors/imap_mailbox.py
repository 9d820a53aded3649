"""An IMAP mailbox (RFC 9051), read in batches: `imaps://user:password@host/INBOX`."""

import contextlib
import imaplib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from notifier.providers.vendors.smtp_receipts import READ_AT_MOST

#: Seconds that one batch may take in all.
_DEADLINE: Final = 120.0
#: Seconds that one answer may keep us waiting.
_TIMEOUT: Final = 30.0
_BATCH: Final = 50
_NO_TLS: Final = "offers no TLS, so that no login is sent to it; tls=none in NOTIFIER_BOUNCES would send it unencrypted"
_FORM: Final = "imaps://user:password@host/INBOX, or imap:// with tls=starttls or tls=none"


class MailboxError(Exception):
    """The mailbox cannot be read. The text gives the reason, and never the password."""


@dataclass(frozen=True, slots=True)
class Address:
    """The server of a mailbox, and the login."""

    host: str
    port: int
    #: "implicit", "starttls" or "none".
    tls: str
    username: str = field(repr=False)
    password: str = field(repr=False)
    folder: str
    #: The folder for mails that are read; None: they stay, and are marked as seen.
    move_to: str | None


def parse(text: str) -> Address:
    """Parse an address. Raises ValueError, whose message reads on after a setting's name."""
    try:
        parts = urlsplit(text)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port = parts.port
    except ValueError:
        raise ValueError(f"is not {_FORM}") from None
    if port == 0:
        raise ValueError("has a port on which nothing listens: 0")
    implicit = parts.scheme == "imaps"
    tls = "implicit" if implicit else options.pop("tls", "starttls")
    move_to = options.pop("move", None)
    names = (unquote(parts.path.removeprefix("/")) or "INBOX", move_to or "x")
    if (
        parts.scheme not in {"imap", "imaps"}
        or not parts.hostname
        or not parts.username
        or not parts.password
        or options
    ):
        raise ValueError(f"is not {_FORM}")
    if tls not in {"implicit", "starttls", "none"} or not all(
        re.fullmatch(r"[ !#-\[\]-~]{1,200}", name) for name in names
    ):
        raise ValueError(f"has a tls or a folder that is not of the form {_FORM}")
    return Address(
        parts.hostname,
        port or (993 if implicit else 143),
        tls,
        unquote(parts.username),
        unquote(parts.password),
        names[0],
        move_to,
    )


def read_new(address: Address, take: Callable[[list[bytes]], None], *, deadline: float = _DEADLINE) -> int:
    """Give mails that are not seen yet to `take`, batch by batch, and mark or move them; returns how many there were.

    A batch is marked only once it is taken: what is interrupted comes again. Raises MailboxError, and what `take`
    raises.
    """
    count = 0
    while True:
        taken = _read_batch(address, take, deadline)
        count += taken
        if taken < _BATCH:
            return count


def _read_batch(address: Address, take: Callable[[list[bytes]], None], deadline: float) -> int:
    try:
        with _connected(address, deadline) as imap:
            uids = _unseen(imap)[:_BATCH]
            mails = [_mail(imap, uid) for uid in uids]
            if uids:
                take([mail for mail in mails if mail is not None])
                _put_away(imap, ",".join(uids), address.move_to)
            return len(uids)
    except (imaplib.IMAP4.error, OSError, EOFError) as error:
        raise MailboxError(f"{address.host} does not let its mail be read: {type(error).__name__}") from None


@contextlib.contextmanager
def _connected(address: Address, deadline: float) -> Iterator[imaplib.IMAP4]:
    """Open a session in the folder, which ends at the deadline whatever the server does."""
    context = ssl.create_default_context()
    imap: imaplib.IMAP4
    if address.tls == "implicit":
        imap = imaplib.IMAP4_SSL(address.host, address.port, ssl_context=context, timeout=_TIMEOUT)
    else:
        imap = imaplib.IMAP4(address.host, address.port, timeout=_TIMEOUT)
    watchdog = threading.Timer(deadline, _cut, [imap])
    watchdog.daemon = True
    watchdog.start()
    try:
        if address.tls == "starttls":
            if "STARTTLS" not in imap.capabilities:
                raise MailboxError(f"{address.host} {_NO_TLS}")
            imap.starttls(context)
        imap.login(address.username, address.password)
        _expect(imap.select(f'"{address.folder}"'))
        yield imap
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            imap.logout()
    finally:
        watchdog.cancel()
        with contextlib.suppress(OSError):
            imap.shutdown()


def _cut(imap: imaplib.IMAP4) -> None:
    with contextlib.suppress(OSError):
        imap.socket().shutdown(2)


def _expect(answer: tuple[str, list[bytes | None] | list[bytes] | list[None]]) -> list[bytes]:
    """Return the data of an answer. Raises IMAP4.error if the server refuses."""
    status, data = answer
    if status != "OK":
        raise imaplib.IMAP4.error(status)
    return [item for item in data if item is not None]


def _unseen(imap: imaplib.IMAP4) -> list[str]:
    """Return the unseen emails, oldest first."""
    found = _expect(imap.uid("search", "UNSEEN"))
    return [uid for item in found for uid in item.decode("ascii", "replace").split() if uid.isdigit()]


def _mail(imap: imaplib.IMAP4, uid: str) -> bytes | None:
    """Return the beginning of an email; None if it is gone. It stays unseen."""
    status, data = imap.uid("fetch", uid, f"(BODY.PEEK[]<0.{READ_AT_MOST}>)")
    if status != "OK":
        raise imaplib.IMAP4.error(status)
    return next((bytes(item[1]) for item in data if isinstance(item, tuple)), None)


def _put_away(imap: imaplib.IMAP4, uids: str, folder: str | None) -> None:
    """Mark mails as seen, and move them where that is wanted."""
    _expect(imap.uid("store", uids, "+FLAGS", r"(\Seen)"))
    if folder is None:
        return
    if "MOVE" in imap.capabilities:
        _expect(imap.uid("move", uids, f'"{folder}"'))
        return
    _expect(imap.uid("copy", uids, f'"{folder}"'))
    _expect(imap.uid("store", uids, "+FLAGS", r"(\Deleted)"))
    if "UIDPLUS" in imap.capabilities:  # else they stay, deleted, for whoever expunges: others' would go too
        _expect(imap.uid("expunge", uids))
