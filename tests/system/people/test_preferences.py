"""Preferences: what is asked at the moment of sending, what the answer in advance says, and that the two agree."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests

from tests.support.running import FINISHED, Running, wait_for

PHONE = "+491512346"
OUTCOMES = {
    "suppression": ("skipped", "suppressed"),
    "channel": ("skipped", "opted_out"),
    "category": ("skipped", "opted_out"),
    "quiet_hours": ("scheduled", "quiet_hours"),
    "critical": ("sent", None),
    None: ("sent", None),
}
_numbers = iter(range(1000, 9999))


def put(system: Running, path: str, body: Any) -> requests.Response:
    return system.http.put(f"{system.url}/api/v1/{path}", json=body, timeout=20)


def wishes(system: Running, user_id: str, **preferences: Any) -> None:
    answer = put(system, f"users/{user_id}/preferences", preferences)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def user(system: Running) -> str:
    """A user of this test's own, with an address on every channel but webhooks."""
    return new_user(system)


def new_user(system: Running, **fields: Any) -> str:
    number = next(_numbers)
    user_id = f"prefers-{number}"
    addresses = {"email": f"{user_id}@example.com", "phone": f"{PHONE}{number}"}
    more = {"push_tokens": [f"{user_id}-token"], "chat_url": f"slack://{user_id}/1"}
    assert put(system, f"users/{user_id}", {**addresses, **more, **fields}).status_code == 201
    return user_id


def send(system: Running, user_id: str, channel: str = "sms", **fields: Any) -> dict[str, Any]:
    """One more notification, once it is finished or put off."""
    answer = system.post("/api/v1/notifications", {"user_id": user_id, "channel": channel, "body": "x", **fields})
    assert answer.status_code == 202, answer.text
    [made] = answer.json()["items"]
    return settled(system, made["id"])


