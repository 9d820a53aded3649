"""Address seals: the database stores no readable credential of an address.

An address of a webhook or a chat service that contains credentials (`vocabulary.masking`) is stored as its masked form
followed by the encrypted whole: `https://***@example.com/x sealed:…`. This is its *kept form*. Rows store it, filter by
it and compare it, because AES-SIV (RFC 5297) encrypts equal addresses to equal texts. All other addresses are stored as
they are.

The key is one of the signing keys, encrypted with NOTIFIER_SECRET_KEY. It never changes, so that rows need not be
rewritten when NOTIFIER_SECRET_KEY does. An installation that an older release has filled has no such key, because
processes of that release may still run and could not open sealed addresses. `manage.py rekey` creates the key; until
then nothing is sealed.
"""

import base64
import functools
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from notifier.security.secret_box import CannotDecrypt, Vault
from notifier.security.signing_keys import find_signing_key
from notifier.vocabulary.addresses import sought
from notifier.vocabulary.errors import NotifierError
from notifier.vocabulary.masking import masked, seal_of, with_seal
from notifier.vocabulary.states import Channel

#: The purpose of the key in `signing_keys`.
PURPOSE: Final = "addresses"
#: The channels whose addresses may be sealed.
SEALED_CHANNELS: Final = frozenset({Channel.CHAT, Channel.WEBHOOK})
#: The longest kept form, in characters: an index of Postgres takes 2,704 bytes.
_LONGEST: Final = 2640
#: Seconds for which a process believes that there is no key.
_NO_KEY_FOR: Final = 5.0
#: Seconds after which every process knows of a key that was made.
KNOWN_AFTER: Final = _NO_KEY_FOR + 1
_BOUND_TO: Final = [b"notifier address"]
_OPTION: Final = "address_seals"


class AddressSeals:
    """Seals and opens the addresses of one installation. Used by several threads at once."""

    def __init__(self, engine: Engine | None, vault: Vault) -> None:
        """`engine`: where the key is; None seals nothing."""
        self._engine, self._vault = engine, vault
        self._cipher: AESSIV | None = None
        self._ask_again_at = 0.0
        self._reading = threading.Lock()
        self._opened = functools.lru_cache(maxsize=10_000)(self._open)

    def kept(self, channel: Channel | None, address: str) -> str:
        """Return the kept form of an address in its normal form; of a kept form, that. Without a channel: of a URL.

        Raises CannotDecrypt, Conflict where the key cannot be read, and SQLAlchemyError.
        """
        is_url = ":/" in address and address[0].isalpha()  # a browser's push subscription begins otherwise
        may_be_sealed = is_url if channel is None else channel in SEALED_CHANNELS
        if not may_be_sealed or seal_of(address) is not None or masked(address) == address:
            return address
        cipher = self._key()
        return address if cipher is None else _sealed(cipher, address)

    def opened(self, address: str) -> str:
        """Return the whole of an address in its kept form; any other as it is. Raises CannotDecrypt, Conflict, and
        SQLAlchemyError.
        """
        return address if seal_of(address) is None else self._opened(address)

    def forms(self, channel: Channel | None, address: str) -> tuple[str, ...]:
        """Return the forms in which rows may have an address, the kept form first. Raises SQLAlchemyError.

        Rows of a release before have it whole. Where the key cannot be read it is the given form alone.
        """
        try:
            whole = self.opened(address)
            return tuple(dict.fromkeys((self.kept(channel, whole), whole, address)))
        except NotifierError:
            return (address,)

    def forms_sought(self, channel: Channel | None, text: str) -> tuple[str, ...]:
        """Return the forms in which rows may have an address that somebody looks for (see `addresses.sought`).

        Raises SQLAlchemyError.
        """
        forms = (form for each in sought(channel, text) for form in self.forms(channel, each))
        return tuple(dict.fromkeys(forms))

    def opened_or_kept(self, address: str) -> str:
        """Return the whole of an address, or, where it cannot be opened, its kept form. Raises SQLAlchemyError."""
        try:
            return self.opened(address)
        except NotifierError:
            return address

    def get_ready(self, addresses: Iterable[str | None]) -> None:
        """Read the key if any of the addresses needs it. Raises SQLAlchemyError; later calls do not.

        Call it before opening addresses in code that takes an exception for a fault of the row.
        """
        if any(each is not None and seal_of(each) is not None for each in addresses):
            self.read_key()

    def read_key(self) -> None:
        """Read the key, and encrypt it where it is not yet, as it is after a migration. Raises SQLAlchemyError."""
        with suppress(NotifierError):
            self._key(anew=True)

    def _open(self, address: str) -> str:
        # The address was sealed with a key that this process may not know yet.
        seal, cipher = seal_of(address), self._key(anew=True)
        if seal is None or cipher is None:
            raise CannotDecrypt("An address is sealed with a key that is not in the database.")
        try:
            return cipher.decrypt(base64.b85decode(seal), _BOUND_TO).decode()
        except (InvalidTag, ValueError):
            raise CannotDecrypt("An address is sealed with another key than the one in the database.") from None

    def _key(self, *, anew: bool = False) -> AESSIV | None:
        """Return the key. If there was none lately, look again only when called with `anew`."""
        if self._cipher is None and self._engine is not None and (anew or time.monotonic() >= self._ask_again_at):
            with self._reading:
                if self._cipher is None:
                    key = find_signing_key(self._engine, self._vault, PURPOSE)
                    self._cipher = None if key is None else AESSIV(key)
                    self._ask_again_at = time.monotonic() + _NO_KEY_FOR
        return self._cipher


def _sealed(cipher: AESSIV, address: str) -> str:
    seal = base64.b85encode(cipher.encrypt(address.encode(), _BOUND_TO)).decode()
    shown, room = masked(address), _LONGEST - len(with_seal("", seal))
    return with_seal(shown if len(shown) <= room else f"{shown[: room - 3]}...", seal)


#: Seals nothing, and opens nothing.
NO_SEALS: Final = AddressSeals(None, Vault(()))


def with_seals(engine: Engine, vault: Vault) -> Engine:
    """Return an engine, and let it know how addresses are kept in its database: `seals_of` asks it."""
    engine.update_execution_options(**{_OPTION: AddressSeals(engine, vault)})
    return engine


def seals_of(database: Engine | Connection | Session) -> AddressSeals:
    """Return how addresses are kept where an engine, a connection or a session leads to."""
    if isinstance(database, Session):
        database = database.get_bind()
    found: AddressSeals = database.get_execution_options().get(_OPTION, NO_SEALS)
    return found
