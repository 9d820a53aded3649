"""API keys: made, listed, revoked, and looked up by their hash."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from notifier.errors import Conflict, Invalid
from notifier.ids import new_id
from notifier.models import ApiKey

#: What a key begins with, so that secret scanners can know it.
PREFIX: Final = "ntf_"


class Scope(StrEnum):
    """What a key may do."""

    #: Post events and notifications, and cancel.
    SEND = "send"
    #: Read.
    READ = "read"
    #: The rest.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: a key's name and scopes."""

    name: str
    scopes: frozenset[Scope]


#: Who calls where no key is asked for.
ANONYMOUS: Final = Caller("anonymous", frozenset(Scope))


def hash_of(key: str) -> bytes:
    """What is kept of a key. Keys are 256 random bits: a plain SHA-256 cannot be searched."""
    return hashlib.sha256(key.encode()).digest()


def create(engine: Engine, name: str, scopes: Sequence[str]) -> str:
    """Make a key and return it; it is not shown again. Raises Invalid, or Conflict where the name is taken."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == ANONYMOUS.name:
        raise Invalid({"name": ["1 to 64 letters, digits, dots, dashes and underscores, and not 'anonymous'."]})
    unknown = sorted(set(scopes) - set(Scope))
    if unknown or not scopes:
        raise Invalid({"scope": [f"Not a scope: {unknown[0]!r}." if unknown else "Give at least one."]})
    key = PREFIX + secrets.token_urlsafe(32)
    row = ApiKey(
        id=new_id(), name=name, key_hash=hash_of(key), scopes=sorted(set(scopes)), created_at=datetime.now(UTC)
    )
    try:
        with Session(engine) as session, session.begin():
            session.add(row)
    except IntegrityError:
        raise Conflict(f"There is a key named {name!r} already; names are not used again.") from None
    return key


def revoke(engine: Engine, name: str) -> bool:
    """Revoke a key by its name; false where there is none in use."""
    with engine.begin() as connection:
        statement = update(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None))
        return connection.execute(statement.values(revoked_at=datetime.now(UTC))).rowcount > 0


def listed(engine: Engine) -> list[ApiKey]:
    """All keys, revoked ones too, by name."""
    with Session(engine) as session:
        return list(session.scalars(select(ApiKey).order_by(ApiKey.name)))


def find(engine: Engine, key: str) -> Caller | None:
    """Who a key belongs to; None where it is unknown or revoked."""
    with engine.connect() as connection:
        row = connection.execute(
            select(ApiKey.name, ApiKey.scopes).where(ApiKey.key_hash == hash_of(key), ApiKey.revoked_at.is_(None))
        ).one_or_none()
    return Caller(row.name, frozenset(Scope(scope) for scope in row.scopes)) if row else None