def settled(system: Running, notification_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        notification = system.notification(notification_id)
        return notification if notification["status"] in FINISHED or notification["reason"] else None

    return wait_for(look, 20, f"notification {notification_id} to be finished or put off")


def ask(system: Running, user_id: str, channel: str = "sms", **fields: Any) -> dict[str, Any]:
    answer = system.post("/api/v1/preferences/check", {"user_id": user_id, "channel": channel, **fields})
    assert answer.status_code == 200, answer.text
    decision: dict[str, Any] = answer.json()
    assert set(decision) == {"allowed", "at", "rule", "explanation"}
    assert decision["explanation"]
    return decision


def around(zone: str, **rule: Any) -> tuple[dict[str, Any], datetime]:
    """Quiet hours that hold now on a zone's wall clock (which is never set), and when they end."""
    clock = datetime.now(ZoneInfo(zone)).replace(second=0, microsecond=0)
    start, end = clock - timedelta(hours=1), clock + timedelta(hours=2)
    return {"start": f"{start:%H:%M}", "end": f"{end:%H:%M}", **rule}, end.astimezone(UTC)


def quiet(*channels: str) -> list[dict[str, Any]]:
    return [around("UTC", channels=list(channels), timezone="UTC")[0]]


def at(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


# Written and read.


def test_preferences_are_written_whole(system: Running, user: str) -> None:
    url = f"/api/v1/users/{user}/preferences"
    nothing = {"channels": {}, "categories": {}, "quiet_hours": []}
    assert system.get(url).json() == nothing
    given = {
        "channels": {"push": True, "sms": False},
        "categories": {"order_updates": {"email": True, "*": False}, "*": {"chat": False}, "Ü \u2603": {}},
        "quiet_hours": [{"channels": ["push"], "start": "22:00", "end": "07:00", "timezone": None}],
    }
    answer = put(system, f"users/{user}/preferences", given)
    assert (answer.status_code, answer.json()) == (200, given)
    assert system.get(url).json() == given
    rule = {"start": "00:00", "end": "23:59", "timezone": "Europe/Berlin"}
    wishes(system, user, quiet_hours=[rule])
    assert system.get(url).json() == {**nothing, "quiet_hours": [{"channels": [], **rule}]}
    wishes(system, user)
    assert system.get(url).json() == nothing


def test_an_unknown_user_has_none(system: Running) -> None:
    body = {"user_id": "prefers-nobody", "channel": "sms"}
    for answer in (
        system.get("/api/v1/users/prefers-nobody/preferences"),
        put(system, "users/prefers-nobody/preferences", {}),
        system.post("/api/v1/preferences/check", body),
    ):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def night(**fields: Any) -> dict[str, Any]:
    return {"quiet_hours": [{"start": "22:00", "end": "07:00", **fields}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channels": []}, "channels"),
        ({"channels": None}, "channels"),
        ({"channels": {"fax": True}}, "channels.fax"),
        ({"channels": {"*": True}}, "channels.*"),
        ({"channels": {"sms": "false"}}, "channels.sms"),
        ({"channels": {"sms": 0}}, "channels.sms"),
        ({"channels": {"sms": None}}, "channels.sms"),
        ({"categories": {"news": False}}, "categories.news"),
        ({"categories": {"news": {"fax": False}}}, "categories.news.fax"),
        ({"categories": {"news": {"*": "no"}}}, "categories.news.*"),
        ({"categories": {"x" * 65: {}}}, f"categories.{'x' * 65}"),
        ({"categories": {str(n): {} for n in range(501)}}, "categories"),
        ({"categories": {"a\0": {}}}, "categories"),
        ({"categories": {"\ud800": {}}}, "categories"),
        ({"quiet_hours": {}}, "quiet_hours"),
        ({"quiet_hours": [{"end": "07:00"}]}, "quiet_hours.0.start"),
        ({"quiet_hours": [{"start": "07:00"}]}, "quiet_hours.0.end"),
        ({"quiet_hours": night()["quiet_hours"] * 51}, "quiet_hours"),
        (night(end="22:00"), "quiet_hours.0.end"),
        (night(start="24:00"), "quiet_hours.0.start"),
        (night(start="7:00"), "quiet_hours.0.start"),
        (night(start="07:00:30"), "quiet_hours.0.start"),
        (night(start="07:60"), "quiet_hours.0.start"),
        (night(start="07:00\n"), "quiet_hours.0.start"),
        (night(start="2\u0662:00"), "quiet_hours.0.start"),
        (night(start=22), "quiet_hours.0.start"),
        (night(timezone="Mars/Olympus"), "quiet_hours.0.timezone"),
        (night(timezone="+02:00"), "quiet_hours.0.timezone"),
        (night(channels=["fax"]), "quiet_hours.0.channels.0"),
        (night(channels="push"), "quiet_hours.0.channels"),
        (night(days=["monday"]), "quiet_hours.0.days"),
        ({"email": False}, "email"),
    ],
)
def test_what_is_wrong_is_a_422(system: Running, body: dict[str, Any], field: str) -> None:
    user_id = "prefers-strictly"
    put(system, f"users/{user_id}", {})
    wishes(system, user_id, channels={"chat": False})
    answer = put(system, f"users/{user_id}/preferences", body)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()["errors"]) == [field]
    assert system.get(f"/api/v1/users/{user_id}/preferences").json()["channels"] == {"chat": False}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 256}, "user_id"),
        ({"channel": None}, "channel"),
        ({"channel": "fax"}, "channel"),
        ({"category": "a b"}, "category"),
        ({"category": "x" * 65}, "category"),
        ({"critical": "yes"}, "critical"),
        ({"at": "2026-11-21T09:00:00"}, "at"),
        ({"at": "now"}, "at"),
        ({"recipient": "a@example.com"}, "recipient"),
    ],
)
def test_a_wrong_question_is_a_422(system: Running, user: str, fields: dict[str, Any], field: str) -> None:
    answer = system.post("/api/v1/preferences/check", {"user_id": user, "channel": "sms", **fields})
    assert answer.status_code == 422, answer.text
    assert list(answer.json()["errors"]) == [field]


