"""Signing keys in the database, one for each purpose: they outlive settings, so that signatures stay valid.

A key is random, created by the first process that needs it, and encrypted (notifier.security.secret_box) if
NOTIFIER_SECRET_KEY is set. Unencrypted keys of an earlier release are read as well; `manage.py rekey` encrypts them.
"""

import os
from typing import Final

from sqlalchemy import Connection, Engine, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert

from notifier.models import SigningKey
from notifier.security.secret_box import Vault

_BYTES: Final = 32
#: How every encrypted key begins: Fernet's version 0x80, in base64. No random key is as long as one.
_SEALED: Final = b"gAAAAA"

_ALL: Final = select(SigningKey.purpose, SigningKey.secret).order_by(SigningKey.purpose)


def is_sealed(secret: bytes) -> bool:
    """Return whether a stored key is encrypted."""
    return len(secret) > 2 * _BYTES and secret.startswith(_SEALED)


def signing_key(engine: Engine, vault: Vault, purpose: str, *, seal: bool = False) -> bytes:
    """Return the key for a purpose, and create it if there is none.

    `seal`: encrypt a key that is not encrypted yet; only for purposes that no release without decryption reads. Raises
    CannotDecrypt, Conflict if the key is encrypted and there is no key for it, and SQLAlchemyError.
    """
    with engine.connect() as connection:
        secret = connection.scalar(_select(purpose))
    if secret is None:
        made = {"purpose": purpose, "secret": _kept(vault, os.urandom(_BYTES)), "created_at": func.now()}
        with engine.begin() as connection:
            connection.execute(insert(SigningKey).values(made).on_conflict_do_nothing())
            secret = connection.scalars(_select(purpose)).one()
    if is_sealed(secret):
        return bytes.fromhex(vault.decrypt(secret))
    if seal and vault.has_key:
        with engine.begin() as connection:
            _replace(connection, purpose, secret, _kept(vault, secret))
    return secret


def find_signing_key(engine: Engine, vault: Vault, purpose: str) -> bytes | None:
    """Return the key for a purpose, or None. Encrypts a key that is not encrypted yet, if possible.

    Raises the same errors as `signing_key`.
    """
    return signing_key(engine, vault, purpose, seal=True) if is_there(engine, purpose) else None


def is_there(engine: Engine, purpose: str) -> bool:
    """Tell whether there is a key for a purpose."""
    with engine.connect() as connection:
        return connection.scalar(_select(purpose)) is not None


def _select(purpose: str) -> Select[bytes]:
    return select(SigningKey.secret).where(SigningKey.purpose == purpose)


def _replace(connection: Connection, purpose: str, old: bytes, new: bytes) -> None:
    """Replace a stored key, unless somebody else has done so since it was read."""
    statement = update(SigningKey).where(SigningKey.purpose == purpose, SigningKey.secret == old)
    connection.execute(statement.values(secret=new))


def _kept(vault: Vault, secret: bytes) -> bytes:
    return vault.encrypt(secret.hex()) if vault.has_key else secret


def reseal(engine: Engine, vault: Vault) -> int:
    """Encrypt every key with the first key of the vault; returns how many there are. Raises CannotDecrypt, Conflict."""
    with engine.begin() as connection:
        rows = connection.execute(_ALL.with_for_update()).all()
        for purpose, secret in rows:
            sealed = vault.rotate(secret) if is_sealed(secret) else vault.encrypt(secret.hex())
            _replace(connection, purpose, secret, sealed)
    return len(rows)


def plain(engine: Engine) -> list[str]:
    """Return the purposes whose keys are stored unencrypted."""
    with engine.connect() as connection:
        return [purpose for purpose, secret in connection.execute(_ALL) if not is_sealed(secret)]
