"""The client's operations: it has all of the API's, and what comes back has the shapes that its types say."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from clients.python.write_types import LEFT_OUT
from notifier_client import Client, Conflict, Forbidden, NotFound
from notifier_client.types import NewDeadLetterAct
from tests.support.callers import Callers
from tests.support.faulty_api import FaultyApi, answer
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, reaches

NOBODY = str(uuid4())


@pytest.fixture
def watched(system: Running) -> Iterator[FaultyApi]:
    """A server before the system's API, which keeps what was asked and answered."""
    with FaultyApi(system.url) as server:
        yield server


@pytest.fixture
def client(watched: FaultyApi) -> Iterator[Client]:
    with Client(watched.url) as client:
        yield client


def send_and_read(client: Client, mark: str) -> None:
    sent = client.events.send({"event_type": mark, "recipient": f"{mark}@example.com", "channel": "email"})
    read = client.events.get(sent["id"])
    assert (read["event_type"], read["notifications"][0]["channel"]) == (mark, "email")
    assert [each["id"] for each in client.events.list(event_type=mark)] == [sent["id"]]
    many = client.events.send_many([{"event_type": mark}, {"event_type": "a b"}])
    assert (many["accepted"], many["rejected"]) == (1, 1)
    assert client.events.replay(sent["id"])["id"] == sent["id"]


def notify(client: Client, system: Running, mark: str) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    to: Any = {"recipient": f"{mark}-n@example.com", "channel": "email", "body": "x"}
    [waiting] = client.notifications.send({**to, "send_at": later, "cancellation_key": mark})["items"]
    moved = client.notifications.move(waiting["id"], {"send_at": later + timedelta(hours=1)})
    assert moved["send_at"] != waiting["send_at"]
    assert client.notifications.content(waiting["id"])["text"] == "x"
    assert client.notifications.cancel(waiting["id"])["status"] == "cancelled"
    assert client.notifications.cancel_by_key(mark) == {"cancelled": 0, "too_late": 0}
    [sent] = client.notifications.send(to)["items"]
    reaches(system, sent["id"], "sent")
    with pytest.raises(Conflict):
        client.notifications.cancel(sent["id"])
    client.notifications.resend(sent["id"])
    reaches(system, sent["id"], "sent")
    with pytest.raises(Conflict, match="one provider"):
        client.notifications.resend(sent["id"], another_provider=True)
    assert next(each["outcome"] for each in client.notifications.attempts(sent["id"])) == "accepted"
    assert client.notifications.get(sent["id"])["earlier_sends"]
    assert {each["id"] for each in client.notifications.list(recipient=to["recipient"])} == {sent["id"], waiting["id"]}


def keep_people(client: Client, mark: str) -> None:
    address = f"{mark}-p@example.com"
    assert client.users.put(mark, {"email": address, "timezone": "Europe/Berlin"})["user_id"] == mark
    assert client.users.get(mark, reveal=True)["email"] == address
    assert [each["user_id"] for each in client.users.list(address=address)] == [mark]
    client.preferences.put(mark, {"channels": {"email": False}, "quiet_hours": [{"start": "22:00", "end": "07:00"}]})
    assert client.preferences.get(mark)["channels"] == {"email": False}
    decision = client.preferences.check({"user_id": mark, "channel": "email"})
    assert not decision["allowed"]
    assert client.users.export(mark)["user"]
    for lift in ("address", "id"):
        suppressed = client.suppressions.add({"channel": "email", "address": address})
        assert [each["id"] for each in client.suppressions.list(address=address)] == [suppressed["id"]]
        if lift == "address":
            client.suppressions.lift(channel="email", address=address)
        else:
            client.suppressions.lift_by_id(suppressed["id"])
    assert client.people.export({"user_id": mark})["user"]
    client.users.delete(mark)
    erasure = client.people.erase({"user_id": mark})
    assert client.people.erasure(erasure["id"])["id"] == erasure["id"]
    assert erasure["id"] in {each["id"] for each in client.people.erasures()}


