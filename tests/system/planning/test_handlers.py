"""Handlers: the example of docs/handlers.md, and those that fail."""

import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.handlers import install
from tests.support.paths import ROOT
from tests.support.running import Running, made_of, wait_for

#: Handlers as nobody should write them, and one that is fine.
CRANKS = '''
import asyncio
import sys

from notifier.plugin_api import Channel
from notifier.plugin_api import Plan

class Overslept(Exception):
    pass

def raises(event):
    yield Plan(user_id="u_crank")
    raise Overslept("secret-of-the-event")

def exits(event):
    sys.exit(1)

def interrupts(event):
    yield Plan(user_id="u_crank")
    raise KeyboardInterrupt

def is_cancelled(event):
    raise asyncio.CancelledError

def stops(event):
    raise StopIteration

def has_no_memory(event):
    raise MemoryError

class Endless(BaseException):
    """Like GreenletExit."""

def leaves(event):
    raise Endless("secret-of-the-event")

def nothing(event):
    return None

def words(event):
    return "abc"

def rubbish(event):
    return [Plan(user_id="u_crank"), {"user_id": "u_crank"}]

def both(event):
    """Without a channel for the address: a mistake that shows only later."""
    return [Plan(recipient="x@example.com")]

def twice(event):
    for body in ("one", "two"):
        yield Plan(user_id="u_crank", channels=(Channel.SMS,), content={"subject": None, "body": body})

def forms(event):
    """An address in another form than the one in which it is kept, and one that is none."""
    yield Plan(recipient="Forms@XN--BCHER-KVA.example.com", channels=(Channel.EMAIL,), critical=True)
    yield Plan(recipient="nobody", channels=(Channel.EMAIL,))

def fine(event):
    yield Plan(user_id="u_crank", template="nowhere")
    yield Plan(user_id="u_stranger")
    yield Plan(user_id="with/slash")
    yield Plan(recipient="fine@example.com", channels=(Channel.EMAIL,), critical=True, category=event["category"])
'''


CRANKS_ENTRIES = {
    **{
        f"crank.{name}": f"cranks:{name}"
        for name in ("raises", "nothing", "words", "rubbish", "both", "twice", "forms", "fine")
    },
    **{
        f"crank.{name}": f"cranks:{name}"
        for name in ("exits", "interrupts", "is_cancelled", "stops", "has_no_memory", "leaves")
    },
    "exiting.*": "exits_at_once:notify",
    "gone.*": "no_such_module:notify",
}


