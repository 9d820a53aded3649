"""Callers beside each other: what one names by a key or an id is its own source's, and nobody else's."""

from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from notifier.notifications import cancellation
from notifier.security import api_keys
from notifier.vocabulary.errors import Conflict, Invalid
from tests.support.callers import Caller, Callers
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, reaches, wait_for

FAR = "2040-06-01T12:00:00Z"
LATER = {"channel": "push", "send_at": FAR}


def status(system: Running, notification_id: str) -> tuple[str, str | None]:
    found = system.notification(notification_id)
    return found["status"], found["reason"]


def without_path(problem: Any) -> Any:
    """A problem but for what names the request itself."""
    return {name: value for name, value in problem.items() if name not in {"instance", "request_id"}}


def unknown(caller: Caller, way: str) -> Any:
    """Ask with an id that nobody has, and return the problem."""
    answer = caller.post(way.format(uuid4()))
    assert answer.status_code == 404, answer.text
    return without_path(answer.json())


def refused(caller: Caller, way: str, its_id: str) -> None:
    """Make sure that an id of another source is answered as one that nobody has."""
    answer = caller.post(way.format(its_id))
    assert answer.status_code == 404, answer.text
    assert without_path(answer.json()) == unknown(caller, way)


# Keys.


def test_keys_of_one_service_share_a_source(callers: Callers, system: Running) -> None:
    one, other = callers.new(name="shared-1", source="shared"), callers.new(name="shared-2", source="shared")
    by_name = callers.new(name="named")
    body = {"event_type": "x", "idempotency_key": "the-same"}
    first, second, third = (each.post("/api/v1/events", body).json() for each in (one, other, by_name))
    assert (second["id"], second["duplicate"]) == (first["id"], True)
    assert (third["id"] != first["id"], third["duplicate"]) == (True, False)
    assert [system.get(f"/api/v1/events/{each['id']}").json()["source"] for each in (first, third)] == [
        *("shared", "named")
    ]
    notification = one.made(recipient="shared", **LATER, cancellation_key="k-shared")
    assert other.post(f"/api/v1/notifications/{notification}/cancel").status_code == 200
    again = one.made(recipient="shared", **LATER, cancellation_key="k-shared")
    answer = other.post("/api/v1/notifications/cancel", {"cancellation_key": "k-shared"})
    assert answer.json() == {"cancelled": 1, "too_late": 0}
    assert status(system, again) == ("cancelled", None)


def test_a_name_takes_no_other_key_s_source_unawares(engine: Engine) -> None:
    api_keys.create(engine, "billing-1", ["send"], source="billing")
    with pytest.raises(Conflict, match="billing-1"):
        api_keys.create(engine, "billing", ["send"])
    assert api_keys.revoke(engine, "billing-1")
    with pytest.raises(Conflict, match="billing-1"):
        api_keys.create(engine, "billing", ["send"])
    token = api_keys.create(engine, "billing", ["send"], source="billing")
    api_keys.create(engine, "billing-2", ["send"], source="billing-2")
    found = api_keys.find(engine, token)
    assert found
    assert (found.name, found.source) == ("billing", "billing")
    rotated = api_keys.rotate(engine, "billing")
    assert (api_keys.find(engine, str(rotated)) or found).source == "billing"


@pytest.mark.parametrize("source", ["", "a b", "a/b", "*", "anonymous", "notifier", "x" * 65])
def test_a_wrong_source_is_refused(engine: Engine, source: str) -> None:
    with pytest.raises(Invalid, match="source"):
        api_keys.create(engine, "wrong", ["send"], source=source)


# Cancelling and moving.

CANCEL, RESEND = "/api/v1/notifications/{}/cancel", "/api/v1/notifications/{}/resend"


def test_an_id_of_another_source_is_unknown(callers: Callers, system: Running) -> None:
    owner, other = callers.new(), callers.new(["send", "read", "requeue"])
    scheduled = owner.made(recipient="other-source", **LATER)
    sent = owner.made(recipient="other-source", channel="push")
    reaches(system, sent, "sent")
    for its_id in (scheduled, sent):
        refused(other, CANCEL, its_id)
        refused(other, RESEND, its_id)
    assert status(system, scheduled) == ("scheduled", None)
    assert other.ask("GET", f"/api/v1/notifications/{scheduled}").status_code == 200
    admin = callers.new(["send", "admin"])
    assert admin.post(CANCEL.format(scheduled)).status_code == 200
    assert admin.post(RESEND.format(sent)).status_code == 202
    reaches(system, sent, "sent")


