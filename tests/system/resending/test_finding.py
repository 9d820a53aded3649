"""Finding what is to be sent again, by all that is known of it."""

from uuid import uuid4

from tests.support.receivers import HttpReceiver
from tests.support.resending import FAR, dead, put_user
from tests.support.running import Running, reaches, wait_for


def test_what_a_request_brought_is_found_by_all_that_is_known_of_it(system: Running) -> None:
    put_user(system, "u-found", push_tokens=["found"])
    keys = {"cancellation_key": "ck-found", "dedup_key": "dk-found", "idempotency_key": "ik-found"}
    asked = {"user_id": "u-found", "channel": "push", "category": "found", **keys, "dedup_window": "PT1H"}
    headers = {"X-Request-Id": "req-found"}
    event = system.post("/api/v1/events", {"event_type": "found.event", **asked}, headers=headers).json()["id"]
    wait_for(lambda: system.notifications(event))
    notification = system.finished(event)
    assert {name: notification[name] for name in ("event_type", "source", "request_id")} == {
        "event_type": "found.event",
        "source": "anonymous",
        "request_id": "req-found",
    }
    provider = system.notification(notification["id"])["attempt_log"][0]["provider"]
    system.sql("UPDATE attempts SET message_id = 'm+found' WHERE notification_id = :id", id=notification["id"])
    known = {"user_id": "u-found", "category": "found", "request_id": "req-found", **keys}
    for name, value in {**known, "event_id": event, "message_id": "m+found"}.items():
        found = system.get("/api/v1/notifications", params={name: value}).json()["items"]
        assert [each["id"] for each in found] == [notification["id"]], name
    for name, value in {"provider": provider, "source": "anonymous"}.items():
        found = system.get("/api/v1/notifications", params={name: value, "request_id": "req-found"}).json()["items"]
        assert [each["id"] for each in found] == [notification["id"]], name
    of_made = {"notification_id": notification["id"], "message_id": "m+found", "event_id": event}
    for name, value in {**known, **of_made, "provider": provider}.items():
        params = {name: value, "request_id": "req-found"}
        found = system.get("/api/v1/events", params=params).json()["items"]
        assert [each["id"] for each in found] == [event], name
    for name in (*of_made, "subscription_id"):
        found = system.get("/api/v1/events", params={name: str(uuid4())}).json()["items"]
        assert found == [], name
    for name in ("provider", "reason"):
        params = {name: "other", "request_id": "req-found"}
        assert system.get("/api/v1/events", params=params).json()["items"] == []
    for name in known:
        assert system.get("/api/v1/notifications", params={name: "other"}).json()["items"] == []


def test_dead_letters_are_found_and_requeued_by_all_that_is_known_of_them(system: Running, http: HttpReceiver) -> None:
    keys = {"cancellation_key": "ck-dead", "dedup_key": "dk-dead", "idempotency_key": "ik-dead"}
    notification, letter = dead(system, http, "u-found-dead", **keys, dedup_window="PT1H")
    attempt = system.notification(notification)["attempt_log"][0]
    system.sql("UPDATE attempts SET message_id = 'm+dead' WHERE notification_id = :id", id=notification)
    address = http.url("/u-found-dead")
    known = {
        **keys,
        "user_id": "u-found-dead",
        "request_id": system.notification(notification)["request_id"],
        "event_id": letter["event_id"],
        "message_id": "m+dead",
        "recipient": address,
    }
    for name, value in known.items():
        assert found_letters(system, **{name: value}) == [letter["id"]], name
        assert found_letters(system, **{name: str(uuid4())}) == [], name
    assert found_letters(system, user_id="u-found-dead", provider=attempt["provider"]) == [letter["id"]]
    assert found_letters(system, user_id="u-found-dead", provider="other") == []
    assert found_letters(system, user_id="u-found-dead", subscription_id=str(uuid4())) == []
    assert system.post("/api/v1/dead-letters/requeue", {"message_id": "other"}).json()["requeued"] == 0
    assert system.post("/api/v1/dead-letters/requeue", {"recipient": [address]}).status_code == 422
    asked = {"recipient": address, "message_id": "m+dead", "provider": attempt["provider"], **keys}
    assert system.post("/api/v1/dead-letters/requeue", asked).json()["requeued"] == 1
    reaches(system, notification, "delivered")


def test_an_event_that_broke_fan_out_is_found_by_its_address(system: Running) -> None:
    event = system.event(event_type="found.broken", recipient="+4915112340099", channel="sms", send_at=FAR)
    letter = str(uuid4())
    system.sql(
        "INSERT INTO dead_letters (id, event_id, claims, event_type, reason, attempts, created_at)"
        " VALUES (:id, :event, 0, 'found.broken', 'fan_out_failed', 0, now())",
        id=letter,
        event=event,
    )
    # As a browser sends a plus that nobody escaped, and as people write numbers.
    for form in ("+4915112340099", " 4915112340099", "+49 1511 2340099"):
        assert found_letters(system, recipient=form) == [letter], form
        found = system.get("/api/v1/events", params={"recipient": form}).json()["items"]
        assert [each["id"] for each in found] == [event], form
    assert found_letters(system, recipient="+4915112340099", provider="twilio") == []
    system.sql("DELETE FROM dead_letters WHERE id = :id", id=letter)


def found_letters(system: Running, **params: str) -> list[str]:
    answer = system.get("/api/v1/dead-letters", params=params)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["items"]]
