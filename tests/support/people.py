"""People's rows, as exports and erasures find them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, text

from notifier.vocabulary.ids import new_id

ADA = {
    **{"email": "Ada@example.com", "phone": "+4915112345678", "push_tokens": ["one", "two"], "webhook_url": None},
    **{"chat_url": None, "timezone": "Asia/Kolkata", "locale": "de"},
}


def insert(engine: Engine, table: str, **columns: Any) -> None:
    names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), columns)


def notification(engine: Engine, user_id: str | None, **columns: Any) -> Any:
    base = {"id": new_id(), "source": "s", "critical": False, "priority": "normal", "queue": "email", "status": "sent"}
    base |= {"created_at": datetime.now(UTC), "channel": "email", "recipient": "ada@example.com", "user_id": user_id}
    insert(engine, "notifications", **(base | columns))
    return (base | columns)["id"]


def event(engine: Engine, user_id: str | None, payload: str = "{}") -> Any:
    event_id = new_id()
    base = {"event_type": "x", "source": "s", "status": "processed", "critical": False, "priority": "normal"}
    insert(engine, "events", id=event_id, payload=payload, user_id=user_id, created_at=datetime.now(UTC), **base)
    return event_id
