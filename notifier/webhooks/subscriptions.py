"""Subscriptions: a receiver's URL, the event types that it is sent, and the secret that signs its webhooks."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, Row, delete, select, text, update
from sqlalchemy.orm import Session

from notifier.models import Recovery, Subscription
from notifier.security.sealed_columns import open_headers, open_url, seal_headers, seal_url
from notifier.security.secret_box import CannotDecrypt, Vault
from notifier.security.webhook_signatures import new_secret
from notifier.vocabulary.addresses import sought
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.masking import masked
from notifier.vocabulary.states import Channel
from notifier.webhooks.endpoint_slots import lock

#: How long the secret before a rotation signs too.
OVERLAP: Final = timedelta(hours=24)
#: Why a subscription is disabled.
BY_HAND: Final = "by_hand"
GONE: Final = "gone"
FAILING: Final = "failing"
#: The most URLs that are decrypted to find one.
CANDIDATES: Final = 1000

_CHANGED: Final = text("UPDATE listeners SET version = version + 1")
_KEEP: Final = text("SELECT id, enabled FROM subscriptions WHERE id = ANY(:ids) ORDER BY id FOR SHARE")
# Rows that wait for it keep waiting: the clock releases them (notifier.webhooks.release_waiting).
_FORGET: Final = text("""
    UPDATE endpoints SET failing_since = NULL, failures = 0, open_until = NULL, open_for = NULL, probing = false,
        slow_until = NULL, warned_at = NULL, next_slot = NULL WHERE id = :id
""")
_SECRETS: Final = (
    *(Subscription.id, Subscription.secret, Subscription.previous_secret),
    *(Subscription.url, Subscription.sealed_url, Subscription.headers, Subscription.sealed_headers),
)
_FORGET_SLOTS: Final = text("UPDATE endpoints SET next_slot = NULL WHERE id = :id")


def _columns(vault: Vault, fields: Mapping[str, Any]) -> dict[str, Any]:
    columns = dict(fields)
    if "url" in columns:
        columns["url"], columns["sealed_url"] = seal_url(vault, columns["url"])
    if "headers" in columns:
        columns["headers"], columns["sealed_headers"] = seal_headers(vault, columns["headers"])
    if "permanent_statuses" in columns:
        columns["permanent_statuses"] = list(dict.fromkeys(columns["permanent_statuses"]))
    if "enabled" in columns:
        columns["disabled_reason"] = None if columns["enabled"] else BY_HAND
    return columns


def create(engine: Engine, vault: Vault, fields: Mapping[str, Any]) -> tuple[Subscription, str]:
    """Add a subscription of validated fields; returns it and its secret. Raises Conflict without a key for secrets."""
    secret, now = new_secret(), datetime.now(UTC)
    made = Subscription(
        id=new_id(), **_columns(vault, fields), secret=vault.encrypt(secret), created_at=now, updated_at=now
    )
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.add(made)
        session.execute(_CHANGED)
    return made, secret


def find(engine: Engine, subscription_id: UUID) -> Subscription | None:
    """Return a subscription, or None."""
    with Session(engine) as session:
        return session.get(Subscription, subscription_id)


def revealed(vault: Vault, subscription: Subscription) -> Subscription:
    """Replace a subscription's URL and headers by the whole ones, and return it; unreadable ones stay masked."""
    with contextlib.suppress(CannotDecrypt, Conflict, ValueError):
        subscription.__dict__["url"] = open_url(vault, subscription.url, subscription.sealed_url)
    with contextlib.suppress(CannotDecrypt, Conflict, ValueError, TypeError):
        headers = open_headers(vault, subscription.headers, subscription.sealed_headers)
        subscription.__dict__["headers"] = orjson.dumps(headers).decode()
    return subscription


def ids_at(session: Session, vault: Vault, text: str) -> list[UUID]:
    """Return the subscriptions with a URL, newest first; `text` in any form, or as it is shown.

    URLs that differ in their credentials alone are shown alike: of those the newest CANDIDATES are compared.
    """
    wholes = set(sought(Channel.WEBHOOK, text))
    shown = wholes | {masked(each) for each in wholes}
    query = select(Subscription.id, Subscription.url, Subscription.sealed_url).where(Subscription.url.in_(shown))
    rows = session.execute(query.order_by(Subscription.id.desc()).limit(CANDIDATES))
    return [row.id for row in rows if row.url == text or _whole_url(vault, row) in wholes]