def test_a_cancellation_key_of_another_source_is_neither_cancelled_nor_counted(
    callers: Callers, system: Running, http: HttpReceiver
) -> None:
    owner, other = callers.new(), callers.new()
    scheduled = owner.made(recipient="by-key", **LATER, cancellation_key="k-guessed")
    sent = owner.made(recipient="by-key", channel="push", cancellation_key="k-guessed")
    event = owner.event(cancellation_key="k-guessed", recipient="by-key", **LATER)
    reaches(system, sent, "sent")
    cancel = {"cancellation_key": "k-guessed"}
    assert other.post("/api/v1/notifications/cancel", cancel).json() == {"cancelled": 0, "too_late": 0}
    own = other.made(recipient="by-key", **LATER, cancellation_key="k-guessed")
    assert other.post("/api/v1/notifications/cancel", cancel).json() == {"cancelled": 1, "too_late": 0}
    assert (status(system, scheduled), status(system, own)) == (("scheduled", None), ("cancelled", None))
    [of_event] = wait_for(lambda: system.notifications(event))
    assert of_event["status"] == "scheduled"
    everything = callers.new(["send", "admin"]).post("/api/v1/notifications/cancel", cancel)
    assert everything.json() == {"cancelled": 2, "too_late": 1}


def test_an_event_that_is_not_fanned_out_yet_is_its_own_source_s_too(engine: Engine) -> None:
    with engine.begin() as connection:
        insert = "INSERT INTO events (id, event_type, source, status, payload, critical, priority, cancellation_key,"
        values = "gen_random_uuid(), 'x', source, 'accepted', '{}', false, 'normal', 'k', now(), now()"
        sources = "unnest(ARRAY['one', 'other', 'other']) AS source"
        connection.execute(text(f"{insert} created_at, due_at) SELECT {values} FROM {sources}"))
    assert cancellation.cancel_by_key(engine, "k", "third").cancelled == 0
    assert cancellation.cancel_by_key(engine, "k", "other").cancelled == 2
    assert cancellation.cancel_by_key(engine, "k").cancelled == 1


# Reminders.


def test_a_reminder_is_replaced_by_its_own_source_alone(callers: Callers, system: Running) -> None:
    owner, other = callers.new(), callers.new()
    reminder = {"cancellation_key": "k-reminder", "target_date": FAR, "recipient": "reminded", "channel": "push"}
    first = owner.made(**reminder)
    by_event = owner.event(**reminder)
    [of_event] = wait_for(lambda: system.notifications(by_event))
    other.made(**reminder)
    others = other.event(**reminder)
    assert wait_for(lambda: system.notifications(others))
    assert status(system, first) == status(system, of_event["id"]) == ("scheduled", None)
    owner.made(**reminder)
    assert status(system, first) == ("cancelled", "replaced")


# Deduplication.


def dedup(caller: Caller, key: str, **fields: Any) -> str:
    return caller.made(**{"recipient": key, "channel": "push", "dedup_key": key, "dedup_window": "PT1H", **fields})


EVERYONE = {"dedup_scope": "everyone"}
DUPLICATE = ("skipped", "duplicate")


def end(system: Running, notification_id: str) -> tuple[str, str | None]:
    found = reaches(system, notification_id, "sent", "skipped")
    return found["status"], found["reason"]


def test_a_dedup_key_shadows_no_other_source_s_messages(callers: Callers, system: Running) -> None:
    one, other = callers.new(), callers.new()
    assert [end(system, dedup(each, "d-own")) for each in (one, other)] == [("sent", None)] * 2
    assert [end(system, dedup(each, "d-own")) for each in (one, other)] == [DUPLICATE] * 2
    assert end(system, dedup(one, "d-own", dedup_scope="source")) == DUPLICATE


def test_across_sources_both_must_ask_for_it(callers: Callers, system: Running) -> None:
    one, other, third = callers.new(), callers.new(), callers.new()
    assert end(system, dedup(one, "d-both", **EVERYONE)) == ("sent", None)
    assert end(system, dedup(other, "d-both")) == ("sent", None)
    assert end(system, dedup(other, "d-both", **EVERYONE)) == DUPLICATE
    event = third.event(recipient="d-both", channel="push", dedup_key="d-both", dedup_window="PT1H", **EVERYONE)
    [of_event] = wait_for(lambda: system.notifications(event))
    assert end(system, of_event["id"]) == DUPLICATE
    assert system.get(f"/api/v1/events/{event}").json()["dedup_scope"] == "everyone"
    # A key that one source keeps for itself is not everyone's.
    assert end(system, dedup(one, "d-mine")) == ("sent", None)
    assert end(system, dedup(other, "d-mine", **EVERYONE)) == ("sent", None)


