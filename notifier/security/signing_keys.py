"""Signing keys in the database, one for each purpose: they outlive settings, so that signatures stay valid.

A key is random, created by the first process that needs it, and encrypted (notifier.security.secret_box) if
NOTIFIER_SECRET_KEY is set. Unencrypted keys of an earlier release are read as well; `manage.py rekey` encrypts them.
"""

import os
from typing import Final

from sqlalchemy import Engine, text

from notifier.security.secret_box import Vault

_BYTES: Final = 32
#: How every encrypted key begins: Fernet's version 0x80, in base64. No random key is as long as one.
_SEALED: Final = b"gAAAAA"

_READ: Final = text("SELECT secret FROM signing_keys WHERE purpose = :purpose")
_MAKE: Final = text("""
    INSERT INTO signing_keys (purpose, secret, created_at) VALUES (:purpose, :secret, now()) ON CONFLICT DO NOTHING
""")
_ALL: Final = text("SELECT purpose, secret FROM signing_keys ORDER BY purpose FOR UPDATE")
_REPLACE: Final = text("UPDATE signing_keys SET secret = :sealed WHERE purpose = :purpose AND secret = :secret")


def is_sealed(secret: bytes) -> bool:
    """Return whether a stored key is encrypted."""
    return len(secret) > 2 * _BYTES and secret.startswith(_SEALED)


def signing_key(engine: Engine, vault: Vault, purpose: str, *, seal: bool = False) -> bytes:
    """Return the key for a purpose, and create it if there is none.

    `seal`: encrypt a key that is not encrypted yet; only for purposes that no release without decryption reads. Raises
    CannotDecrypt, Conflict if the key is encrypted and there is no key for it, and SQLAlchemyError.
    """
    with engine.connect() as connection:
        stored = connection.scalar(_READ, {"purpose": purpose})
    if stored is None:
        made = os.urandom(_BYTES)
        with engine.begin() as connection:
            connection.execute(_MAKE, {"purpose": purpose, "secret": _kept(vault, made)})
            stored = connection.scalar(_READ, {"purpose": purpose})
    secret = bytes(stored)
    if is_sealed(secret):
        return bytes.fromhex(vault.decrypt(secret))
    if seal and vault.has_key:
        with engine.begin() as connection:
            connection.execute(_REPLACE, {"purpose": purpose, "secret": secret, "sealed": _kept(vault, secret)})
    return secret


def find_signing_key(engine: Engine, vault: Vault, purpose: str) -> bytes | None:
    """Return the key for a purpose, or None. Encrypts a key that is not encrypted yet, if possible.

    Raises the same errors as `signing_key`.
    """
    return signing_key(engine, vault, purpose, seal=True) if is_there(engine, purpose) else None


def is_there(engine: Engine, purpose: str) -> bool:
    """Tell whether there is a key for a purpose."""
    with engine.connect() as connection:
        return connection.scalar(_READ, {"purpose": purpose}) is not None


def _kept(vault: Vault, secret: bytes) -> bytes:
    return vault.encrypt(secret.hex()) if vault.has_key else secret


def reseal(engine: Engine, vault: Vault) -> int:
    """Encrypt every key with the first key of the vault; returns how many there are. Raises CannotDecrypt, Conflict."""
    with engine.begin() as connection:
        rows = connection.execute(_ALL).all()
        for row in rows:
            secret = bytes(row.secret)
            sealed = vault.rotate(secret) if is_sealed(secret) else vault.encrypt(secret.hex())
            connection.execute(_REPLACE, {"purpose": row.purpose, "secret": secret, "sealed": sealed})
    return len(rows)


def plain(engine: Engine) -> list[str]:
    """Return the purposes whose keys are stored unencrypted."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT purpose, secret FROM signing_keys ORDER BY purpose")).all()
    return [str(row.purpose) for row in rows if not is_sealed(bytes(row.secret))]
