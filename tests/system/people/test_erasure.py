"""Erasing a person: whatever text a caller gave with their address in it, it is nowhere afterwards."""

import json
import secrets
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
import redis
from marshmallow import fields
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Engine, Float, Integer, LargeBinary, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from api.schemas.events import EventSchema
from api.schemas.notifications import DirectNotificationSchema
from notifier.models import Base
from notifier.models.declarative import JsonText
from notifier.people import erasure, export, forgetting, identities, suppressions, users
from notifier.people.mentions import ERASED, SEPARATORS
from notifier.security.secret_box import Vault, new_key
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.ids import derived_id, new_id
from notifier.vocabulary.states import Channel
from tests.support.commands import succeed
from tests.support.dumps import dump, still_in
from tests.support.mentions import PERSON, SPELLINGS
from tests.support.people import ADA, event, insert, notification
from tests.support.preferences import everywhere
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, ahead, made, wait_for

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
    file = {"name": f"of-{USER}.tar.gz", "content": b64encode(USER.encode()).decode()}
    body = {"user_id": USER, "channel": "email", "body": USER, "attachments": [file]}
    assert system.post("/api/v1/notifications", body).status_code == 202
    keyed = {"Idempotency-Key": USER, "X-Request-Id": USER}
    assert system.post("/api/v1/notifications", {"user_id": USER, "body": "x"}, headers=keyed).status_code == 202
    later = {"send_at": "2100-01-01T00:00:00Z", "cancellation_key": USER, "user_id": USER}
    assert system.post("/api/v1/events", {"event_type": "erasing.later", **later}).status_code == 202

    # Rows that are addressed to others and mention them.
    other = {"recipient": "other@example.com", "channel": "email"}
    about = system.event(event_type="erasing.about", payload={"of": f"mailto:{USER.upper()}", "n": 1}, **other)
    link = f"https://x.example/?to={USER.replace('@', '%40')}"
    body = {**other, "body": link, "cancellation_key": f"about-{USER}", "attachments": [file], "send_at": ahead(days=1)}
    assert system.post("/api/v1/notifications", body).status_code == 202
    hook = {"url": http.url("/nothing"), "event_types": ["erasing.none"], "description": f"Of {USER}"}
    hook_id = system.post("/api/v1/subscriptions", hook).json()["id"]

    live = "SELECT count(*) FROM events WHERE due_at IS NOT NULL AND event_type LIKE 'erasing%'"
    busy = "SELECT count(*) FROM notifications WHERE status IN ('queued', 'sending') AND user_id = :user"
    wait_for(lambda: system.sql(live)[0][0] == 0, 40, "the events to be fanned out")
    wait_for(lambda: system.sql(busy, user=USER)[0][0] == 0, 40, "the notifications to be tried")
    tables = set(everywhere(system, NEEDLE))
    assert tables >= {"users", "events", "notifications", "idempotency_keys", "dedup_keys", "outbox"}

    answer = system.http.delete(f"{system.url}/api/v1/users/{USER}", timeout=20, headers={"X-Request-Id": USER})
    assert answer.status_code == 204, answer.text
    # Rows that name them are gone with the answer; rows that mention them follow.
    values = {"like": f"%{NEEDLE}%"}
    for table in ("users", "outbox", "dedup_keys", "idempotency_keys"):
        assert not system.sql(f"SELECT 1 FROM {table} t WHERE CAST(t AS text) ILIKE :like", **values), table
    wait_for(lambda: not everywhere(system, NEEDLE), 60, "all tables to be gone through")
    assert system.get(f"/api/v1/events/{about}").json()["payload"] == {"of": "mailto:[erased]", "n": 1}
    assert system.get(f"/api/v1/subscriptions/{hook_id}").json()["description"] == "Of [erased]"
    system.http.delete(f"{system.url}/api/v1/subscriptions/{hook_id}", timeout=20)
    with redis.Redis.from_url(system.environment["REDIS_URL"]) as client:
        kept = {key: client.dump(key) for key in client.keys("*")}
    assert not [key for key, value in kept.items() if NEEDLE.encode() in key + (value or b"")]
    for child in system.children:
        assert NEEDLE not in child.log.read_text(errors="replace"), child.name


