"""Erasing a person: whatever text a caller gave with their address in it, it is nowhere afterwards."""

from base64 import b64encode
from typing import Any, Final

import redis
from marshmallow import fields

from api.schemas.events import EventSchema
from api.schemas.notifications import DirectNotificationSchema
from tests.receivers import HttpReceiver, SmtpReceiver
from tests.running import Running, wait_for
from tests.test_commands import succeed
from tests.test_unsubscribing import everywhere

USER: Final = "gone-zq@example.com"
NEEDLE: Final = "gone-zq"
#: The fields that a field needs beside it, where it cannot stand alone.
BESIDE: Final[dict[str, dict[str, Any]]] = {
    "dedup_key": {"dedup_window": "PT1H"},
    "recipient": {"channel": "email"},
    "from": {"channel": "email"},
    "reply_to": {"channel": "email"},
}


def _texts(schema: type[Any]) -> list[str]:
    """The fields of a request that take a text."""
    declared = schema._declared_fields.items()
    return sorted(field.data_key or name for name, field in declared if isinstance(field, fields.String))


def _posted(system: Running, path: str, schema: type[Any], least: dict[str, Any]) -> set[str]:
    """Post a request for each text that it may have, with the address in that; returns which were accepted."""
    taken = set()
    for name in _texts(schema):
        body = {"user_id": USER, **least, **BESIDE.get(name, {}), name: USER}
        if name == "idempotency_key":
            body[name] = f"{USER} {path}"
        answer = system.post(path, body)
        assert answer.status_code in {202, 422}, answer.text
        if answer.status_code == 202:
            taken.add(name)
    return taken


def test_an_address_is_erased_from_every_text_that_a_caller_can_give(
    system: Running, smtp: SmtpReceiver, http: HttpReceiver
) -> None:
    person = {"email": USER, "webhook_url": http.url("/gone-zq"), "chat_url": f"slack://{NEEDLE}", "locale": "de"}
    person["attributes"] = {"name": USER, USER: {"nested": [USER]}}
    put = system.http.put(f"{system.url}/api/v1/users/{USER}", json=person, timeout=20)
    assert put.ok, put.text
    http.answer("/gone-zq", (422, {"X-Said": USER}))
    smtp.refuse(USER, f"550 5.1.1 <{USER}> no such user")
    payload = {"payload": {"said": USER, USER: 1}}
    events = _posted(system, "/api/v1/events", EventSchema, {"event_type": "erasing.event", **payload})
    assert events >= {"user_id", "recipient", "cancellation_key", "dedup_key", "idempotency_key"}
    direct = _posted(system, "/api/v1/notifications", DirectNotificationSchema, {"body": f"Dear {USER}"})
    assert direct >= {"subject", "body", "from", "reply_to", "cancellation_key", "dedup_key", "idempotency_key"}
    file = {"name": f"{USER}.txt", "content": b64encode(USER.encode()).decode()}
    body = {"user_id": USER, "channel": "email", "body": USER, "attachments": [file]}
    assert system.post("/api/v1/notifications", body).status_code == 202
    keyed = {"Idempotency-Key": USER, "X-Request-Id": USER}
    assert system.post("/api/v1/notifications", {"user_id": USER, "body": "x"}, headers=keyed).status_code == 202
    later = {"send_at": "2100-01-01T00:00:00Z", "cancellation_key": USER, "user_id": USER}
    assert system.post("/api/v1/events", {"event_type": "erasing.later", **later}).status_code == 202

    live = "SELECT count(*) FROM events WHERE due_at IS NOT NULL AND event_type LIKE 'erasing%'"
    busy = "SELECT count(*) FROM notifications WHERE status IN ('queued', 'sending') AND user_id = :user"
    wait_for(lambda: system.sql(live)[0][0] == 0, 40, "the events to be fanned out")
    wait_for(lambda: system.sql(busy, user=USER)[0][0] == 0, 40, "the notifications to be tried")
    # Events that name only an address are not the user's: data are erased by the user's id.
    system.sql("DELETE FROM events WHERE user_id IS NULL AND recipient = :address", address=USER)
    tables = set(everywhere(system, NEEDLE))
    assert tables >= {"users", "events", "notifications", "idempotency_keys", "dedup_keys", "outbox"}

    answer = system.http.delete(f"{system.url}/api/v1/users/{USER}", timeout=20, headers={"X-Request-Id": USER})
    assert answer.status_code == 204, answer.text
    succeed("purge", environment=system.environment)
    assert everywhere(system, NEEDLE) == []
    with redis.Redis.from_url(system.environment["REDIS_URL"]) as client:
        kept = {key: client.dump(key) for key in client.keys("*")}
    assert not [key for key, value in kept.items() if NEEDLE.encode() in key + (value or b"")]
    for child in system.children:
        assert NEEDLE not in child.log.read_text(errors="replace"), child.name


def test_the_keys_of_others_go_on_to_work(system: Running) -> None:
    for user in ("erased-keys-1", "erased-keys-2"):
        system.http.put(f"{system.url}/api/v1/users/{user}", json={"phone": "+4915112300001"}, timeout=20)
    posted = [
        system.post("/api/v1/events", {"event_type": "t", "user_id": user, "idempotency_key": f"key of {user}"}).json()
        for user in ("erased-keys-1", "erased-keys-2")
    ]
    assert system.http.delete(f"{system.url}/api/v1/users/erased-keys-1", timeout=20).status_code == 204
    again = {"event_type": "t", "user_id": "erased-keys-2", "idempotency_key": "key of erased-keys-2"}
    answer = system.post("/api/v1/events", again).json()
    assert (answer["id"], answer["duplicate"]) == (posted[1]["id"], True)
