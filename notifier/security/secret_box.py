"""Secrets at rest: encrypted with a key from the settings, so that a copy of the database alone cannot sign anything.

Uses Fernet (AES-128-CBC and HMAC-SHA256, https://github.com/fernet/spec). The first of several keys encrypts and all of
them decrypt: put a new key in front, encrypt everything with it by `manage.py rekey`, then remove the old one.
"""

import functools
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from notifier.vocabulary.errors import Conflict, NotifierError


class CannotDecrypt(NotifierError):
    """A secret was encrypted with a key that NOTIFIER_SECRET_KEY does not have any more."""


def new_key() -> str:
    """Create a key for the settings: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


class Vault:
    """Encrypts and decrypts secrets; without keys it can do neither."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises ValueError where a key is none."""
        self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None
        #: Whether it can encrypt.
        self.has_key = self._fernet is not None
        self.decrypt = functools.lru_cache(maxsize=20_000)(self._decrypt)

    def encrypt(self, secret: str) -> bytes:
        """Encrypt a secret. Raises Conflict where there is no key."""
        return self._keys().encrypt(secret.encode())

    def rotate(self, token: bytes) -> bytes:
        """Re-encrypt a text with the first key, whichever key encrypted it. Raises CannotDecrypt, Conflict."""
        try:
            return self._keys().rotate(token)
        except InvalidToken:
            raise CannotDecrypt("A secret was encrypted with a key that is not in NOTIFIER_SECRET_KEY.") from None

    def _decrypt(self, token: bytes) -> str:
        """Decrypt a secret. Raises CannotDecrypt, Conflict."""
        try:
            return self._keys().decrypt(token).decode()
        except InvalidToken:
            raise CannotDecrypt("A secret was encrypted with a key that is not in NOTIFIER_SECRET_KEY.") from None

    def _keys(self) -> MultiFernet:
        if self._fernet is None:
            raise Conflict("NOTIFIER_SECRET_KEY is not set: secrets cannot be kept or read without it.")
        return self._fernet
