"""Sessions of the console: a signed cookie that names an API key by its hash, and a token for the forms of its pages.

Nothing is stored: a session ends by its age, or once its key is revoked or expires. It cannot be used as an API key,
since it holds the hash of one, and the hash opens nothing without the signature.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer

COOKIE: Final = "notifier_console"
#: The signing key's purpose (notifier.security.signing_keys).
PURPOSE: Final = "console"
_NONCE_BYTES: Final = 16
#: How long a notice waits for its page.
NOTICE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """One browser's session. Without a key it is of a console that asks for none."""

    #: Random: the forms' token is derived from it.
    nonce: str
    #: SHA-256 of the API key.
    key_hash: bytes | None = None


def new_session(key_hash: bytes | None = None) -> BrowserSession:
    """Begin a session."""
    return BrowserSession(secrets.token_urlsafe(_NONCE_BYTES), key_hash)


class Sessions:
    """Writes sessions into cookies and reads them."""

    def __init__(self, secret: bytes, lifetime: timedelta) -> None:
        self._secret, self.seconds = secret, int(lifetime.total_seconds())
        self._serializer = URLSafeTimedSerializer(secret, salt=PURPOSE)
        self._notices = URLSafeTimedSerializer(secret, salt="notice")

    def written(self, session: BrowserSession) -> str:
        """Return the cookie of a session."""
        key = None if session.key_hash is None else base64.b85encode(session.key_hash).decode()
        return str(self._serializer.dumps([session.nonce, key]))

    def read(self, cookie: str | None) -> BrowserSession | None:
        """Return the session in a cookie; None where it is not one of ours, or has ended."""
        if cookie is None:
            return None
        try:
            nonce, key = self._serializer.loads(cookie, max_age=self.seconds)
            return BrowserSession(str(nonce), None if key is None else base64.b85decode(key))
        except (BadData, ValueError, TypeError, binascii.Error):
            return None

    def sealed_notice(self, kind: str, text: str) -> str:
        """Return a notice as a cookie carries it, so that nobody else can put words on a page of ours."""
        return str(self._notices.dumps([kind, text]))

    def notice(self, sealed: str) -> tuple[str, str] | None:
        """Return the kind and the text of a notice in a cookie; None where it is not one of ours, or is old."""
        try:
            kind, text = self._notices.loads(sealed, max_age=NOTICE_SECONDS)
            return str(kind), str(text)
        except (BadData, ValueError, TypeError):
            return None

    def token(self, session: BrowserSession) -> str:
        """Return the token that every form of a session's pages carries."""
        return hmac.new(self._secret, b"form:" + session.nonce.encode(), hashlib.sha256).hexdigest()

    def is_token(self, session: BrowserSession, given: str) -> bool:
        """Tell whether a form brings the session's token."""
        return hmac.compare_digest(self.token(session).encode(), given.encode())