def blocks(language: str) -> list[str]:
    """The code blocks of docs/handlers.md in a language."""
    text = (ROOT / "docs/handlers.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def system(new_system: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A system with handlers."""
    folder = tmp_path_factory.mktemp("packages")
    [project], [source] = ([tomllib.loads(text) for text in blocks("toml")], blocks("python"))
    example = project["project"]
    [module] = project["tool"]["setuptools"]["py-modules"]
    entries = example["entry-points"]["notifier.handlers"]
    install(folder, example["name"], example["version"], entries, {module: source})
    exits = {"exits_at_once": "import sys; sys.exit(0)"}
    install(folder, "cranks", "1", CRANKS_ENTRIES, {"cranks": CRANKS, **exits})
    running = new_system(PYTHONPATH=str(folder))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def user(system: Running, user_id: str, **fields: Any) -> None:
    assert system.http.put(f"{system.url}/api/v1/users/{user_id}", json=fields, timeout=20).ok


def test_the_example_tells_each_seller_their_own_lines(system: Running) -> None:
    for seller in ("u_seller_a", "u_seller_b"):
        user(system, seller, email=f"{seller}@example.com", phone="+4915112345601")
    lines = [
        {"seller": "u_seller_a", "article": "teapot", "count": 1},
        {"seller": "u_seller_b", "article": "cup", "count": 6},
        {"seller": "u_seller_a", "article": "lid", "count": 2},
    ]
    made = made_of(system, "order.placed", {"number": 7, "buyer": "u_buyer", "lines": lines})
    assert sorted((each["user_id"], each["channel"], each["category"]) for each in made) == [
        ("u_seller_a", "email", "sales"),
        ("u_seller_b", "email", "sales"),
    ]
    wait_for(lambda: all(system.notification(each["id"])["status"] == "sent" for each in made))
    rows = system.sql("SELECT recipient, subject, text FROM outbox WHERE recipient LIKE 'u_seller_%' ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("u_seller_a@example.com", "To pack: order 7", "1 × teapot\n2 × lid"),
        ("u_seller_b@example.com", "To pack: order 7", "6 × cup"),
    ]


def test_an_address_is_compared_in_the_form_in_which_it_is_kept(system: Running) -> None:
    body = {"address": "forms@bücher.example.com", "channel": "email"}
    assert system.post("/api/v1/suppressions", body).status_code == 201
    made = made_of(system, "crank.forms", {})
    wait_for(lambda: all(system.notification(each["id"])["status"] == "skipped" for each in made), 20)
    found = {(each["recipient"], system.notification(each["id"])["reason"]) for each in made}
    assert found == {("Forms@bücher.example.com", "suppressed"), (None, "invalid_address")}


def test_the_example_asks_the_buyer_three_days_later(system: Running) -> None:
    user(system, "u_buyer", email="buyer@example.com")
    occurred_at = "2030-01-01T09:00:00+01:00"
    order = {"number": 7, "buyer": "u_buyer"}
    [made] = made_of(system, "order.delivered", order, occurred_at=occurred_at)
    assert (made["status"], made["category"], made["route"]) == ("scheduled", "feedback", None)
    assert datetime.fromisoformat(made["due_at"]) == datetime.fromisoformat(occurred_at) + timedelta(days=3)


@pytest.mark.parametrize("fields", [{"user_id": "u_buyer"}, {"recipient": "a@example.com", "channel": "email"}])
def test_an_event_that_names_somebody_is_not_for_handlers(system: Running, fields: dict[str, str]) -> None:
    user(system, "u_buyer", email="buyer@example.com")
    [made] = made_of(system, "order.delivered", {"number": 8, "buyer": "u_else"}, **fields)
    assert (made["user_id"], made["category"]) == (fields.get("user_id"), None)


def test_other_types_are_not_for_it(system: Running) -> None:
    assert made_of(system, "order.paid", {"number": 7}) == []
    assert made_of(system, "orders", {"number": 7}) == []


def test_a_route_and_a_handler_stand_side_by_side(system: Running) -> None:
    user(system, "u_both", email="both@example.com")
    body = {"event_type": "order.delivered", "to": {"user_id": "payload.buyer"}, "filter": "payload.number == `9`"}
    assert system.http.put(f"{system.url}/api/v1/routes/delivered", json=body, timeout=20).ok
    made = made_of(system, "order.delivered", {"number": 9, "buyer": "u_both"})
    assert {each["route"]: each["status"] == "scheduled" for each in made} == {"delivered": False, None: True}


def test_running_again_makes_nothing_twice(system: Running) -> None:
    user(system, "u_again", email="again@example.com")
    lines = [{"seller": "u_again", "article": "spoon", "count": 1}]
    event_id = system.event(event_type="order.placed", payload={"number": 10, "lines": lines})
    for _ in range(2):
        wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
        [made] = system.notifications(event_id)
        system.sql("UPDATE events SET status = 'accepted', due_at = now() WHERE id = :id", id=event_id)
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
    assert [each["id"] for each in system.notifications(event_id)] == [made["id"]]


def test_plans_that_lead_nowhere_are_on_record(system: Running) -> None:
    user(system, "u_crank", phone="+4915112345602")
    made = made_of(system, "crank.fine", {}, category="alarms")
    assert {(each["user_id"], each["reason"]) for each in made if each["status"] == "skipped"} == {
        ("u_crank", "no_template"),
        ("u_stranger", "no_address"),
        (None, "invalid_address"),
    }
    [mail] = [each for each in made if each["channel"] == "email"]
    assert (mail["recipient"], mail["critical"], mail["category"]) == ("fine@example.com", True, "alarms")


def test_two_plans_for_one_person_are_two_notifications(system: Running) -> None:
    user(system, "u_crank", phone="+4915112345602")
    made = made_of(system, "crank.twice", {})
    wait_for(lambda: all(system.notification(each["id"])["status"] == "sent" for each in made))
    ids = [each["id"] for each in made]
    texts = system.sql("SELECT text FROM outbox WHERE notification_id = ANY(CAST(:ids AS uuid[]))", ids=ids)
    assert sorted(row.text for row in texts) == ["one", "two"]


#: Event types whose handler fails, and the error that their dead letters name.
FAILING = {
    "crank.raises": "Overslept",
    "crank.nothing": "TypeError",
    "crank.words": "TypeError",
    "crank.rubbish": "TypeError",
    "crank.both": "",
    "gone.event": "ModuleNotFoundError",
    "crank.exits": "SystemExit",
    "crank.interrupts": "KeyboardInterrupt",
    "crank.is_cancelled": "CancelledError",
    "crank.stops": "StopIteration",
    "crank.has_no_memory": "MemoryError",
    "crank.leaves": "Endless",
    "exiting.event": "SystemExit",
}


@pytest.fixture(scope="module")
def batch(system: Running) -> dict[str, list[str]]:
    """The ids of one batch's events by their type: those that fail, each between two that do not, once all is over."""
    user(system, "u_beside", email="beside@example.com")
    lines = [{"seller": "u_beside", "article": "spoon", "count": 1}]
    fine = {"event_type": "order.placed", "payload": {"number": 11, "lines": lines}}
    events = [fine]
    for event_type in FAILING:
        events += [{"event_type": event_type, "payload": {"secret": 1}}, fine]
    items = system.post("/api/v1/events/batch", {"events": events}).json()["items"]
    ids = [item["id"] for item in items]

    def over() -> bool:
        # Each try would wait for its lease.
        system.sql("UPDATE events SET due_at = now() WHERE status = 'accepted'")
        return all(system.get(f"/api/v1/events/{each}").json()["status"] != "accepted" for each in ids)

    wait_for(over, 60, "the end of all of a batch's events")
    broken = {event_type: [event_id] for event_type, event_id in zip(FAILING, ids[1::2], strict=True)}
    return {"order.placed": ids[::2], **broken}


def test_those_beside_a_handler_that_fails_are_fanned_out(system: Running, batch: dict[str, list[str]]) -> None:
    for event_id in batch["order.placed"]:
        assert system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed"
        assert len(system.notifications(event_id)) == 1


@pytest.mark.parametrize(("event_type", "error"), FAILING.items())
def test_a_handler_that_fails_is_a_dead_letter(
    system: Running, batch: dict[str, list[str]], event_type: str, error: str
) -> None:
    [event_id] = batch[event_type]
    letter = system.dead_letter(event_id)
    assert (letter["reason"], letter["notification_id"]) == ("fan_out_failed", None)
    assert error in letter["error"]
    assert "secret" not in letter["error"]
    assert system.notifications(event_id) == []


def test_once_it_is_put_right_it_can_be_requeued(system: Running, batch: dict[str, list[str]]) -> None:
    [event_id] = batch["crank.raises"]
    letter = system.dead_letter(event_id)
    assert system.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 202
    assert system.get(f"/api/v1/events/{event_id}").json()["status"] == "accepted"