def test_somebody_without_a_user_is_exported_and_erased_by_an_address(system: Running) -> None:
    address = "only-zq@example.com"
    payload = {"dear": "Lonely-Zq"}
    event_id = system.event(recipient=address, channel="email", payload=payload, idempotency_key=f"to {address}")
    waits = made(system, recipient=address, channel="email", body="Lonely-Zq", send_at=ahead(days=1))
    system.finished(event_id)
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
    person = {"address": address.upper(), "channel": "email"}
    exported = system.post("/api/v1/exports", person).json()
    assert [each["id"] for each in exported["events"]] == [event_id]
    assert waits in {each["id"] for each in exported["notifications"]}
    shown = succeed("users", "export", "--address", address, environment=system.environment)
    assert json.loads(shown)["events"] == exported["events"]

    answer = system.post("/api/v1/erasures", person)
    assert answer.status_code == 202, answer.text
    begun = answer.json()
    assert answer.headers["Location"] == f"/api/v1/erasures/{begun['id']}"
    assert address not in answer.text
    for needle in (address, "Lonely-Zq"):
        assert everywhere(system, needle) == []
    assert system.notification(waits)["status"] == "cancelled"
    goes_on = system.get(f"/api/v1/erasures/{begun['id']}").json()
    assert (goes_on["status"], goes_on["id"] in system.get("/api/v1/erasures").text) == ("running", True)
    assert system.get(f"/api/v1/erasures/{new_id()}").status_code == 404

    system.event(recipient=address, channel="email", payload=payload)
    said = succeed("users", "erase", "--address", address, "--yes", environment=system.environment)
    assert "Erased the rows that name them." in said
    assert everywhere(system, address) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "address"),
        ({"address": "a@b.example"}, "channel"),
        ({"address": "nobody", "channel": "email"}, "address"),
        ({"address": "a@b.example", "channel": "email", "user_id": "x"}, "user_id"),
        ({"address": "a@b.example", "channel": "pigeon"}, "channel"),
        ({"user_id": "x", "everything": True}, "everything"),
    ],
)
def test_whom_it_means_must_be_clear(system: Running, body: dict[str, Any], field: str) -> None:
    for path in ("/api/v1/erasures", "/api/v1/exports"):
        answer = system.post(path, body)
        assert (answer.status_code, list(answer.json()["errors"])) == (422, [field])


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


VAULT: Final = Vault([new_key()])
MARK: Final = "gone.zq@example.com"


@pytest.fixture(autouse=True)
def nothing_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "_ON_ITS_WAY", 0)


def finish(engine: Engine, erasure_id: UUID | None) -> Any:
    """Go on with an erasure until it is finished."""
    assert erasure_id is not None
    while erasure.go_on(engine, VAULT):
        pass
    found = erasure.find(engine, erasure_id)
    assert found is not None
    assert (found.status, found.named, found.due_at) == ("finished", None, None)
    return found


def _value(column: Column[Any], words: str) -> Any:
    """Something for a column; for one of texts the words."""
    if isinstance(column.type, JsonText | JSONB):
        return json.dumps({words: [words]})
    if isinstance(column.type, ARRAY):
        return [words] if isinstance(_value(Column("x", column.type.item_type), words), str) else []
    kinds: list[tuple[Any, Any]] = [
        (Uuid, new_id()),
        (BigInteger | Integer | Float, 1),
        (Boolean, False),
        (DateTime, datetime.now(UTC) + timedelta(hours=1)),
        (LargeBinary, words.encode()),
    ]
    return next((value for kind, value in kinds if isinstance(column.type, kind)), words)


