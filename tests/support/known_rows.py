"""An API within this process that asks for keys, and rows that a test puts before it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from config.wiring import Wiring
from notifier.models import Attempt, DeadLetter, Event, Notification
from notifier.people import users
from notifier.security import api_keys
from notifier.vocabulary.ids import derived_id, millisecond_of, new_id, time_of
from notifier.webhooks import subscriptions

FAR: Final = datetime(2099, 1, 1, tzinfo=UTC)


@dataclass
class Known:
    """An API that asks for keys, over a database that a test fills."""

    client: FlaskClient
    wires: Wiring
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for scopes in ("read", "send", "read,admin"):
            name = scopes.replace(",", "-")
            self.keys[scopes] = api_keys.create(self.wires.engine, f"only-{name}", scopes.split(","))

    def ask(self, path: str, scopes: str = "read", **query: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[scopes]}"}
        return self.client.get(path, query_string=query or None, headers=headers)

    def search(self, q: str, **query: Any) -> Any:
        answer = self.ask("/api/v1/search", q=q, **query)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def found(self, q: str, **query: Any) -> set[tuple[str, str, tuple[str, ...]]]:
        """Return (type, id, matched) of what a search finds."""
        items = self.search(q, **query)["items"]
        return {(each["type"], each["id"], tuple(sorted(each["matched"]))) for each in items}

    def add(self, *rows: Any) -> None:
        with Session(self.wires.engine) as session, session.begin():
            session.add_all(rows)

    def notification(self, status: str = "sent", at: UUID | None = None, **fields: Any) -> UUID:
        """Add a notification, with an attempt where it was sent; returns its id."""
        row_id = at or new_id()
        live = status in {"scheduled", "queued", "sending", "retrying"}
        defaults: dict[str, Any] = {"channel": "email", "recipient": "nobody@example.com", "source": "shop"}
        row = {**defaults, "event_type": "order.paid", "critical": False, "priority": "normal", "queue": "email"}
        row |= {"due_at": FAR if live else None, "created_at": time_of(row_id)}
        provider, message_id = fields.pop("provider", "smtp"), fields.pop("message_id", None)
        self.add(Notification(id=row_id, status=status, **{**row, **fields}))
        if status != "scheduled":
            attempt = {"number": 1, "outcome": "accepted", "provider": provider, "message_id": message_id}
            self.add(Attempt(id=derived_id(millisecond_of(row_id), row_id), notification_id=row_id, **attempt))
        return row_id

    def event(self, status: str = "processed", **fields: Any) -> UUID:
        """Add an event; returns its id."""
        row_id = new_id()
        row: dict[str, Any] = {"event_type": "order.paid", "source": "shop", "payload": "{}", "critical": False}
        row |= {"priority": "normal", "due_at": FAR if status == "accepted" else None, "created_at": time_of(row_id)}
        self.add(Event(id=row_id, status=status, **{**row, **fields}))
        return row_id

    def letter(self, **fields: Any) -> UUID:
        """Add a dead letter; returns its id."""
        row_id = new_id()
        row: dict[str, Any] = {"claims": 1, "channel": "email", "event_type": "order.paid", "attempts": 1}
        row |= {"reason": "retries_exhausted", "created_at": time_of(row_id)}
        self.add(DeadLetter(id=row_id, **{**row, **fields}))
        return row_id

    def subscription(self, url: str) -> UUID:
        """Add a subscription; returns its id."""
        fields = {"url": url, "event_types": ["*"], "filter": None, "description": None, "headers": {}}
        fields |= {"rate_limit_per_second": None, "enabled": True, "permanent_statuses": []}
        made, _ = subscriptions.create(self.wires.engine, self.wires.vault, fields)
        return made.id

    def user(self, user_id: str, **addresses: Any) -> None:
        """Write a user."""
        none = dict.fromkeys(("email", "phone", "webhook_url", "chat_url", "timezone", "locale"))
        users.put(self.wires.engine, user_id, {**none, "push_tokens": [], **addresses}, b"{}")