# Asked, and then done: the answer in advance agrees with what happens.

NEWS = {"category": "news"}
CRITICAL = {"critical": True}
RULES: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    ("nothing set", {}, {}, None),
    ("nothing set", {}, NEWS, None),
    ("critical", {}, CRITICAL, "critical"),
    ("channel off", {"channels": {"sms": False}}, {}, "channel"),
    ("channel off", {"channels": {"sms": False}}, CRITICAL, "critical"),
    ("channel off", {"channels": {"sms": False}, "categories": {"news": {"sms": True}}}, NEWS, "channel"),
    ("other channel off", {"channels": {"email": False, "sms": True}}, NEWS, None),
    ("category off", {"categories": {"news": {"sms": False}}}, NEWS, "category"),
    ("category off", {"categories": {"news": {"sms": False}}, "channels": {"sms": True}}, NEWS, "category"),
    ("category off", {"categories": {"news": {"sms": False}}}, {**NEWS, **CRITICAL}, "critical"),
    ("category off", {"categories": {"news": {"sms": False}}}, {"category": "orders"}, None),
    ("category off", {"categories": {"news": {"sms": False}}}, {}, None),
    ("rest off", {"categories": {"news": {"email": True, "*": False}}}, NEWS, "category"),
    ("rest off, this on", {"categories": {"news": {"sms": True, "*": False}}}, NEWS, None),
    ("rest on, this off", {"categories": {"news": {"sms": False, "*": True}}}, NEWS, "category"),
    ("unset", {"categories": {"news": {"email": False}}}, NEWS, None),
    ("all others off", {"categories": {"orders": {"*": True}, "*": {"*": False}}}, NEWS, "category"),
    ("all others off", {"categories": {"news": {}, "*": {"*": False}}}, NEWS, None),
    ("without a category", {"categories": {"general": {"sms": False}}}, {}, "category"),
    ("quiet", {"quiet_hours": quiet("sms")}, NEWS, "quiet_hours"),
    ("quiet everywhere", {"quiet_hours": quiet()}, {}, "quiet_hours"),
    ("quiet elsewhere", {"quiet_hours": quiet("push", "email")}, {}, None),
    ("quiet, critical", {"quiet_hours": quiet("sms")}, CRITICAL, "critical"),
    ("quiet, off", {"quiet_hours": quiet("sms"), "channels": {"sms": False}}, {}, "channel"),
    ("quiet, off", {"quiet_hours": quiet("sms"), "categories": {"*": {"*": False}}}, {}, "category"),
    ("suppressed", {}, {}, "suppression"),
    ("suppressed", {}, CRITICAL, "suppression"),
    ("suppressed", {"channels": {"sms": False}, "quiet_hours": quiet()}, NEWS, "suppression"),
]


@pytest.mark.parametrize(("name", "preferences", "fields", "rule"), RULES)
def test_what_is_asked_in_advance_is_what_happens(
    system: Running, user: str, name: str, preferences: dict[str, Any], fields: dict[str, Any], rule: str | None
) -> None:
    wishes(system, user, **preferences)
    if name == "suppressed":
        phone = system.get(f"/api/v1/users/{user}").json()["phone"]
        assert system.post("/api/v1/suppressions", {"address": phone, "channel": "sms"}).status_code == 201
    decision = ask(system, user, **fields)
    notification = send(system, user, **fields)
    assert decision["rule"] == rule
    assert (notification["status"], notification["reason"]) == OUTCOMES[rule]
    assert decision["allowed"] is (notification["status"] != "skipped")
    assert (decision["at"] is None) == (notification["status"] == "skipped")
    if rule == "quiet_hours":
        assert decision["at"] == notification["due_at"]
    assert notification["attempts"] == (1 if notification["status"] == "sent" else 0)
    if rule not in {None, "critical"}:
        assert decision["explanation"] in notification["explanation"]