def test_a_mention_goes_from_every_column_of_every_table(engine: Engine) -> None:
    """A table that is new is gone through as well, and a column that is new has its mentions taken out."""
    for name in forgetting.tables():
        columns = {}
        for column in Base.metadata.tables[name].columns:
            is_told = column.name in forgetting._plan(name).changed or column.name == "content"
            columns[column.name] = _value(column, f"to {MARK} at" if is_told else f"x{secrets.token_hex(4)}")
        if "created_at" in columns:
            columns["created_at"] = datetime.now(UTC)
        if "due_at" in columns and name in {"events", "notifications"}:
            columns |= {"due_at": None, "status": "processed" if name == "events" else "sent"}
        columns.pop("id", None) if name == "outbox" else None
        insert(engine, name, **columns)
    planted = set(still_in(engine, MARK))
    assert planted >= {"events", "notifications", "attempts", "attachments", "dead_letters", "outbox", "users"}
    finish(engine, erasure.erase_address(engine, VAULT, Channel.EMAIL, MARK))
    assert still_in(engine, MARK) == []
    found = dump(engine)
    assert all("to [erased] at" in found[name] for name in planted - {"dedup_keys", "idempotency_keys"})
    assert [found[name] for name in ("dedup_keys", "idempotency_keys")] == ["[]", "[]"]


def test_what_goes_to_an_address_is_theirs_and_what_mentions_it_is_not(engine: Engine) -> None:
    users.put(engine, "bob", {**ADA, "email": "bob@example.com", "phone": None, "push_tokens": []}, b"{}")
    before = {"created_at": datetime.now(UTC)}
    live = {**before, "status": "scheduled", "due_at": datetime.now(UTC) + timedelta(hours=1)}
    payload = json.dumps({"name": "Gone Lovelace", "to": MARK})
    addressed = event(engine, None, payload)
    with engine.begin() as connection:
        values = {"id": addressed, "mark": MARK}
        connection.execute(text("UPDATE events SET recipient = :mark, channel = 'email' WHERE id = :id"), values)
    spelled = MARK.upper()
    theirs = notification(engine, None, recipient=MARK, content='{"body": "Dear Lovelace"}', **live)
    upper = notification(engine, None, recipient=spelled, content='{"body": "Dear Lovelace"}', **live)
    bobs = notification(engine, "bob", recipient="bob@example.com", content=json.dumps({"body": f"Ask {MARK}"}), **live)
    about = event(engine, "bob", f'{{"name": "Bob", "manager": "{MARK}", "n": 1.10}}')
    finish(engine, erasure.erase_address(engine, VAULT, Channel.EMAIL, MARK))
    assert still_in(engine, MARK, "Lovelace") == []
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, status, reason, CAST(content AS text) FROM notifications")).all()
        payloads = dict(connection.execute(text("SELECT id, CAST(payload AS text) FROM events")).all())
    assert {(row.id, *row[1:]) for row in rows} == {
        (theirs, "cancelled", "user_deleted", None),
        (upper, "cancelled", "user_deleted", None),
        (bobs, "scheduled", None, '{"body": "Ask [erased]"}'),
    }
    assert payloads == {addressed: "{}", about: '{"name": "Bob", "manager": "[erased]", "n": 1.10}'}


def test_an_address_that_others_have_too_is_not_hers_alone(engine: Engine) -> None:
    for name in ("ada", "bob"):
        users.put(engine, name, {**ADA, "email": f"{name}@example.com"}, b"{}")
    for name in ("ada", "bob"):
        notification(engine, name, channel="sms", recipient="+4915112345678")
    with pytest.raises(Conflict, match="2 users"):
        erasure.erase_address(engine, VAULT, Channel.SMS, "+4915112345678")
    finish(engine, erasure.erase_user(engine, VAULT, "ada"))
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT user_id, recipient FROM notifications ORDER BY id")).all()
        assert [tuple(row) for row in kept] == [(None, None), ("bob", "+4915112345678")]
    # Of one user alone it is the address of that person.
    finish(engine, erasure.erase_address(engine, VAULT, Channel.SMS, "+4915112345678"))
    assert still_in(engine, "4915112345678", "bob") == []


def test_where_somebody_was_sent_to_before_is_theirs(engine: Engine) -> None:
    users.put(engine, "ada", ADA, b"{}")
    notification(engine, "ada", recipient="before@example.com")
    direct = notification(engine, None, recipient="before@example.com", content='{"body": "before"}')
    other = event(engine, None, '{"cc": "before@example.com"}')
    finish(engine, erasure.erase_user(engine, VAULT, "ada"))
    assert still_in(engine, "before@example.com", "ada@example.com") == []
    del direct, other


