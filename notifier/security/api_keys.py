"""API keys: create, rotate, list and revoke them, and look them up by their hash.

A key is compared by its SHA-256, in an index. The comparison takes longer the more leading bytes match a stored hash,
but that reveals nothing useful: a caller without the key cannot choose its hash, and knowing some bytes of a hash does
not help to find 256 random bits.
"""

import hashlib
import math
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from notifier.models import ApiKey
from notifier.security.permits import EVERYTHING, Permit
from notifier.vocabulary.errors import Conflict, Invalid
from notifier.vocabulary.ids import new_id

#: The prefix of a key, so that secret scanners can recognise it.
PREFIX: Final = "ntf_"
#: How long the previous secret is valid after a rotation, by default.
OVERLAP: Final = timedelta(hours=24)


class Scope(StrEnum):
    """A permission of a key."""

    #: Post events and notifications, and cancel.
    SEND = "send"
    #: Read.
    READ = "read"
    #: Change people: users, their preferences, the suppression list. A part of ADMIN.
    USERS = "users"
    #: Save templates. A part of ADMIN.
    TEMPLATES = "templates"
    #: Post critical notifications, which pass opt-outs and quiet hours. Needs SEND as well. Included in ADMIN.
    CRITICAL = "critical"
    #: Send again: requeue dead letters, resend notifications, recover subscriptions. A part of ADMIN.
    REQUEUE = "requeue"
    #: The rest, and all that its parts may do.
    ADMIN = "admin"


#: Scopes that ADMIN includes, and that may also be granted alone.
PARTS_OF_ADMIN: Final = frozenset({Scope.CRITICAL, Scope.USERS, Scope.TEMPLATES, Scope.REQUEUE})


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: its key's name, the source that it posts as, and its permissions."""

    name: str
    scopes: frozenset[Scope]
    #: The `source` of its posts, and the owner of records that it names by keys and ids. Several keys may share one.
    source: str
    #: Requests a second at the most.
    rate: int | None = None
    #: Seconds for which the secret that was shown is good, unless it is revoked or rotated.
    good_for: float = math.inf
    permit: Permit = EVERYTHING

    def may(self, scope: Scope) -> bool:
        """Return whether the caller has a scope."""
        return scope in self.scopes or (scope in PARTS_OF_ADMIN and Scope.ADMIN in self.scopes)

    @property
    def bounds(self) -> str | None:
        """The source whose events and notifications it may act on; None for those of all sources."""
        return None if Scope.ADMIN in self.scopes else self.source

    def owns(self, source: str | None) -> bool:
        """Return whether it may act on an event or notification of that source."""
        return self.bounds is None or self.bounds == source


#: The caller where no key is required.
ANONYMOUS: Final = Caller("anonymous", frozenset(Scope), "anonymous")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: The sources of posts without a key, and of our own events.
_RESERVED: Final = (ANONYMOUS.source, "notifier")
_RESERVED_WORDS: Final = " or ".join(map(repr, _RESERVED))


def hash_of(key: str) -> bytes:
    """Return the hash that is stored for a key. Keys are 256 random bits: a plain SHA-256 cannot be searched."""
    return hashlib.sha256(key.encode()).digest()


def _new() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise Invalid({"expires": ["Not in the future."]})


def create(
    engine: Engine,
    name: str,
    scopes: Sequence[str],
    *,
    source: str | None = None,
    permit: Permit = EVERYTHING,
    expires_at: datetime | None = None,
    rate: int | None = None,
) -> str:
    """Create a key and return it; it is not shown again.

    `source`: the source that it shares with other keys; None: one of its own, with its name. `permit`: the channels and
    event types that it may use. `rate`: at most so many requests a second, of all API processes together. Raises
    Invalid, or Conflict if the name is taken: by a key, or as the source of another key, which the new key would share
    unintentionally.
    """
    for field, given in (("name", name), ("source", source)):
        if given is not None and (not _NAME.fullmatch(given) or given in _RESERVED):
            words = f"1 to 64 letters, digits, dots, dashes and underscores, and not {_RESERVED_WORDS}."
            raise Invalid({field: [words]})
    unknown = sorted(set(scopes) - set(Scope))
    if unknown or not scopes:
        known = f"known are {', '.join(Scope)}"
        raise Invalid(
            {"scope": [f"Not a scope: {unknown[0]!r}; {known}." if unknown else f"Give at least one; {known}."]}
        )
    if rate is not None and rate < 1:
        raise Invalid({"rate": ["At least 1 request a second."]})
    _check_expiry(expires_at)
    key = _new()
    row = ApiKey(
        id=new_id(),
        name=name,
        source=source,
        key_hash=hash_of(key),
        scopes=sorted(set(scopes)),
        channels=None if permit.channels is None else sorted(permit.channels),
        event_types=None if permit.event_types is None else list(permit.event_types),
        created_at=datetime.now(UTC),
        expires_at=expires_at,
        rate=rate,
    )
    try:
        with Session(engine) as session, session.begin():
            if source is None:
                _check_source(session, name)
            session.add(row)
    except IntegrityError:
        raise Conflict(f"There is a key named {name!r} already; names are not used again.") from None
    return key


