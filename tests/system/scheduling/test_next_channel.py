"""Several channels: each of them, or the first that can be used, and the next one only where it is of no use."""

from typing import Any

import pytest

from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import FINISHED, Running, wait_for

FAR = "2040-06-01T12:00:00Z"


def put_user(system: Running, user_id: str, preferences: Any = None, **fields: Any) -> str:
    path = f"{system.url}/api/v1/users/{user_id}"
    system.http.put(path, json=fields, timeout=20).raise_for_status()
    if preferences is not None:
        system.http.put(f"{path}/preferences", json=preferences, timeout=20).raise_for_status()
    return user_id


def suppress(system: Running, channel: str, address: str) -> None:
    assert system.post("/api/v1/suppressions", {"channel": channel, "address": address}).status_code == 201


def first(system: Running, user_id: str, *channels: str, **fields: Any) -> list[dict[str, Any]]:
    """Send over the first of some channels; the rows that there are at once."""
    body = {"user_id": user_id, "channels": channels, "strategy": "first", "body": "x", **fields}
    answer = system.post("/api/v1/notifications", body)
    assert answer.status_code == 202, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def rows(system: Running, user_id: str) -> list[dict[str, Any]]:
    """A user's notifications, the oldest first."""
    items = system.get("/api/v1/notifications", params={"user_id": user_id, "limit": 200}).json()["items"]
    return [system.notification(each["id"]) for each in reversed(items)]


def chain(system: Running, user_id: str) -> list[dict[str, Any]]:
    """A user's notifications in the order in which one follows the other."""
    left = rows(system, user_id)
    ordered: list[dict[str, Any]] = []
    while left:
        followed = {each["id"] for each in ordered}
        step = [each for each in left if each["follows"] in followed or (not ordered and each["follows"] is None)]
        assert step, left
        ordered += step
        left = [each for each in left if each not in step]
    return ordered


def ended(system: Running, user_id: str, *expected: tuple[str, str, str | None]) -> list[dict[str, Any]]:
    """A user's chain once it has ended in just these (channel, status, reason)."""

    def look() -> list[dict[str, Any]] | None:
        found = chain(system, user_id)
        seen = [(each["channel"], each["status"], each["reason"]) for each in found]
        return found if seen == list(expected) else None

    return wait_for(look, what=f"{user_id} to have {expected}")


def no_more_comes(system: Running, user_id: str, expected: int) -> None:
    """Whatever was owed is made by the time that a later chain has found its second channel."""
    marker = put_user(
        system, f"{user_id}-marker", {"channels": {"sms": False}}, phone="+4915100000000", chat_url="slack://m"
    )
    first(system, marker, "sms", "chat")
    ended(system, marker, ("sms", "skipped", "opted_out"), ("chat", "sent", None))
    assert len(rows(system, user_id)) == expected


def test_the_first_that_works_is_enough(system: Running) -> None:
    user = put_user(
        system, "u-first-works", phone="+4915112340001", push_tokens=["first-works"], email="fw@example.com"
    )
    [made] = first(system, user, "sms", "push", "email")
    assert made["channel"] == "sms"
    [found] = ended(system, user, ("sms", "sent", None))
    assert found["follows"] is None
    no_more_comes(system, user, 1)


def test_a_channel_without_an_address_is_passed_over(system: Running) -> None:
    user = put_user(system, "u-first-no-address", phone="+4915112340002")
    made = first(system, user, "chat", "push", "sms", "email")
    assert [(each["channel"], each["reason"]) for each in made] == [
        ("chat", "no_address"),
        ("push", "no_address"),
        ("sms", None),
    ]
    found = ended(
        system, user, ("chat", "skipped", "no_address"), ("push", "skipped", "no_address"), ("sms", "sent", None)
    )
    assert [each["follows"] for each in found] == [None, found[0]["id"], found[1]["id"]]
    assert found[0]["id"] in found[1]["explanation"]
    no_more_comes(system, user, 3)


@pytest.mark.parametrize(
    ("case", "preferences", "category"),
    [
        ("channel", {"channels": {"sms": False}}, None),
        ("category", {"categories": {"offers": {"sms": False}}}, "offers"),
        ("suppressed", None, None),
    ],
)
def test_whoever_may_not_be_reached_over_one_is_reached_over_the_next(
    system: Running, smtp: SmtpReceiver, case: str, preferences: Any, category: str | None
) -> None:
    address, phone = f"next-{case}@example.com", f"+49151123401{len(case):02}"
    user = put_user(system, f"u-first-{case}", preferences, phone=phone, email=address)
    if case == "suppressed":
        suppress(system, "sms", phone)
    first(system, user, "sms", "email", category=category, subject="Once")
    reason = "suppressed" if case == "suppressed" else "opted_out"
    found = ended(system, user, ("sms", "skipped", reason), ("email", "sent", None))
    assert found[1]["follows"] == found[0]["id"]
    assert found[0]["id"] in found[1]["explanation"]
    assert [mail["Subject"] for mail in smtp.mails_to(address)] == ["Once"]


