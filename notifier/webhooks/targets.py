"""Webhook targets of a batch: the subscriptions of its rows, as they are at the moment of sending."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from notifier.security.sealed_columns import open_headers, open_url
from notifier.security.secret_box import Vault
from notifier.security.webhook_signatures import key_of

#: The type of the event that a test sends.
TEST: Final = "notifier.test"

_READ: Final = text("""
    SELECT s.id, s.url, s.enabled, s.disabled_reason, CAST(s.headers AS text) AS headers, s.rate_limit_per_second,
        s.permanent_statuses, s.secret, s.sealed_url, s.sealed_headers,
        CASE WHEN s.previous_secret_until > now() THEN s.previous_secret END AS previous_secret,
        coalesce(e.failures > 0 OR e.open_until IS NOT NULL OR e.slow_until IS NOT NULL, false) AS troubled,
        e.open_until, s.updated_at
    FROM subscriptions s LEFT JOIN endpoints e ON e.id = s.id
    WHERE s.id = ANY(:ids)
""")


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """A subscription and the health of its endpoint."""

    id: UUID
    #: As it is kept: the whole is sealed where it has credentials.
    kept_url: str
    sealed_url: bytes | None
    enabled: bool
    disabled_reason: str | None
    #: The receiver's own headers, as JSON text: an error in them concerns its rows alone.
    headers_text: str
    sealed_headers: bytes | None
    rate_limit_per_second: float | None
    #: The 4xx that are final for a message, beside 410.
    permanent_statuses: frozenset[int]
    #: The keys that sign, the newest first.
    secrets: tuple[bytes, ...]
    #: It has failed lately: there is something to forget when it succeeds.
    troubled: bool
    open_until: datetime | None
    #: When it was last changed.
    updated_at: datetime

    def url(self, vault: Vault) -> str:
        """Return the URL. Raises CannotDecrypt, Conflict, and the error of a seal that is not ours."""
        return open_url(vault, self.kept_url, self.sealed_url)

    def headers(self, vault: Vault) -> Mapping[str, str]:
        """Return headers, name → value. Raises CannotDecrypt, Conflict, and the errors of the stored text."""
        return open_headers(vault, self.headers_text, self.sealed_headers)

    def keys(self, vault: Vault) -> tuple[bytes, ...]:
        """Return the signing keys. Raises CannotDecrypt, Conflict."""
        return tuple(key_of(vault.decrypt(secret)) for secret in self.secrets)


def usable_rate(rate: float | None) -> float | None:
    """Return a stored rate limit where one can go by it: a number over zero. Else there is none."""
    return rate if rate is not None and math.isfinite(rate) and rate > 0 else None


def read_targets(connection: Connection, subscription_ids: Sequence[UUID]) -> dict[UUID, WebhookTarget]:
    """Read the existing subscriptions among these ids; one query, and none without ids."""
    if not subscription_ids:
        return {}
    rows = connection.execute(_READ, {"ids": sorted(set(subscription_ids))})
    return {
        row.id: WebhookTarget(
            row.id,
            row.url,
            row.sealed_url,
            row.enabled,
            row.disabled_reason,
            row.headers,
            row.sealed_headers,
            usable_rate(row.rate_limit_per_second),
            frozenset(row.permanent_statuses),
            tuple(bytes(secret) for secret in (row.secret, row.previous_secret) if secret is not None),
            row.troubled,
            row.open_until,
            row.updated_at,
        )
        for row in rows
    }