def test_what_came_afterwards_is_not_touched(engine: Engine) -> None:
    """A person who comes back while the erasure goes on is a new one."""
    users.put(engine, "ada", ADA, b"{}")
    erasure_id = erasure.erase_user(engine, VAULT, "ada")
    users.put(engine, "ada", ADA, b'{"again": "ada@example.com"}')
    row = notification(engine, "ada", recipient="ada@example.com", content='{"body": "ada@example.com"}')
    insert(engine, "idempotency_keys", source="s", key="ada@example.com", fingerprint=b"x", ids=[row],
           created_at=datetime.now(UTC), expires_at=datetime.now(UTC) + timedelta(days=1))  # fmt: skip
    finish(engine, erasure_id)
    assert set(still_in(engine, "ada@example.com")) >= {"users", "notifications", "idempotency_keys"}
    # A row of before that came late goes: ids are of the time of what they were made for.
    late = derived_id(int(datetime.now(UTC).timestamp() * 1000) - 60_000, "late")
    erasure_id = erasure.erase_user(engine, VAULT, "ada")
    notification(engine, "ada", id=late, recipient="ada@example.com")
    finish(engine, erasure_id)
    assert still_in(engine, "ada@example.com") == []


def test_it_says_nothing_of_whom_it_means_and_a_lost_key_holds_up_no_other(engine: Engine) -> None:
    users.put(engine, "ada", ADA, b"{}")
    lost = erasure.erase_user(engine, Vault([new_key()]), "ada")
    assert still_in(engine, "ada@example.com", "4915112345678", '"ada"') == []
    finish(engine, erasure.erase_address(engine, VAULT, Channel.EMAIL, MARK))
    assert lost is not None
    stuck = erasure.find(engine, lost)
    assert stuck is not None
    assert stuck.status == "running"


def test_it_dies_anywhere_and_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "_BATCH", 3)
    for n in range(10):
        event(engine, None, json.dumps({"n": n, "to": MARK}))
    users.put(engine, "bob", {**ADA, "email": "bob@example.com"}, json.dumps({"chief": MARK}).encode())
    erasure_id = erasure.erase_address(engine, VAULT, Channel.EMAIL, MARK)
    step, calls = erasure.redact, []

    def dies(*arguments: Any) -> Any:
        done = step(*arguments)
        calls.append(1)
        if len(calls) % 2:
            raise RuntimeError("as if it were killed before the commit")
        return done

    monkeypatch.setattr(erasure, "redact", dies)
    for _ in range(200):
        erasure.go_on(engine, VAULT)
        with engine.begin() as connection:
            connection.execute(text("UPDATE erasures SET due_at = now() WHERE due_at IS NOT NULL"))
    assert finish(engine, erasure_id).erased == 11
    assert still_in(engine, MARK) == []


def test_whom_it_means_is_encrypted_anew_with_a_new_key(engine: Engine) -> None:
    old, new = new_key(), new_key()
    erasure_id = erasure.erase_address(engine, Vault([old]), Channel.EMAIL, MARK)
    unsealed = erasure.erase_address(engine, Vault(()), Channel.EMAIL, MARK)
    assert erasure.rekey(engine, Vault([new, old])) == 2
    assert still_in(engine, MARK) == []
    while erasure.go_on(engine, Vault([new])):
        pass
    for each in (erasure_id, unsealed):
        found = erasure.find(engine, each)
        assert found is not None
        assert found.status == "finished"