def _check_source(session: Session, name: str) -> None:
    """Raise Conflict where a key's own name is the source of another key."""
    other = session.scalar(select(ApiKey.name).where(ApiKey.source == name, ApiKey.name != name).limit(1))
    if other is not None:
        raise Conflict(
            f"{name!r} is the source of the key {other!r}: --source {name} shares it, another name does not."
        )


def rotate(
    engine: Engine, name: str, overlap: timedelta = OVERLAP, *, expires_at: datetime | None = None
) -> str | None:
    """Give a key another secret, and return it; None where no key of this name is in use.

    The one before works until `overlap` has passed, one from before that no longer. `expires_at`: when the key ends
    from now on; None: when it did before. Raises Invalid, or Conflict where it has ended already.
    """
    _check_expiry(expires_at)
    key = _new()
    with Session(engine) as session, session.begin():
        row = session.scalar(select(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None)).with_for_update())
        if row is None:
            return None
        now = session.execute(select(func.now())).scalar_one()
        has_ended = row.expires_at is not None and row.expires_at <= now
        if has_ended and expires_at is None:
            raise Conflict(f"The key {name!r} has expired; --expires gives it another end.")
        # A key that has expired stays expired.
        keeps = overlap > timedelta() and not has_ended
        row.previous_hash, row.previous_until = (row.key_hash, now + overlap) if keeps else (None, None)
        row.key_hash, row.expires_at = hash_of(key), expires_at or row.expires_at
    return key


def revoke(engine: Engine, name: str) -> bool:
    """Revoke a key by its name; false where there is none in use."""
    with engine.begin() as connection:
        statement = update(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None))
        return connection.execute(statement.values(revoked_at=datetime.now(UTC))).rowcount > 0


def listed(engine: Engine) -> list[ApiKey]:
    """List all keys, revoked ones too, by name."""
    with Session(engine) as session:
        return list(session.scalars(select(ApiKey).order_by(ApiKey.name)))


_FIND_BY_HASH: Final = text("""
    SELECT id, name, coalesce(source, name) AS source, scopes, rate, channels, event_types,
        coalesce(last_used_at < now() - interval '1 hour', true) AS newly_used,
        extract(epoch FROM least(expires_at, CASE WHEN key_hash <> :hash THEN previous_until END) - now()) AS good_for,
        CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired'
            WHEN key_hash <> :hash AND previous_until <= now() THEN 'rotated' END AS ended
    FROM api_keys WHERE key_hash = :hash OR previous_hash = :hash
""")
_NOTE_USE: Final = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE id = :id AND coalesce(last_used_at < now() - interval '1 hour', true)
""")


@dataclass(frozen=True, slots=True)
class Ended:
    """A key that opens nothing any more, and why: `revoked`, `expired` or `rotated`."""

    name: str
    why: str


def find(engine: Engine, key: str) -> Caller | None:
    """Return the caller that a key belongs to; None if it is unknown, revoked, expired or rotated away."""
    found = look_up(engine, key)
    return found if isinstance(found, Caller) else None


def look_up(engine: Engine, key: str) -> Caller | Ended | None:
    """Return the caller that a key belongs to, or belonged to; None if it is unknown. See `look_up_hash`."""
    return look_up_hash(engine, hash_of(key))


def look_up_hash(engine: Engine, hashed: bytes) -> Caller | Ended | None:
    """Return the caller that the key with a hash belongs to, or belonged to; None if it is unknown.

    Records that the key was used, once an hour. A failure to do so does not refuse the caller.
    """
    with engine.connect() as connection:
        row = connection.execute(_FIND_BY_HASH, {"hash": hashed}).one_or_none()
    if row is None:
        return None
    if row.ended is not None:
        return Ended(row.name, row.ended)
    if row.newly_used:
        with suppress(SQLAlchemyError), engine.begin() as connection:
            connection.execute(_NOTE_USE, {"id": row.id})
    good_for = math.inf if row.good_for is None else float(row.good_for)
    # A scope that a newer release grants means nothing here.
    scopes = frozenset(scope for scope in Scope if scope.value in row.scopes)
    channels = None if row.channels is None else frozenset(row.channels)
    permit = Permit(channels, None if row.event_types is None else tuple(row.event_types))
    return Caller(row.name, scopes, row.source, row.rate, good_for, permit)