@pytest.mark.parametrize(("code", "reason"), [(410, "permanent_error"), (500, "retries_exhausted")])
def test_after_a_dead_one_comes_the_next(system: Running, http: HttpReceiver, code: int, reason: str) -> None:
    http.answer(f"/first-dead-{code}", code)
    fields = {"webhook_url": http.url(f"/first-dead-{code}"), "phone": "+4915112340020"}
    user = put_user(system, f"u-first-dead-{code}", **fields)
    first(system, user, "webhook", "sms")
    found = ended(system, user, ("webhook", "failed", reason), ("sms", "sent", None))
    assert found[1]["follows"] == found[0]["id"]
    assert found[0]["attempts"] == len(http.received(f"/first-dead-{code}"))
    assert found[1]["attempts"] == 1
    no_more_comes(system, user, 2)


def test_where_none_can_be_used_each_says_why(system: Running) -> None:
    user = put_user(
        system, "u-first-none", {"channels": {"sms": False, "push": False}}, phone="+4915112340021", push_tokens=["x"]
    )
    first(system, user, "chat", "sms", "push", "email")
    found = ended(
        system,
        user,
        ("chat", "skipped", "no_address"),
        ("sms", "skipped", "opted_out"),
        ("push", "skipped", "opted_out"),
        ("email", "skipped", "no_address"),
    )
    assert [each["follows"] for each in found[1:]] == [each["id"] for each in found[:-1]]
    assert {each["due_at"] for each in found} == {None}


def test_an_unknown_user_is_one_row(system: Running) -> None:
    made = first(system, "u-first-unknown", "sms", "email")
    assert {(each["status"], each["reason"]) for each in made} == {("skipped", "no_address")}


def test_critical_ones_go_where_the_user_has_opted_out(system: Running) -> None:
    user = put_user(
        system, "u-first-critical", {"channels": {"sms": False}}, phone="+4915112340022", email="c@example.com"
    )
    first(system, user, "sms", "email", critical=True)
    ended(system, user, ("sms", "sent", None))
    no_more_comes(system, user, 1)


def test_a_duplicate_has_arrived_already_and_needs_no_next_channel(system: Running, smtp: SmtpReceiver) -> None:
    user = put_user(system, "u-first-twice", phone="+4915112340023", email="twice@example.com")
    key = {"dedup_key": "d-first", "dedup_window": "PT1H"}
    [one] = first(system, user, "sms", "email", **key)
    wait_for(lambda: system.notification(one["id"])["status"] == "sent")
    [two] = first(system, user, "sms", "email", **key)
    wait_for(lambda: system.notification(two["id"])["reason"] == "duplicate")
    no_more_comes(system, user, 2)
    assert smtp.mails_to("twice@example.com") == []


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_of_several_push_tokens_all_must_be_of_no_use(system: Running, dead: int) -> None:
    tokens = [f"several-{dead}-{number}" for number in range(2)]
    user = put_user(system, f"u-first-push-{dead}", push_tokens=tokens, phone=f"+491511234003{dead}")
    for token in tokens[:dead]:
        suppress(system, "push", token)
    made = first(system, user, "push", "sms")
    assert {each["recipient"] for each in made} == set(tokens)
    wait_for(lambda: all(each["status"] in FINISHED for each in rows(system, user)))
    if dead == 2:
        wait_for(lambda: [each["status"] for each in rows(system, user) if each["channel"] == "sms"] == ["sent"])
    no_more_comes(system, user, 2 + (dead == 2))
    found = rows(system, user)
    statuses = sorted(each["status"] for each in found if each["channel"] == "push")
    assert statuses == ["sent"] * (2 - dead) + ["skipped"] * dead
    assert [each["channel"] for each in found].count("sms") == (dead == 2)


