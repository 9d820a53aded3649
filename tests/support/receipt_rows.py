"""Notifications in any state, and receipts for them, as the tests of receipts use them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.models import attempt_id
from notifier.notifications.delivery_receipts import apply_waiting, take
from notifier.providers.receipts import AddressStatus, Kind, Receipt, Report
from notifier.vocabulary.ids import new_id

FINISHED = ("sent", "delivered", "failed", "cancelled", "expired", "skipped")


def rows(engine: Engine, status: str, count: int, *, claims: int = 1, attempts: int = 1) -> list[UUID]:
    """Notifications in a state."""
    ids = [new_id() for _ in range(count)]
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO notifications (id, source, recipient, channel, critical, priority, queue, status, due_at,
                    claims, attempts, created_at, sent_at)
                SELECT id, 'test', 'ada@example.com', 'email', false, 'normal', 'email', :status,
                    CASE WHEN :status = ANY(:finished) THEN NULL ELSE now() + interval '1 minute' END,
                    :claims, :attempts, now(), CASE WHEN :status = 'sent' THEN now() - interval '1 second' END
                FROM unnest(CAST(:ids AS uuid[])) AS id
            """),
            {"ids": ids, "status": status, "finished": list(FINISHED), "claims": claims, "attempts": attempts},
        )
    attempted(engine, ids, claims, attempts)
    return ids


def attempted(
    engine: Engine,
    ids: list[UUID],
    claims: int = 1,
    number: int = 1,
    *,
    provider: str | None = "acme",
    message_id: str | None = None,
) -> None:
    """A provider has accepted notifications under a claim just now."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO attempts (id, notification_id, number, provider, outcome, message_id, started_at)
                SELECT attempt_id, id, :number, :provider, 'accepted', :message_id, now()
                FROM unnest(CAST(:attempts AS uuid[]), CAST(:ids AS uuid[])) AS made(attempt_id, id)
                ON CONFLICT (id) DO UPDATE SET message_id = excluded.message_id, provider = excluded.provider
            """),
            {
                "attempts": [attempt_id(row_id, claims) for row_id in ids],
                "ids": ids,
                "number": number,
                "provider": provider,
                "message_id": message_id,
            },
        )


def row(engine: Engine, status: str, **counters: int) -> UUID:
    """A notification in a state."""
    [row_id] = rows(engine, status, 1, **counters)
    return row_id


def resent(engine: Engine, count: int = 1) -> list[UUID]:
    """Notifications that were sent a second time just now."""
    return rows(engine, "sent", count, claims=2, attempts=2)


def move(engine: Engine, row_id: UUID, status: str) -> None:
    """Do as workers and clocks do: nothing is checked but the state machine."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE notifications SET status = :status,
                    due_at = CASE WHEN :status = ANY(:finished) THEN NULL ELSE now() + interval '1 minute' END
                WHERE id = :id
            """),
            {"id": row_id, "status": status, "finished": list(FINISHED)},
        )


def of(row_id: UUID, kind: Kind = Kind.DELIVERED, *, ago: float = 0, error: str | None = None) -> Receipt:
    return Receipt("acme", row_id, kind, datetime.now(UTC) - timedelta(seconds=ago), error)


def bounce(row_id: UUID, **more: Any) -> Receipt:
    return of(row_id, Kind.BOUNCED, error="acme 5, nobody there", **more)


def taken(engine: Engine, *receipts: Receipt, standings: tuple[AddressStatus, ...] = ()) -> None:
    take(engine, Report(receipts, standings))


def state(engine: Engine, row_id: UUID) -> tuple[str, str | None]:
    found = one(engine, "SELECT status, reason FROM notifications WHERE id = :id", id=row_id)
    return found.status, found.reason


def one(engine: Engine, statement: str, **values: Any) -> Any:
    [found] = sql(engine, statement, **values)
    return found


def sql(engine: Engine, statement: str, **values: Any) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []


def waiting(engine: Engine) -> list[Any]:
    return sql(engine, "SELECT * FROM receipts ORDER BY id")


def hurry(engine: Engine) -> int:
    """Make everything due that waits, and let the clock look at it."""
    ids = "SELECT id FROM receipts FOR UPDATE SKIP LOCKED"
    sql(engine, f"UPDATE receipts SET due_at = now() - interval '1 second' WHERE id IN ({ids})")
    return apply_waiting(engine)


def letters(engine: Engine, row_id: UUID) -> list[Any]:
    return sql(engine, "SELECT * FROM dead_letters WHERE notification_id = :id", id=row_id)


def suppressed(engine: Engine) -> list[tuple[str, str, str, datetime | None]]:
    found = sql(engine, "SELECT channel, address, reason, until FROM suppressions ORDER BY 2")
    return [(row.channel, row.address, row.reason, row.until) for row in found]