def test_no_dedup_key_is_another_scope_s_by_its_spelling(callers: Callers, system: Running) -> None:
    one, other = callers.new(source="spelled"), callers.new()
    assert end(system, dedup(one, "k", recipient="d-spelled")) == ("sent", None)
    for key in ("spelled/k", "k", "*/k"):
        assert end(system, dedup(other, key, recipient="d-spelled", **EVERYONE)) == ("sent", None)
    assert end(system, dedup(one, "spelled/k", recipient="d-spelled")) == ("sent", None)


def test_what_a_release_without_scopes_has_sent_counts_for_its_source(callers: Callers, system: Running) -> None:
    one, other = callers.new(), callers.new()
    sent = dedup(one, "d-older")
    assert end(system, sent) == ("sent", None)
    system.sql("UPDATE dedup_keys SET key = 'd-older', scope = NULL WHERE notification_id = :id", id=sent)
    assert end(system, dedup(one, "d-older")) == DUPLICATE
    assert end(system, dedup(other, "d-older")) == ("sent", None)
    assert end(system, dedup(one, "d-older", **EVERYONE)) == ("sent", None)


@pytest.mark.parametrize("fields", [{"dedup_scope": "all"}, {"dedup_scope": "everyone"}, {"dedup_scope": True}])
def test_a_dedup_scope_is_checked(callers: Callers, fields: dict[str, Any]) -> None:
    answer = callers.new().post("/api/v1/notifications", {"recipient": "x", "channel": "push", "body": "x", **fields})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["dedup_scope"]


# Dead letters and recoveries.

REQUEUE = "/api/v1/dead-letters/{}/requeue"


def dead(caller: Caller, system: Running, http: HttpReceiver, path: str) -> str:
    """Make a notification fail for good, and return its dead letter's id."""
    http.answer(path, 400)
    notification = caller.made(recipient=http.url(path), channel="webhook")
    reaches(system, notification, "failed")
    [letter] = system.get("/api/v1/dead-letters", params={"notification_id": notification}).json()["items"]
    return str(letter["id"])


def test_dead_letters_of_another_source_are_not_requeued(callers: Callers, system: Running, http: HttpReceiver) -> None:
    owner, other = callers.new(source="letters"), callers.new(["requeue"])
    same = callers.new(["requeue"], source="letters")
    letter, second = (dead(owner, system, http, path) for path in ("/letters-1", "/letters-2"))
    refused(other, REQUEUE, letter)
    for body in ({"all": True}, {"source": "letters"}, {"channel": "webhook"}):
        answer = other.post("/api/v1/dead-letters/requeue", body)
        assert (answer.status_code, answer.json()["requeued"], answer.json()["refused"]) == (202, 0, 0)
    assert same.post(REQUEUE.format(letter)).status_code == 202
    answer = same.post("/api/v1/dead-letters/requeue", {"all": True})
    assert (answer.json()["requeued"], answer.json()["refused"]) == (1, 0)
    assert system.get(f"/api/v1/dead-letters/{second}").json()["requeued_at"] is not None


def test_a_recovery_is_of_the_callers_own_source(callers: Callers, system: Running, http: HttpReceiver) -> None:
    owner, other = callers.new(), callers.new()
    http.answer("/recover-own", 400)
    subscription = {"url": http.url("/recover-own"), "event_types": ["sources.recover"], "permanent_statuses": [400]}
    its_id = system.post("/api/v1/subscriptions", subscription).json()["id"]
    events = [each.event(event_type="sources.recover") for each in (owner, other)]
    of_owner, of_other = (wait_for(partial(system.notifications, event))[0] for event in events)
    for each in (of_owner, of_other):
        reaches(system, each["id"], "failed")
    source = of_owner["source"]
    http.answer("/recover-own", 200)
    way = f"/api/v1/subscriptions/{its_id}/recover"
    begun = callers.new(["requeue"], source=source).post(way, {"since": "2026-01-01T00:00:00Z"}).json()
    assert (begun["total"], begun["recovered"], begun["source"]) == (1, 1, source)
    reaches(system, of_owner["id"], "delivered")
    assert status(system, of_other["id"])[0] == "failed"
    everything = callers.new(["admin"]).post(way, {"since": "2026-01-01T00:00:00Z"}).json()
    assert (everything["total"], everything["recovered"], everything["source"]) == (1, 1, None)