def test_no_address_is_an_answer_too(system: Running) -> None:
    user_id = new_user(system, push_tokens=[], phone=None)
    for channel in ("push", "sms", "webhook"):
        decision = ask(system, user_id, channel, critical=True)
        assert (decision["allowed"], decision["at"], decision["rule"]) == (False, None, "no_address")
        assert send(system, user_id, channel)["reason"] == "no_address"


@pytest.mark.parametrize(
    ("asked", "end"),
    [
        ("2026-11-21T20:59:59Z", None),
        ("2026-11-21T21:00:00Z", "2026-11-22T06:00:00Z"),
        ("2026-11-22T00:00:00+01:00", "2026-11-22T06:00:00Z"),
        ("2026-11-22T05:59:59.999999Z", "2026-11-22T06:00:00Z"),
        ("2026-11-22T06:00:00Z", None),
        ("2026-07-01T20:00:00Z", "2026-07-02T05:00:00Z"),
    ],
)
def test_one_may_ask_about_any_moment(system: Running, asked: str, end: str | None) -> None:
    user_id = new_user(system, timezone="Europe/Berlin")
    wishes(system, user_id, **night(channels=["sms"]))
    decision = ask(system, user_id, at=asked)
    assert (decision["allowed"], decision["rule"]) == (True, "quiet_hours" if end else None)
    assert at(decision["at"]) == at(end or asked)
    assert decision["at"].endswith("Z")


# Quiet hours put off, to their end.


@pytest.fixture(scope="module")
def tokyo(new_system: Callable[..., Running]) -> Iterator[Running]:
    """A system whose default time zone is Tokyo's, and which puts off for 36 hours at most."""
    with new_system(NOTIFIER_TIMEZONE="Asia/Tokyo", NOTIFIER_MAX_AGE="PT36H") as running:
        yield running


@pytest.mark.parametrize(
    ("of_rule", "of_user", "zone"),
    [
        ("Asia/Kolkata", "America/Phoenix", "Asia/Kolkata"),
        (None, "America/Phoenix", "America/Phoenix"),
        (None, None, "Asia/Tokyo"),
        ("Asia/Kolkata", None, "Asia/Kolkata"),
    ],
)
def test_quiet_hours_put_off_to_their_end_in_their_zone(
    tokyo: Running, of_rule: str | None, of_user: str | None, zone: str
) -> None:
    user_id = new_user(tokyo, timezone=of_user)
    rule, end = around(zone, timezone=of_rule)
    wishes(tokyo, user_id, quiet_hours=[rule])
    for _ in range(2):
        assert at(ask(tokyo, user_id)["at"]) == end
        notification = send(tokyo, user_id)
        assert (notification["status"], notification["reason"]) == ("scheduled", "quiet_hours")
        assert at(notification["due_at"]) == end
    # Where it comes up too early, it is put off once more.
    hurry(tokyo, notification["id"])
    wait_for(
        lambda: claims(tokyo, notification["id"]) == 2 and at(tokyo.notification(notification["id"])["due_at"]) == end
    )
    # In its end it goes.
    wishes(tokyo, user_id, quiet_hours=[])
    hurry(tokyo, notification["id"])
    sent = wait_for(lambda: (n := tokyo.notification(notification["id"]))["status"] == "sent" and n)
    assert (sent["attempts"], sent["reason"], sent["due_at"]) == (1, None, None)


def test_the_clock_by_which_a_rule_was_judged_is_kept(system: Running, user: str) -> None:
    rule, _ = around("Asia/Tokyo", timezone="Asia/Tokyo")
    wishes(system, user, quiet_hours=[rule])
    notification = send(system, user)
    judged = notification["judged"]
    assert (judged["rule"], judged["timezone"]) == ("quiet_hours", "Asia/Tokyo")
    assert "Quiet hours for" in judged["explanation"]
    assert judged["local_time"].endswith("+09:00")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(judged["local_time"])) < timedelta(minutes=2)
    # It stays when the user has other rules by then, and once it was sent.
    wishes(system, user, quiet_hours=[])
    hurry(system, notification["id"])
    sent = wait_for(lambda: (n := system.notification(notification["id"]))["status"] == "sent" and n)
    assert (sent["judged"], sent["reason"]) == (judged, None)
    wishes(system, user, channels={"sms": False})
    skipped = send(system, user)["judged"]
    assert (skipped["rule"], skipped["timezone"]) == ("channel", "UTC")