def _whole_url(vault: Vault, row: Row[*tuple[Any, ...]]) -> str | None:
    with contextlib.suppress(CannotDecrypt, Conflict, ValueError):
        return open_url(vault, row.url, row.sealed_url)
    return None


def change(engine: Engine, vault: Vault, subscription_id: UUID, fields: Mapping[str, Any]) -> bool:
    """Change some fields; false if there is no such subscription.

    A new URL, or enabling it, resets its failures. Raises Conflict if there are credentials and no key for them.
    """
    values = {**_columns(vault, fields), "updated_at": datetime.now(UTC)}
    with engine.begin() as connection:
        lock(connection, [subscription_id])  # before its subscription, as deliveries do
        if "url" in fields or fields.get("enabled"):
            connection.execute(_FORGET, {"id": subscription_id})
        elif "rate_limit_per_second" in fields:
            connection.execute(_FORGET_SLOTS, {"id": subscription_id})
        statement = update(Subscription).where(Subscription.id == subscription_id).values(values)
        found = connection.execute(statement).rowcount > 0
        connection.execute(_CHANGED)
    return found


def keep_enabled(connection: Connection, subscription_ids: Iterable[UUID]) -> set[UUID]:
    """Return which of some subscriptions are enabled, and lock all of them until the connection's transaction ends."""
    ids = sorted(set(subscription_ids))
    return {row.id for row in connection.execute(_KEEP, {"ids": ids}) if row.enabled} if ids else set()


def disable(connection: Connection, subscription_ids: Sequence[UUID], reason: str) -> list[UUID]:
    """Disable those that are enabled, in the connection's transaction; returns their ids."""
    statement = (
        update(Subscription)
        .where(Subscription.id.in_(subscription_ids), Subscription.enabled)
        .values(enabled=False, disabled_reason=reason, updated_at=datetime.now(UTC))
        .returning(Subscription.id)
    )
    disabled = list(connection.scalars(statement))
    if disabled:
        connection.execute(_CHANGED)
    return disabled


def remove(engine: Engine, subscription_id: UUID) -> bool:
    """Delete a subscription; false if there is none. Waiting rows are skipped."""
    with engine.begin() as connection:
        lock(connection, [subscription_id])
        connection.execute(_FORGET, {"id": subscription_id})
        connection.execute(delete(Recovery).where(Recovery.subscription_id == subscription_id))
        found = connection.execute(delete(Subscription).where(Subscription.id == subscription_id)).rowcount > 0
        connection.execute(_CHANGED)
    return found


def rotate_secret(engine: Engine, vault: Vault, subscription_id: UUID) -> str | None:
    """Give a subscription a new secret and return it; the previous one signs too for OVERLAP.

    None if there is no such subscription.
    """
    secret = new_secret()
    statement = (
        update(Subscription)
        .where(Subscription.id == subscription_id)
        .values(
            previous_secret=Subscription.secret,
            previous_secret_until=datetime.now(UTC) + OVERLAP,
            secret=vault.encrypt(secret),
            updated_at=datetime.now(UTC),
        )
    )
    with engine.begin() as connection:
        return secret if connection.execute(statement).rowcount else None


def _sealed(vault: Vault, row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    """Return a row's URL and header columns, sealed anew; unreadable ones are left as they are."""
    columns: dict[str, Any] = {}
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        columns |= _columns(vault, {"url": open_url(vault, row.url, row.sealed_url)})
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        columns |= _columns(vault, {"headers": open_headers(vault, row.headers, row.sealed_headers)})
    return columns


def rekey(engine: Engine, vault: Vault, after: UUID | None, limit: int = 500) -> tuple[int, UUID | None]:
    """Encrypt the secrets of the next subscriptions behind an id with the first key; returns how many, and the last id.

    Credentials in URLs and headers that a release before kept as they are are encrypted too.

    Raises CannotDecrypt where one was encrypted with a key that is gone; it and those behind it stay as they are.
    """
    query = select(*_SECRETS).order_by(Subscription.id)
    if after is not None:
        query = query.where(Subscription.id > after)
    with engine.begin() as connection:
        rows = connection.execute(query.limit(limit).with_for_update()).all()
        for row in rows:
            before = row.previous_secret
            values = {
                "secret": vault.rotate(bytes(row.secret)),
                "previous_secret": None if before is None else vault.rotate(bytes(before)),
                **_sealed(vault, row),
            }
            connection.execute(update(Subscription).where(Subscription.id == row.id).values(values))
    return len(rows), rows[-1].id if rows else None
