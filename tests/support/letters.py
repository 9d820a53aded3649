"""Dead letters in great numbers, written straight into the tables."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.models import attempt_id
from notifier.vocabulary.ids import derived_id, new_id

_NOTIFICATIONS = text("""
    INSERT INTO notifications (id, origin_id, event_type, source, user_id, recipient, channel, critical, priority,
        queue, created_at, status, reason, attempts, claims, tries, lost, expires_at, content)
    SELECT id, id, :event_type, :source, :user_id, :recipient, :channel, false, 'normal', :channel, now(), 'failed',
        :reason, 1, 1, 1, 0, :expires_at, '{"body": "Hello"}'
    FROM unnest(CAST(:ids AS uuid[])) AS made(id)
""")
_ATTEMPTS = text("""
    INSERT INTO attempts (id, notification_id, number, provider, outcome)
    SELECT attempt, id, 1, :provider, 'unsent'
    FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS uuid[])) AS made(id, attempt)
""")
_LETTERS = text("""
    INSERT INTO dead_letters (id, notification_id, claims, channel, event_type, reason, error, attempts, created_at)
    SELECT letter, id, 1, :channel, :event_type, :reason, replace(:error, '#', CAST(id AS text)), 1, :written
    FROM unnest(CAST(:ids AS uuid[]), CAST(:letters AS uuid[])) AS made(id, letter)
""")


@dataclass
class Letters:
    """Makes dead letters in one database, and looks at what became of them."""

    engine: Engine

    def make(self, count: int, *, ago: timedelta = timedelta(0), **columns: Any) -> list[UUID]:
        """Make letters with their notifications and attempts; in their error a # stands for the notification's id."""
        written = datetime.now(UTC) - ago
        values = {
            **{"channel": "sms", "reason": "retries_exhausted", "event_type": "letters.made", "source": "test"},
            **{"provider": "outbox", "error": "timeout: #", "user_id": None, "recipient": "+4915112345678"},
            **{"expires_at": None, "written": written, **columns},
        }
        milliseconds = int(written.timestamp() * 1000)
        ids = [new_id() if not ago else derived_id(milliseconds, new_id()) for _ in range(count)]
        letters = sorted(new_id() if not ago else derived_id(milliseconds, new_id()) for _ in range(count))
        rows = {**values, "ids": ids, "letters": letters, "attempts": [attempt_id(each, 1) for each in ids]}
        with self.engine.begin() as connection:
            connection.execute(_NOTIFICATIONS, rows)
            if values["provider"] is not None:
                connection.execute(_ATTEMPTS, rows)
            connection.execute(_LETTERS, rows)
        return letters

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Return the rows of a statement."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def standing(self) -> int:
        """Return how many letters stand."""
        return int(self.sql("SELECT count(*) FROM dead_letters WHERE requeued_at IS NULL")[0][0])

    def queued(self) -> int:
        """Return how many notifications are queued, each once."""
        return int(self.sql("SELECT count(*) FROM notifications WHERE status = 'queued'")[0][0])

    def resends(self) -> int:
        """Return how often notifications were sent again."""
        return int(self.sql("SELECT count(*) FROM resends")[0][0])