def write_content(client: Client, mark: str) -> None:
    written = client.templates.put(mark, {"channel": "email", "subject": "Hi", "text": "Hello {{ payload.name }}"})
    assert written["version"] == 1
    assert client.templates.get(mark, channel="email")["variants"]
    assert mark in {each["name"] for each in client.templates.list()}
    assert [each["version"] for each in client.templates.versions(mark)] == [1]
    assert client.templates.preview(mark, {"data": {"name": "Ada"}})["text"] == "Hello Ada"
    client.routes.put(mark, {"event_type": mark, "to": {"user_id": "payload.user_id"}, "channels": ["email"]})
    assert client.routes.get(mark)["to"] == {"user_id": "payload.user_id"}
    assert mark in {each["name"] for each in client.routes.list()}
    assert client.holds.put(mark)["target"] == mark
    assert mark in {each["target"] for each in client.holds.list()}
    client.holds.release(mark)
    client.routes.delete(mark)
    with pytest.raises(NotFound):
        client.routes.get(mark)


def subscribe(client: Client, system: Running, url: str, mark: str) -> None:
    made = client.subscriptions.create({"url": url, "event_types": [f"{mark}.heard"]})
    assert made["secret"].startswith("whsec_")
    identity = made["id"]
    assert client.subscriptions.rotate_secret(identity)["secret"] != made["secret"]
    assert client.subscriptions.change(identity, {"description": mark})["description"] == mark
    assert client.subscriptions.get(identity)["description"] == mark
    assert identity in {each["id"] for each in client.subscriptions.list(enabled=True)}
    reaches(system, client.subscriptions.test(identity)["id"], "delivered")
    assert len(list(client.subscriptions.notifications(identity))) == 1
    assert client.subscriptions.enable(identity)["recovery"] is None
    since = datetime.now(UTC) - timedelta(hours=1)
    assert client.subscriptions.enable(identity, recover_since=since)["recovery"]
    recovery = client.subscriptions.recover(identity, since=since)
    assert client.subscriptions.recovery(identity, recovery["id"])["subscription_id"] == identity
    assert recovery["id"] in {each["id"] for each in client.subscriptions.recoveries(identity)}
    client.subscriptions.delete(identity)


def operate(client: Client, system: Running, url: str) -> None:
    event_id = client.events.send({"event_type": "client.dead", "recipient": url, "channel": "webhook"})["id"]
    letter = system.dead_letter(event_id)
    assert client.dead_letters.get(letter["id"])["event_id"] == event_id
    assert letter["id"] in {each["id"] for each in client.dead_letters.list(event_id=event_id)}
    assert client.dead_letters.requeue(letter["id"])["requeued_at"]
    assert client.dead_letters.requeue_many({"event_id": NOBODY})["requeued"] == 0
    chosen: NewDeadLetterAct = {"act": "requeue", "filter": {"event_id": NOBODY}}
    assert client.dead_letters.preview(chosen)["total"] == 0
    act = client.dead_letters.begin(chosen)
    assert client.dead_letters.act(act["id"])["status"] == "finished"
    assert act["id"] in {each["id"] for each in client.dead_letters.acts()}
    for change in (client.dead_letters.stop, client.dead_letters.resume):
        with pytest.raises(Conflict):
            change(act["id"])
    assert client.dead_letters.groups(by="reason,error")["by"] == ["reason", "error"]
    client.dead_letters.delete(system.dead_letter(event_id)["id"])
    assert next(iter(client.operating.audit()))["action"]
    found = client.operating.search(q=event_id, created_after=datetime.now(UTC) - timedelta(hours=1))
    assert {each["type"] for each in found["items"]} == {"event", "notification", "dead_letter"}
    assert client.operating.statistics()["by"] == "channel"
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert client.operating.statistics({"by": "queue", "step": "minute", "from": since})["step"] == "minute"
    assert client.operating.state()["queues"]
    assert client.operating.health() == {"status": "ok"}
    assert client.operating.ready()["checks"]
    assert "notifier_" in client.operating.metrics()