def hurry(system: Running, notification_id: str, **back: float) -> None:
    """Let a notification be due now, as if so much time had passed."""
    system.sql(
        "UPDATE notifications SET due_at = now(), deferred_at = deferred_at - CAST(:back AS interval)"
        " WHERE id = :id AND status = 'scheduled'",
        id=notification_id,
        back=timedelta(**back),
    )


def claims(system: Running, notification_id: str) -> int:
    found: int = system.sql("SELECT claims FROM notifications WHERE id = :id", id=notification_id)[0].claims
    return found


@pytest.mark.parametrize(
    ("seconds", "status", "reason"), [(-1, "expired", None), (0, "expired", None), (1, "scheduled", "quiet_hours")]
)
def test_what_would_come_too_late_expires_at_once(
    system: Running, user: str, seconds: int, status: str, reason: str | None
) -> None:
    rule, end = around("UTC", timezone="UTC")
    wishes(system, user, quiet_hours=[rule])
    notification = send(system, user, expires_at=(end + timedelta(seconds=seconds)).isoformat())
    assert (notification["status"], notification["reason"]) == (status, reason)
    assert notification["attempts"] == 0


def test_quiet_hours_without_an_end_are_a_dead_letter_one_day(tokyo: Running) -> None:
    user_id = new_user(tokyo)
    halves = [{"start": "00:00", "end": "12:00"}, {"start": "12:00", "end": "00:00"}]
    wishes(tokyo, user_id, quiet_hours=halves)
    decision = ask(tokyo, user_id)
    assert (decision["rule"], decision["at"]) == ("quiet_hours", None)
    assert send(tokyo, user_id, critical=True)["status"] == "sent"
    notification = send(tokyo, user_id)
    assert (notification["status"], notification["reason"]) == ("scheduled", "quiet_hours")
    hurry(tokyo, notification["id"], days=1)
    dead = wait_for(lambda: (n := tokyo.notification(notification["id"]))["status"] == "failed" and n)
    assert (dead["reason"], dead["attempts"], dead["due_at"]) == ("too_old", 0, None)
    letters = tokyo.get("/api/v1/dead-letters", params={"reason": "too_old"}).json()["items"]
    [letter] = [letter for letter in letters if letter["notification_id"] == notification["id"]]
    assert letter["error"]
    # A requeue gives it as much time again.
    assert tokyo.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 202
    wait_for(lambda: tokyo.notification(notification["id"])["reason"] == "quiet_hours")
    wishes(tokyo, user_id)
    hurry(tokyo, notification["id"])
    wait_for(lambda: tokyo.notification(notification["id"])["status"] == "sent")


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ({}, {"channels": {"sms": False}}, "skipped"),
        ({"channels": {"sms": False}}, {}, "sent"),
        ({"categories": {"*": {"*": False}}}, {"categories": {"general": {}}}, "sent"),
        ({}, {"quiet_hours": quiet()}, "scheduled"),
    ],
)
def test_what_counts_is_the_moment_of_sending(
    system: Running, user: str, before: dict[str, Any], after: dict[str, Any], status: str
) -> None:
    wishes(system, user, **before)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"user_id": user, "channel": "sms", "body": "x", "send_at": later}
    [made] = system.post("/api/v1/notifications", body).json()["items"]
    assert (made["status"], made["reason"]) == ("scheduled", None)
    wishes(system, user, **after)
    hurry(system, made["id"])
    assert settled(system, made["id"])["status"] == status