def test_what_cannot_be_erased_at_once_is_left_to_the_clock(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    users.put(engine, "ada", ADA, b"{}")
    notification(engine, "ada", recipient="ada@example.com")
    with monkeypatch.context() as patched:
        patched.setattr(erasure, "_ERASE_NOTIFICATIONS", text("SELECT 1 / 0, :ids"))
        erasure_id = erasure.erase_user(engine, VAULT, "ada")
    assert "notifications" in still_in(engine, "ada@example.com")
    finish(engine, erasure_id)
    assert still_in(engine, "ada@example.com") == []


def test_an_id_of_a_service_is_no_person_who_has_all_its_addresses(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "_MOST", 2)
    for n in range(3):
        notification(engine, "service-1", recipient=f"r{n}@example.com")
    others = notification(engine, None, recipient="r1@example.com")
    finish(engine, erasure.erase_id(engine, VAULT, "service-1"))
    with engine.connect() as connection:
        kept = connection.scalars(text("SELECT id FROM notifications WHERE recipient IS NOT NULL")).all()
    assert kept == [others]


def test_postgres_finds_each_spelling(engine: Engine) -> None:
    documents = []
    for written in SPELLINGS:
        escaped = "".join(f"\\u{ord(each):04x}" for each in written)
        plain = json.dumps({"a": written})
        documents += [plain, plain.replace("/", "\\/"), f'{{"a": "{escaped}"}}']
    query = text("""
        SELECT it FROM unnest(:documents) AS it
        WHERE it !~* :pattern OR NOT translate(lower(it), :separators, '') LIKE ANY(:likes)
    """)
    values = {"documents": documents, "pattern": PERSON.sql_pattern(), "likes": PERSON.sql_likes()}
    with engine.connect() as connection:
        missed = connection.scalars(query, {**values, "separators": SEPARATORS}).all()
    assert missed == []
    assert [each for each in documents if ERASED not in PERSON.taken_out_of_json(each)] == []


def test_postgres_finds_ids_that_are_mere_numbers(engine: Engine) -> None:
    ours = event(engine, None, '{"user_id": "7", "n": 7, "of": {"userId":7}}')
    theirs = event(engine, None, '{"user_id": "77", "order": "7"}')
    finish(engine, erasure.erase_id(engine, VAULT, "7"))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, CAST(payload AS text) AS payload FROM events"))
        payloads = {row.id: row.payload for row in rows}
    assert payloads[ours] == '{"user_id": "[erased]", "n": 7, "of": {"userId":"[erased]"}}'
    assert payloads[theirs] == '{"user_id": "77", "order": "7"}'


def test_settings_that_name_them_are_said(engine: Engine) -> None:
    now = {"created_at": datetime.now(UTC), "updated_at": datetime.now(UTC)}
    definition = json.dumps({"to": {"recipient": MARK}})
    insert(engine, "routes", id=new_id(), name="r", event_type="x", definition=definition, enabled=True, **now)
    assert finish(engine, erasure.erase_address(engine, VAULT, Channel.EMAIL, MARK)).left_in == ["routes"]
    assert still_in(engine, MARK) == ["routes"]


def test_of_a_suppression_the_hash_goes_on_to_hold(engine: Engine) -> None:
    given = {"channel": "email", "address": "Gone.zq@example.com", "reason": "hard_bounce", "until": None}
    suppressions.add(engine, given)
    finish(engine, erasure.erase_address(engine, VAULT, Channel.EMAIL, MARK))
    assert still_in(engine, MARK) == []
    document = json.loads(b"".join(export.export_address(engine, Channel.EMAIL, "GONE.zq@example.com")))
    assert [(each["address"], each["reason"]) for each in document["suppressions"]] == [("[erased]", "hard_bounce")]
    # Erased again, with a new one beside it.
    suppressions.add(engine, {**given, "reason": "manual"})
    finish(engine, erasure.erase_address(engine, VAULT, Channel.EMAIL, MARK))
    assert "hard_bounce" not in dump(engine)["suppressions"]
    assert suppressions.remove(engine, Channel.EMAIL, MARK)
    assert dump(engine)["suppressions"] == "[]"


def test_they_are_exported_by_an_address(engine: Engine) -> None:
    row = notification(engine, None, recipient=MARK, event_id=event(engine, None, '{"for": "them"}'))
    with engine.begin() as connection:
        connection.execute(text("UPDATE events SET recipient = :mark"), {"mark": MARK})
    notification(engine, None, recipient="other@example.com")
    document = json.loads(b"".join(export.export_address(engine, Channel.EMAIL, MARK)))
    assert (document["user"], [each["id"] for each in document["notifications"]]) == (None, [str(row)])
    assert [each["payload"] for each in document["events"]] == [{"for": "them"}]
