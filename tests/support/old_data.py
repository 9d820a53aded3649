"""Rows of days long ago, and the purge of them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.storage import retention
from notifier.storage.partitions import TABLES, make_day, partition_of
from notifier.storage.retention import Retention
from notifier.vocabulary.ids import derived_id

SPANS = Retention(timedelta(days=30), timedelta(days=90))
TODAY = datetime.now(UTC).date()
OLD = TODAY - timedelta(days=40)


def id_of(day: date, *parts: object, hour: float = 12) -> UUID:
    """An id of a day: other parts, another id."""
    moment = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=hour)
    return derived_id(int(moment.timestamp() * 1000), *parts, "test")


class Data:
    """Rows of any age, written straight into the tables."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def days(self, *days: date) -> None:
        with self.engine.begin() as connection:
            for day in days:
                for table in TABLES:
                    make_day(connection, table, day)

    def insert(self, table: str, **columns: Any) -> Any:
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        with self.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), columns)
        return columns.get("id")

    def event(self, event_id: UUID, **columns: Any) -> UUID:
        base = {"event_type": "x", "source": "s", "status": "processed", "payload": "{}", "critical": False}
        base |= {"priority": "normal", "created_at": datetime.now(UTC)}
        self.insert("events", id=event_id, **(base | columns))
        return event_id

    def notification(self, row_id: UUID, *, attempts: int = 1, **columns: Any) -> UUID:
        base = {"source": "s", "critical": False, "priority": "normal", "queue": "email", "status": "sent"}
        base |= {"created_at": datetime.now(UTC), "channel": "email", "recipient": "a@example.com"}
        self.insert("notifications", id=row_id, **(base | columns))
        for number in range(attempts):
            attempt = derived_id(row_id.int >> 80, row_id, number)
            self.insert("attempts", id=attempt, notification_id=row_id, number=number + 1, outcome="accepted")
        return row_id

    def update(self, table: str, row_id: UUID, **columns: Any) -> None:
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        with self.engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET {assignments} WHERE id = :id"), {"id": row_id, **columns})

    def live(self, row_id: UUID, **columns: Any) -> UUID:
        return self.notification(row_id, **({"status": "queued", "due_at": datetime.now(UTC)} | columns))

    def letter(self, day: date, **columns: Any) -> UUID:
        base = {"id": id_of(day, "letter"), "claims": 1, "reason": "x", "attempts": 1, "created_at": datetime.now(UTC)}
        row: UUID = self.insert("dead_letters", **(base | columns))
        return row

    def count(self, table: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    def ids(self, table: str) -> set[UUID]:
        with self.engine.connect() as connection:
            return set(connection.scalars(text(f"SELECT id FROM {table}")))

    def parts(self, day: date) -> set[str]:
        """The tables that have a partition of the day."""
        with self.engine.connect() as connection:
            there = set(connection.scalars(text("SELECT relname FROM pg_class")))
        return {table for table in TABLES if partition_of(table, day) in there}


def purge(engine: Engine, spans: Retention = SPANS) -> list[retention.Step]:
    return list(retention.purge(engine, spans))