def test_each_operation_works_and_answers_as_its_type_says(
    system: Running, watched: FaultyApi, client: Client, http: HttpReceiver
) -> None:
    mark = f"client-{uuid4().hex}"
    http.answer("/client-dead", 410)
    send_and_read(client, mark)
    notify(client, system, mark)
    keep_people(client, mark)
    write_content(client, mark)
    subscribe(client, system, http.url("/client-heard"), mark)
    operate(client, system, http.url("/client-dead"))
    description = system.get("/openapi.json").json()
    made = {check_answer(description, *each) for each in watched.answered}
    operations = {each["operationId"] for item in description["paths"].values() for each in item.values()}
    assert made == operations - LEFT_OUT


def check_answer(description: dict[str, Any], asked: Any, answer: Any) -> str:
    """Hold an answer to what the description says, as the types do, and return its operation."""
    path = asked.path.partition("?")[0]
    found = [each for each in description["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each), path)]
    # `notifications/cancel` is no id.
    operation = description["paths"][min(found, key=lambda each: each.count("{"))][asked.method.lower()]
    content = operation["responses"][str(answer.status_code)].get("content", {})
    for media_type, each in content.items():
        if media_type.endswith("json"):
            schema = nullable({**each["schema"], "components": description["components"]})
            jsonschema.Draft202012Validator(schema).validate(answer.json())
    return str(operation["operationId"])


def nullable(part: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema has it."""
    if isinstance(part, list):
        return [nullable(each) for each in part]
    if not isinstance(part, dict):
        return part
    schema = {name: nullable(each) for name, each in part.items() if name not in {"nullable", "pattern"}}
    return {"anyOf": [{"type": "null"}, schema]} if part.get("nullable") is True else schema


def test_lists_go_through_all_pages_and_stay_in_order(system: Running, watched: FaultyApi, client: Client) -> None:
    kind = f"pages.{uuid4().hex}"
    client.events.send_many([{"event_type": kind, "payload": {"n": n}} for n in range(25)])
    watched.asked.clear()
    listing = client.events.list(event_type=kind, limit=10)
    assert not watched.asked
    seen = iter(listing)
    first = next(seen)
    client.events.send({"event_type": kind, "payload": {"n": 99}})
    rest = list(seen)
    assert len(watched.asked) == 4
    assert [first, *rest] == sorted([first, *rest], key=lambda each: each["id"], reverse=True)
    assert {each["payload"]["n"] for each in [first, *rest] if each["payload"]} == set(range(25))
    assert [len(page["items"]) for page in listing.pages()] == [10, 10, 6]
    cursor = next(listing.pages())["next_cursor"]
    assert len(list(client.events.list(event_type=kind, cursor=cursor))) == 16
    assert len(list(client.events.list(event_type=kind, created_after=datetime.now(UTC) + timedelta(hours=1)))) == 0


def test_an_api_that_is_not_ready_says_how_its_parts_are(watched: FaultyApi, client: Client) -> None:
    ready = {"status": "unavailable", "sandbox": False, "checks": {"postgres": {"status": "failed", "detail": "away"}}}
    watched.script.append(answer(503, ready))
    assert client.operating.ready() == ready
    assert len(watched.asked) == 1


def test_a_key_sends_and_is_refused_what_it_may_not(callers: Callers) -> None:
    caller = callers.new(["send"])
    with Client(caller.url, key=caller.key) as client:
        sent = client.notifications.send({"recipient": "ada@example.com", "channel": "email", "body": "x"})
        assert sent["items"][0]["recipient"] == "ada@example.com"
        with pytest.raises(Forbidden):
            list(client.notifications.list())
