"""Standard Webhooks signatures: sign and verify.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, the symmetric scheme `v1`:
HMAC-SHA256 over `{id}.{timestamp}.{body}`, in base64.
"""

import hmac
import re
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

from notifier.vocabulary.errors import NotifierError
from notifier.vocabulary.uris import host_and_port

#: How far a webhook's timestamp may be from its receiver's clock, either way, in seconds.
TOLERANCE: Final = 300

_ID: Final = "webhook-id"
_TIMESTAMP: Final = "webhook-timestamp"
_SIGNATURE: Final = "webhook-signature"
_VERSION: Final = "v1,"
_PREFIX: Final = "whsec_"
_FEWEST_BYTES: Final = 24
_MOST_BYTES: Final = 64
_NEW_BYTES: Final = 32
#: Separates derivations from signatures, which begin with an id.
_DERIVATION: Final = b"notifier webhook host\0"


class NotVerified(NotifierError):
    """A webhook is not proven to come from a holder of the secret, or not to be fresh; the message says which.

    The message repeats nothing of the webhook.
    """


def key_of(secret: str) -> bytes:
    """Return the key, 24 to 64 bytes, of a secret in its usual form `whsec_<base64>`.

    Raises ValueError, whose message continues a setting's name and never repeats the secret.
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


def secret_of_host(key: bytes, host: str) -> str:
    """Derive the secret of webhooks that are addressed to a host directly, from NOTIFIER_WEBHOOK_SECRET's key.

    `host` as `uris.host_and_port` returns it. A receiver that has its own secret cannot compute another's.
    """
    return _PREFIX + b64encode(_key_of_host(key, host)).decode("ascii")


def key_for(key: bytes, url: str) -> bytes:
    """Return the key of `secret_of_host` for a URL. Raises ValueError if the URL has no host."""
    return _key_of_host(key, host_and_port(url))


def _key_of_host(key: bytes, host: str) -> bytes:
    return hmac.digest(key, _DERIVATION + host.encode(), sha256)


def new_secret() -> str:
    """Create a random secret: `whsec_` and 32 bytes in base64."""
    return _PREFIX + b64encode(secrets.token_bytes(_NEW_BYTES)).decode("ascii")


def headers(keys: Sequence[bytes], message_id: UUID | str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of a signed webhook; `timestamp` is in seconds since 1970.

    Every key signs, so that during a rotation receivers with either secret find their signature.
    """
    return {
        _ID: str(message_id),
        _TIMESTAMP: str(timestamp),
        _SIGNATURE: " ".join(_signature(key, str(message_id), str(timestamp), body) for key in keys),
    }


def verify(keys: Sequence[bytes], received: Mapping[str, str], body: bytes, *, now: float | None = None) -> None:
    """Return where a webhook was signed with one of the keys and is fresh; else raise NotVerified.

    `received` are its headers, their names in any case; `body` its bytes as they came, not parsed and written anew;
    `now` the receiver's clock in seconds since 1970, by default this machine's.

    1. `webhook-id`, `webhook-timestamp` and `webhook-signature` are there, and the timestamp is a whole number.
    2. Of the signatures, which spaces separate, one is `v1,` and the base64 of HMAC-SHA256 over
       `{id}.{timestamp}.{body}` under one of the keys. Other versions are passed over. The comparison takes the same
       time wherever they differ.
    3. The timestamp is at most TOLERANCE seconds from `now`, before or after. It is asked last, so that an old
       webhook is told from a forged one.
    """
    named = {name.lower(): value for name, value in received.items()}
    for name in (_ID, _TIMESTAMP, _SIGNATURE):
        if not named.get(name):
            raise NotVerified(f"it has no {name}")
    message_id, timestamp, signatures = named[_ID], named[_TIMESTAMP], named[_SIGNATURE]
    if not re.fullmatch(r"[0-9]{1,15}", timestamp):
        raise NotVerified(f"its {_TIMESTAMP} is not a number of seconds")
    expected = [_signature(key, message_id, timestamp, body).encode() for key in keys]
    offered = [each.encode(errors="replace") for each in signatures.split(" ") if each.startswith(_VERSION)]
    if not offered:
        raise NotVerified(f"its {_SIGNATURE} has none of version 1")
    if not any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in offered):
        raise NotVerified("no signature fits: it was signed with another secret, or changed on the way")
    age = (time.time() if now is None else now) - int(timestamp)
    if abs(age) > TOLERANCE:
        when = f"{age:.0f} s ago" if age > 0 else f"{-age:.0f} s ahead of this clock"
        raise NotVerified(f"it was signed {when}, and {TOLERANCE} s are allowed")


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode(errors="replace") + body
    return _VERSION + b64encode(hmac.digest(key, signed, sha256)).decode("ascii")
