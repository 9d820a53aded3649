"""Credentials at rest: a column stores the masked form of a URL or of headers, and a second one the encrypted whole.

`masking` decides what a credential is: masked parts are sealed, everything else is stored as it is. A seal includes the
masked form that it belongs to. Where the column differs, a release that knows no seals has changed it since, and the
column is right.
"""

from collections.abc import Mapping

import orjson

from notifier.security.secret_box import Vault
from notifier.vocabulary.masking import masked, masked_headers


def seal_url(vault: Vault, url: str) -> tuple[str, bytes | None]:
    """Return the stored form of a URL: the readable part, and the seal if that is not all.

    Raises Conflict if there is something to seal and no key.
    """
    shown = masked(url)
    return shown, None if shown == url else _seal(vault, shown, url)


def open_url(vault: Vault, kept: str, sealed: bytes | None) -> str:
    """Return the whole of a URL. Raises CannotDecrypt, Conflict, and ValueError where the seal is none of ours."""
    return _open(vault, kept, sealed)


def seal_headers(vault: Vault, headers: Mapping[str, str]) -> tuple[str, bytes | None]:
    """Return the stored form of headers, as JSON: names with `***`, and the seal if there are credentials.

    Raises Conflict if there is something to seal and no key.
    """
    whole, shown = (orjson.dumps(each).decode() for each in (dict(headers), masked_headers(headers)))
    return shown, None if shown == whole else _seal(vault, shown, whole)


def open_headers(vault: Vault, kept: str, sealed: bytes | None) -> dict[str, str]:
    """Return headers, name → value. Raises CannotDecrypt, Conflict, and the errors of malformed JSON."""
    return dict(orjson.loads(_open(vault, kept, sealed)))


def _seal(vault: Vault, shown: str, whole: str) -> bytes:
    return vault.encrypt(orjson.dumps([shown, whole]).decode())


def _open(vault: Vault, kept: str, sealed: bytes | None) -> str:
    if sealed is None:
        return kept
    shown, whole = orjson.loads(vault.decrypt(bytes(sealed)))
    return str(whole) if shown == kept else kept
