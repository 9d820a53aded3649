"""Standard Webhooks signatures.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, the symmetric
scheme `v1`: HMAC-SHA256 over `{id}.{timestamp}.{body}`, in base64.
"""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

_PREFIX: Final = "whsec_"
_FEWEST_BYTES: Final = 24
_MOST_BYTES: Final = 64
_NEW_BYTES: Final = 32


def key_of(secret: str) -> bytes:
    """The key, 24 to 64 bytes, in a secret as people pass it around: `whsec_<base64>`.

    Raises ValueError, whose message reads on after a setting's name and never repeats the secret.
    """
    wrong = "is not a webhook secret: whsec_ and 24 to 64 bytes in base64"
    if not secret.startswith(_PREFIX):
        raise ValueError(wrong)
    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        raise ValueError(wrong) from None
    if not _FEWEST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(wrong)
    return key


def new_secret() -> str:
    """A new random secret, `whsec_` and 32 bytes in base64."""
    return _PREFIX + b64encode(secrets.token_bytes(_NEW_BYTES)).decode("ascii")


def headers(keys: Sequence[bytes], message_id: UUID | str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a signed webhook; `timestamp` is in seconds since 1970.

    Every key signs, so that receivers of either find theirs while a secret is being rotated.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = (b64encode(hmac.digest(key, signed, sha256)).decode("ascii") for key in keys)
    return {
        "webhook-id": str(message_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
