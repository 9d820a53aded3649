"""Return paths of our own (VERP): an address for the bounces of one email, which identifies that email.

`bounce@example.com` becomes `bounce+TOKEN@example.com`. The token is the notification's id and an HMAC of it, in
base32, since mail systems may write local parts in lower case. Nobody who has not seen the email can make it bounce.
The key is stored in the database, since bounces outlive settings.
"""

import hashlib
import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

from sqlalchemy import Engine

from notifier.providers.dsn import Dsn
from notifier.providers.formats.mailboxes import NotAMailbox, bare_mailbox
from notifier.security.secret_box import Vault
from notifier.security.signing_keys import signing_key

PURPOSE: Final = "bounces"
#: Bytes of the HMAC.
_MAC: Final = 10
#: Characters of a token, and of a local part (RFC 5321, section 4.5.3.1.1).
_LENGTH: Final = 42
_LONGEST: Final = 64 - _LENGTH - 1


class ReturnPaths:
    """Makes and reads return paths at one mailbox. Used by several threads at once."""

    def __init__(self, address: str, engine: Engine, vault: Vault) -> None:
        """`address`: the mailbox that they lead to. Raises ValueError."""
        try:
            mailbox = bare_mailbox(address)
        except NotAMailbox:
            raise ValueError("has bounces that are no mailbox: bounces=bounce@example.com") from None
        if not mailbox.username.isascii() or len(mailbox.username) > _LONGEST:
            raise ValueError(f"has bounces whose local part is not 1 to {_LONGEST} characters of ASCII")
        self._local, _, self._domain = mailbox.addr_spec.rpartition("@")
        self._engine, self._vault = engine, vault
        self._key: bytes | None = None
        self._pattern = re.compile(
            rf"(?<![^\s<:;,\"]){re.escape(self._local)}\+([a-z2-7]{{{_LENGTH}}})@{re.escape(self._domain)}(?![a-z0-9.-]*[a-z0-9])",
            re.IGNORECASE,
        )

    def of(self, notification_id: UUID) -> str:
        """Return a notification's return path. The first call reads the key, and raises the database's errors."""
        token = b32encode(notification_id.bytes + self._mac(notification_id.bytes)).decode().rstrip("=").lower()
        return f"{self._local}+{token}@{self._domain}"

    def read(self, texts: Iterable[str]) -> UUID | None:
        """Return the notification of our first return path in some texts; None if there is none."""
        for found in self._candidates(texts):
            raw = b32decode(found.upper() + "=" * (-len(found) % 8))
            if hmac.compare_digest(raw[16:], self._mac(raw[:16])):
                return UUID(bytes=raw[:16])
        return None

    def _candidates(self, texts: Iterable[str]) -> Iterator[str]:
        for each in texts:
            yield from self._pattern.findall(each)

    def _mac(self, data: bytes) -> bytes:
        if self._key is None:
            self._key = signing_key(self._engine, self._vault, PURPOSE)
        return hmac.new(self._key, data, hashlib.sha256).digest()[:_MAC]


def bounces_of(dsn: Dsn) -> str | None:
    """Return the mailbox to which the bounces of an SMTP server's emails go, where its DSN names one."""
    named = dsn.query.get("bounces")
    return None if named is None else named.replace(" ", "+")  # a plus that a query turned into a space