def test_all_is_each_of_them_and_the_default(system: Running, smtp: SmtpReceiver) -> None:
    user = put_user(system, "u-all", phone="+4915112340040", email="u-all@example.com", push_tokens=["all-1", "all-2"])
    body = {"user_id": user, "channels": ["sms", "email", "push", "chat"], "body": "x"}
    for strategy in ({}, {"strategy": "all"}):
        made = system.post("/api/v1/notifications", {**body, **strategy}).json()["items"]
        assert [each["channel"] for each in made] == ["sms", "email", "push", "push", "chat"]
        assert {each["follows"] for each in made} == {None}
    wait_for(lambda: all(each["status"] in FINISHED for each in rows(system, user)))
    assert sorted(each["status"] for each in rows(system, user)) == ["sent"] * 8 + ["skipped"] * 2
    assert {each["reason"] for each in rows(system, user) if each["channel"] == "chat"} == {"no_address"}
    assert len(smtp.mails_to("u-all@example.com")) == 2


def test_each_reminder_has_a_chain_of_its_own(system: Running) -> None:
    user = put_user(
        system, "u-first-reminders", {"channels": {"sms": False}}, phone="+4915112340041", push_tokens=["r-1"]
    )
    made = first(system, user, "sms", "push", target_date=FAR, lead_time=["P9000D", "P1D"])
    now, later = sorted(made, key=lambda each: str(each["lead_time"]), reverse=True)
    assert (now["lead_time"], later["lead_time"], later["status"]) == ("P9000D", "P1D", "scheduled")
    following = wait_for(lambda: [each for each in rows(system, user) if each["follows"] == now["id"]])
    wait_for(lambda: system.notification(following[0]["id"])["status"] == "sent")
    assert system.notification(following[0]["id"])["lead_time"] == "P9000D"
    assert system.notification(later["id"])["status"] == "scheduled"
    assert len(rows(system, user)) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "second"},
        {"strategy": None},
        {"channels": []},
        {"channels": ["sms", "sms"]},
        {"channels": ["fax"]},
        {"channels": "sms"},
        {"channel": "sms"},
        {"user_id": None, "recipient": "+4915112340042"},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(system: Running, wrong: dict[str, Any]) -> None:
    body = {"user_id": "u-wrong", "channels": ["sms", "email"], "strategy": "first", "body": "x", **wrong}
    answer = system.post("/api/v1/notifications", body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize("way", ["id", "key"])
def test_a_cancel_while_the_first_is_being_sent_stops_the_chain(system: Running, http: HttpReceiver, way: str) -> None:
    path, key = f"/first-cancel-{way}", f"k-first-cancel-{way}"
    http.answer(path, 410)
    release = http.hold(path)
    user = put_user(system, f"u-first-cancel-{way}", webhook_url=http.url(path), phone="+4915112340043")
    [made] = first(system, user, "webhook", "sms", cancellation_key=key)
    wait_for(lambda: http.received(path))
    if way == "id":
        assert system.post(f"/api/v1/notifications/{made['id']}/cancel").status_code == 409
    else:
        answer = system.post("/api/v1/notifications/cancel", {"cancellation_key": key})
        assert answer.json() == {"cancelled": 0, "too_late": 1}
    release()
    ended(system, user, ("webhook", "failed", "permanent_error"))
    no_more_comes(system, user, 1)


def test_a_cancelled_first_has_no_next(system: Running) -> None:
    user = put_user(system, "u-first-cancelled", phone="+4915112340044", push_tokens=["cancelled"])
    [made] = first(system, user, "sms", "push", send_at=FAR)
    assert system.post(f"/api/v1/notifications/{made['id']}/cancel").status_code == 200
    no_more_comes(system, user, 1)


def test_nobody_hears_twice_where_the_clock_is_killed_in_between(breakable: Running, http: HttpReceiver) -> None:
    system = breakable
    http.answer("/first-killed", 410)
    users = [f"u-killed-{number}" for number in range(24)]
    for number, user in enumerate(users):
        put_user(system, user, webhook_url=http.url("/first-killed"), phone=f"+49151123406{number:02}")
    for number, user in enumerate(users):
        first(system, user, "webhook", "sms")
        if number % 8 == 7:
            system.clock.kill()
            wait_for(lambda: not system.clock.alive())
            system.clock.launch()
    sent = "FROM outbox WHERE recipient LIKE '+49151123406%'"
    wait_for(lambda: system.sql(f"SELECT count(*) AS n {sent}")[0].n >= len(users), 40)
    for user in users:
        ended(system, user, ("webhook", "failed", "permanent_error"), ("sms", "sent", None))
    assert system.sql(f"SELECT count(*) AS n, count(DISTINCT recipient) AS phones {sent}") == [(24, 24)]
    assert len(http.received("/first-killed")) == 24
