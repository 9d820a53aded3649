"""A person, a subscription and what was sent to both, in an API within this process, with marks to look for.

Whatever stands in an address begins with ADDRESS, and whatever is a credential has SECRET in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from config.wiring import Wiring
from notifier.models import (
    Attempt,
    DeadLetter,
    DeadLetterAct,
    Event,
    Notification,
    OutboxMessage,
    Recovery,
    Resend,
    Suppression,
    TakenReceipt,
)
from notifier.people import users
from notifier.security import api_keys
from notifier.vocabulary.ids import new_id
from notifier.webhooks import subscriptions

ADDRESS: Final = "qzplanted"
SECRET: Final = "qzs3cret"

USER: Final = "u-1"
EMAIL: Final = f"{ADDRESS}@example.com"
URL: Final = f"https://someone:{SECRET}pw@{ADDRESS}.example.com/hook?token={SECRET}tok&page=2"
CHAT: Final = f"slack://{SECRET}A/{SECRET}B/{SECRET}C"
UNKNOWN_CHAT: Final = f"custom://{SECRET}D/{SECRET}E"
HOOK: Final = f"https://hooks.slack.com/services/T0/B0/{SECRET}F"
PUSH: Final = f"{ADDRESS}-device"
EXPO: Final = f"ExponentPushToken[{SECRET}G]"
BROWSER: Final = f'{{"endpoint":"https://{ADDRESS}.example.com/{SECRET}H","keys":{{"p256dh":"x","auth":"{SECRET}I"}}}}'
PERSON: Final = {
    **{"email": EMAIL, "phone": "+4915199887766", "push_tokens": [PUSH, EXPO, BROWSER], "webhook_url": URL},
    **{"chat_url": CHAT, "timezone": None, "locale": None},
}
PHONE: Final = "+4915199887766"
ATTRIBUTES: Final = f'{{"n":1.10,"link":"https://x:{SECRET}J@example.com/"}}'
PAYLOAD: Final = f'{{"n":1.10,"to":"{EMAIL}","u":"https:\\/\\/x:{SECRET}K@example.com\\/","chat":"{CHAT}"}}'
#: Words of a vendor or a receiver about somebody.
SAYS: Final = f"550 <{EMAIL}> unknown, see {HOOK}"
HEADERS: Final = {"Authorization": f"Bearer {SECRET}L", "X-Tenant": f"{SECRET}M"}


@dataclass
class Planted:
    """The API, and the ids of what it holds."""

    client: FlaskClient
    wires: Wiring
    engine: Engine
    ids: dict[str, UUID] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    def bearer(self, scopes: str) -> dict[str, str]:
        """Return the headers of a key that has these scopes: `send`, or `read,admin`."""
        if scopes not in self._keys:
            name = scopes.replace(",", "-")
            self._keys[scopes] = api_keys.create(self.engine, f"only-{name}", scopes.split(","), source="planted")
        return {"Authorization": f"Bearer {self._keys[scopes]}"}

    def ask(self, scopes: str, method: str, path: str, body: Any = None, query: str = "") -> TestResponse:
        """Make a request with a key that has these scopes."""
        return self.client.open(path + query, method=method, json=body, headers=self.bearer(scopes))

    def sql(self, statement: str) -> list[Any]:
        """Rows of a statement."""
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement)))

    def path(self, pattern: str) -> str:
        """Return a path of the description with the ids of what is planted."""
        names: Mapping[str, Any] = {"user_id": USER, "route_name": "r-1", "template_name": "t-1", "target": "sms"}
        names = {**names, "erasure_id": UUID(int=1)}
        for name, value in {**names, **self.ids}.items():
            pattern = pattern.replace(f"{{{name}}}", str(value))
        return pattern


def plant(client: FlaskClient, wires: Wiring) -> Planted:
    """Fill an empty database with one of everything, and marks in it."""
    engine = wires.engine
    planted = Planted(client, wires, engine)
    users.put(engine, USER, PERSON, ATTRIBUTES.encode())
    fields: dict[str, Any] = {"url": URL, "event_types": ["x.*"], "filter": f"payload.to == '{EMAIL}'"}
    fields |= {"description": f"For {EMAIL}", "headers": HEADERS, "rate_limit_per_second": None}
    subscription, _ = subscriptions.create(engine, wires.vault, {**fields, "enabled": True, "permanent_statuses": []})
    event_id, now = new_id(), datetime.now(UTC)
    rows: list[Any] = [
        Event(
            id=event_id, event_type="x.y", source="planted", status="processed", payload=PAYLOAD, recipient=CHAT,
            channel="chat", user_id=USER, critical=False, priority="normal", cancellation_key=EMAIL, dedup_key=EMAIL,
            idempotency_key=EMAIL, created_at=now,
        )
    ]  # fmt: skip
    addresses = {"email": EMAIL, "sms": PHONE, "chat": CHAT, "webhook": URL, "push": EXPO}
    more = [("chat", UNKNOWN_CHAT), ("webhook", HOOK), ("push", BROWSER), ("push", PUSH)]
    states = {"email": "failed", "chat": "scheduled"}
    for channel, recipient in [*addresses.items(), *more]:
        notification_id, status = new_id(), states.pop(channel, "sent")
        rows.append(
            Notification(
                id=notification_id, event_id=event_id, event_type="x.y", source="planted", user_id=USER,
                recipient=recipient, channel=channel, critical=False, priority="normal", queue=channel, status=status,
                reason="retries_exhausted" if status == "failed" else None, cancellation_key=EMAIL, claims=1,
                attempts=1, tries=1, lost=0, created_at=now, sent_at=now if status == "sent" else None,
                due_at=datetime(2099, 1, 1, tzinfo=UTC) if status == "scheduled" else None, origin_id=notification_id,
                explanation=SAYS, content=f'{{"subject":"Hi","body":"Write to {EMAIL} or {URL}"}}',
                judged=f'{{"rule":"suppression","explanation":"{SAYS}"}}',
            )
        )  # fmt: skip
        rows.append(
            Attempt(
                id=notification_id, notification_id=notification_id, number=1, provider="p", outcome="rejected",
                error=SAYS, response_excerpt=f"{SAYS} {URL}", message_id=EMAIL, started_at=now, duration_ms=1.0,
                response_headers=f'{{"location":"{URL}"}}', request_headers='{"authorization":"***"}',
            )
        )  # fmt: skip
        rows.append(
            TakenReceipt(
                id=uuid4(), notification_id=notification_id, provider="p", kind="bounced", message_id=EMAIL,
                error=SAYS, happened_at=now, taken_at=now, applied=True,
            )
        )  # fmt: skip
        rows.append(
            Resend(
                id=new_id(), notification_id=notification_id, how="resend", asked_by="ops", asked_at=now,
                status="failed", reason="x", explanation=SAYS, attempts=1,
            )
        )  # fmt: skip
        planted.ids.setdefault(f"{status}_id", notification_id)
        rows.append(
            OutboxMessage(
                notification_id=notification_id, channel=channel, recipient=recipient, subject=SAYS,
                text=f"{SAYS} {URL}", created_at=now,
            )
        )  # fmt: skip
    letter_id = new_id()
    rows.append(
        DeadLetter(
            id=letter_id, notification_id=planted.ids["failed_id"], event_id=event_id, claims=1, channel="email",
            event_type="x.y", reason="retries_exhausted", error=SAYS, attempts=1, created_at=now,
        )
    )  # fmt: skip
    suppressed = {"chat": UNKNOWN_CHAT, "webhook": URL, "email": f"{ADDRESS}-2@example.com"}
    rows += [
        Suppression(id=new_id(), channel=channel, address=each, folded=each, reason=f"for {EMAIL}", created_at=now)
        for channel, each in suppressed.items()
    ]
    recovery_id = new_id()
    rows.insert(
        0,
        Recovery(
            id=recovery_id, subscription_id=subscription.id, since=now, place=recovery_id, total=0, recovered=0,
            refused=0, asked_by="ops", created_at=now, worked_at=now, finished_at=now,
        ),
    )  # fmt: skip
    act_id = new_id()
    filters = {"recipient": [URL], "message_id": EMAIL, "error": SAYS, "requeued": False}
    rows.insert(
        0,
        DeadLetterAct(
            id=act_id, act="requeue", filters=filters, source="planted", place=act_id, total=1, done=0, refused=1,
            refused_reasons={"expired": 1}, asked_by="ops", created_at=now, worked_at=now, stopped_at=now,
        ),
    )  # fmt: skip
    planted.ids |= {
        "act_id": act_id,
        "recovery_id": recovery_id,
        **{"event_id": event_id, "letter_id": letter_id, "subscription_id": subscription.id},
        **{"notification_id": planted.ids["sent_id"], "suppression_id": rows[-1].id},
    }
    with Session(engine) as session, session.begin():
        session.add_all(rows)
    route = {"event_type": "x.z", "to": {"recipient": f"'{CHAT}'", "channel": "chat"}}
    template = {
        "channel": "email",
        "subject": "Hi",
        "text": f"See https://x:{SECRET}N@example.com and {{{{ user.email }}}}",
    }
    for path, body in (("routes/r-1", route), ("templates/t-1", template)):
        assert planted.ask("admin", "PUT", f"/api/v1/{path}", body).status_code == 201
    return planted
