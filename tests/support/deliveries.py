"""Rows of deliveries at chosen moments, for statistics: written straight into the tables."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.vocabulary.ids import derived_id

_numbers = count(1)


def minutes_ago(number: int, now: datetime | None = None) -> datetime:
    """The beginning of the minute that is so many before the current one."""
    return (now or datetime.now(UTC)).replace(second=0, microsecond=0) - timedelta(minutes=number)


def _id(moment: datetime) -> UUID:
    return derived_id(int(moment.timestamp() * 1000), next(_numbers), "test")


class Deliveries:
    """Notifications with their attempts and dead letters."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def insert(self, table: str, **columns: Any) -> UUID:
        names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        with self.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), columns)
        row_id: UUID = columns["id"]
        return row_id

    def notification(self, created_at: datetime, **columns: Any) -> UUID:
        base = {"source": "shop", "critical": False, "priority": "normal", "queue": "email", "status": "sent"}
        base |= {"channel": "email", "recipient": "ada@example.com", "event_type": "order.paid"}
        return self.insert("notifications", id=_id(created_at), created_at=created_at, **(base | columns))

    def attempt(self, notification_id: UUID, started_at: datetime, **columns: Any) -> UUID:
        base: dict[str, Any] = {"number": 1, "provider": "smtp", "outcome": "accepted", "duration_ms": 20.0}
        its_id = derived_id(notification_id.int >> 80, notification_id, next(_numbers))
        return self.insert(
            "attempts", id=its_id, notification_id=notification_id, started_at=started_at, **(base | columns)
        )

    def letter(self, created_at: datetime, notification_id: UUID | None, **columns: Any) -> UUID:
        base = {"claims": next(_numbers), "reason": "too_old", "attempts": 1, "channel": "email"}
        base["event_type"] = "order.paid"
        its_id = _id(created_at)
        return self.insert(
            "dead_letters", id=its_id, notification_id=notification_id, created_at=created_at, **(base | columns)
        )

    def sent(self, moment: datetime, **columns: Any) -> UUID:
        """A notification that was accepted at a moment, and sent a tenth of a second later."""
        row = self.notification(moment, **columns)
        self.attempt(row, moment + timedelta(seconds=0.1))
        return row

    def rows(self, table: str = "stats_minutes", **wanted: Any) -> list[dict[str, Any]]:
        """The rows of a table of statistics that have these values, in order."""
        condition = " AND ".join(f"{name} = :{name}" for name in wanted) or "true"
        query = text(f"SELECT * FROM {table} WHERE {condition} ORDER BY moment, channel, name")
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query, wanted).mappings()]

    def sums(self, table: str = "stats_minutes", **wanted: Any) -> dict[str, Any]:
        """The counts of the only row that has these values."""
        [row] = self.rows(table, **wanted)
        return {name: value for name, value in row.items() if isinstance(value, int)}


def several(number: int, moment: datetime) -> Iterator[datetime]:
    """So many moments, each a second after the one before."""
    return (moment + timedelta(seconds=each) for each in range(number))
