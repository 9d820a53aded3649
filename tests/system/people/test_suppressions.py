"""The suppression list: written, read, lifted; and whoever is on it gets nothing, critical or not."""

from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from sqlalchemy import Engine, text
from sqlalchemy import event as sqlalchemy_event

from config.settings import read_settings
from config.wiring import Wiring
from notifier.people import users
from notifier.people.unsubscribe import links
from notifier.vocabulary.masking import masked
from notifier.vocabulary.states import Channel
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, ahead, wait_for

SUPPRESSIONS = "/api/v1/suppressions"
FIELDS = ("email", "phone", "webhook_url", "chat_url", "timezone", "locale")


def suppress(system: Running, address: str, channel: str = "email", **fields: Any) -> dict[str, Any]:
    answer = system.post(SUPPRESSIONS, {"address": address, "channel": channel, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def lift(system: Running, where: str = "", **options: Any) -> requests.Response:
    return system.http.delete(f"{system.url}{SUPPRESSIONS}{where}", timeout=20, **options)


def listed(system: Running, **query: str) -> list[dict[str, Any]]:
    answer = system.get(SUPPRESSIONS, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def put_user(system: Running, user_id: str, **fields: Any) -> None:
    assert system.http.put(f"{system.url}/api/v1/users/{user_id}", json=fields, timeout=20).ok


def ask(system: Running, user_id: str, channel: str = "email", **fields: Any) -> tuple[bool, str | None]:
    """Return what the preferences would say: whether it may go, and by which rule."""
    answer = system.post("/api/v1/preferences/check", {"user_id": user_id, "channel": channel, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()["allowed"], answer.json()["rule"]


def ended(system: Running, event_id: str) -> dict[str, str]:
    """How each of an event's notifications ended, by its recipient."""

    def look() -> dict[str, str] | None:
        made = system.notifications(event_id)
        return {n["recipient"]: n["status"] for n in made} if made and not any(n["due_at"] for n in made) else None

    return wait_for(look, 20, f"the notifications of event {event_id} to be finished")


# Written, read, lifted.


@pytest.mark.parametrize(
    ("channel", "given", "kept"),
    [
        ("email", "Crud.List@Example.COM", "Crud.List@example.com"),
        ("sms", "+49 (151) 2345-1001", "+4915123451001"),
        ("push", "Token:crud_1", "Token:crud_1"),
        ("chat", "slack://LIST/1", "slack://LIST/1"),
        ("webhook", "https://example.com/Path?q=1", "https://example.com/Path?q=1"),
    ],
)
def test_an_address_is_suppressed_read_and_lifted(system: Running, channel: str, given: str, kept: str) -> None:
    made = suppress(system, given, channel)
    assert set(made) == {"id", "channel", "address", "reason", "until", "created_at"}
    assert (made["channel"], made["address"], made["reason"], made["until"]) == (channel, masked(kept), "manual", None)
    assert listed(system, channel=channel, address=kept) == [made]
    assert listed(system, address=kept) == [made]
    assert lift(system, params={"channel": channel, "address": given}).status_code == 204
    assert listed(system, channel=channel, address=kept) == []
    gone = lift(system, params={"channel": channel, "address": given})
    assert gone.status_code == 404
    assert gone.headers["content-type"] == "application/problem+json"


def test_a_second_time_gives_another_reason_and_end(system: Running) -> None:
    first = suppress(system, "twice@example.com", reason="hard_bounce")
    until = "2031-01-02T03:04:05Z"
    second = suppress(system, "TWICE@example.com", reason="complaint", until="2031-01-02T04:04:05+01:00")
    assert (second["id"], second["reason"], second["until"]) == (first["id"], "complaint", until)
    assert [each["reason"] for each in listed(system, address="Twice@Example.com")] == ["complaint"]
    third = suppress(system, "twice@example.com")
    assert (third["reason"], third["until"]) == ("manual", None)


@pytest.mark.parametrize(
    ("channel", "kept", "query"),
    [
        ("email", "Query@bücher.example.com", "Query@XN--BCHER-KVA.example.com"),
        ("email", "plus+tag@example.com", "plus+tag@EXAMPLE.com"),  # a plus in a query is a space
        ("sms", "+4915123451777", "+49 151 2345 1777"),
        ("webhook", "https://xn--bcher-kva.example/query", "https://bücher.example/query"),
    ],
)
def test_lists_are_filtered_by_an_address_in_any_form(system: Running, channel: str, kept: str, query: str) -> None:
    suppress(system, kept, channel)
    sent = system.post("/api/v1/notifications", {"channel": channel, "recipient": kept, "body": "Hello."})
    event = system.post("/api/v1/events", {"event_type": "look.up", "channel": channel, "recipient": kept})
    assert (sent.status_code, event.status_code) == (202, 202)

    for named in ("", f"channel={channel}&"):
        found = system.get(f"{SUPPRESSIONS}?{named}address={query}").json()["items"]
        assert [each["address"] for each in found] == [kept]
        found = system.get(f"/api/v1/notifications?{named}recipient={query}").json()["items"]
        assert {each["recipient"] for each in found} == {kept}
    found = system.get(f"/api/v1/events?recipient={query}").json()["items"]
    assert [each["id"] for each in found] == [event.json()["id"]]
    assert system.get(f"/api/v1/notifications?channel={channel}&recipient=nobody").json()["items"] == []
    assert lift(system, f"?channel={channel}&address={query}").status_code == 204
    assert lift(system, f"?channel={channel}&address={query}").status_code == 404


@pytest.mark.parametrize("how", ["body", "id"])
def test_there_are_other_ways_to_lift_one(system: Running, how: str) -> None:
    made = suppress(system, f"lift-{how}@example.com")

    def again() -> requests.Response:
        if how == "id":
            return lift(system, f"/{made['id']}")
        return lift(system, json={"channel": "email", "address": f"LIFT-{how}@example.com"})

    assert again().status_code == 204
    assert again().status_code == 404
    assert lift(system, f"/{uuid4()}").status_code == 404
    assert lift(system, "/not-an-id").status_code == 404


def test_the_same_address_on_another_channel_is_another_matter(system: Running) -> None:
    suppress(system, "both://1", "chat")
    suppress(system, "both://1", "push")
    assert {each["channel"] for each in listed(system, address="both://1")} == {"chat", "push"}
    assert lift(system, params={"channel": "chat", "address": "both://1"}).status_code == 204
    assert [each["channel"] for each in listed(system, address="both://1")] == ["push"]
    assert listed(system, channel="chat", address="both://1") == []


def test_the_list_has_pages(system: Running) -> None:
    ids = [suppress(system, f"page-{n}@example.com")["id"] for n in range(4)]
    first = system.get(SUPPRESSIONS, params={"limit": 3}).json()
    second = system.get(SUPPRESSIONS, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in first["items"] + second["items"]][:4] == ids[::-1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "email"}, "address"),
        ({"address": "wrongly@example.com"}, "channel"),
        ({"address": "wrongly@example.com", "channel": "fax"}, "channel"),
        ({"address": "wrongly@example.com", "channel": None}, "channel"),
        ({"address": "nobody", "channel": "email"}, "address"),
        ({"address": "0151", "channel": "sms"}, "address"),
        ({"address": "", "channel": "push"}, "address"),
        ({"address": "with space", "channel": "push"}, "address"),
        ({"address": "https://x/" + "y" * 2048, "channel": "webhook"}, "address"),
        ({"address": "chat://a\0b", "channel": "chat"}, "address"),
        ({"address": ["wrongly@example.com"], "channel": "email"}, "address"),
        ({"address": "wrongly@example.com", "channel": "email", "reason": ""}, "reason"),
        ({"address": "wrongly@example.com", "channel": "email", "reason": "x" * 256}, "reason"),
        ({"address": "wrongly@example.com", "channel": "email", "reason": "a\0b"}, "reason"),
        ({"address": "wrongly@example.com", "channel": "email", "reason": "\ud800"}, "reason"),
        ({"address": "wrongly@example.com", "channel": "email", "until": "2031-01-02T03:04:05"}, "until"),
        ({"address": "wrongly@example.com", "channel": "email", "until": "tomorrow"}, "until"),
        ({"address": "wrongly@example.com", "channel": "email", "until": 1}, "until"),
        ({"address": "wrongly@example.com", "channel": "email", "user_id": "u"}, "user_id"),
    ],
)
def test_what_is_wrong_is_a_422(system: Running, body: dict[str, Any], field: str) -> None:
    answer = system.post(SUPPRESSIONS, body)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()["errors"]) == [field]
    assert listed(system, address="wrongly@example.com") == []


@pytest.mark.parametrize(
    ("method", "query", "field"),
    [
        ("GET", "channel=fax", "channel"),
        ("GET", "address=", "address"),
        ("GET", "address=a%00b", "address"),
        ("GET", "reason=manual", "reason"),
        ("GET", "limit=0", "limit"),
        ("GET", "cursor=none", "cursor"),
        ("DELETE", "channel=email", "address"),
        ("DELETE", "address=wrongly@example.com", "channel"),
        ("DELETE", "channel=chat&address=chat://a%00b", "address"),
        ("DELETE", "channel=email&address=wrongly@example.com&all=1", "all"),
    ],
)
def test_a_wrong_query_is_a_422(system: Running, method: str, query: str, field: str) -> None:
    answer = system.http.request(method, f"{system.url}{SUPPRESSIONS}?{query}", timeout=20)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()["errors"]) == [field]


# Honoured.


@pytest.mark.parametrize("critical", [False, True])
@pytest.mark.parametrize(
    ("channel", "suppressed", "recipient"),
    [
        ("email", "Silent@Example.com", "silent@example.com"),
        ("email", "silent-2@example.com", "SILENT-2@EXAMPLE.COM"),
        ("sms", "+49 151 23451002", "+4915123451002"),
        ("push", "silent-token", "silent-token"),
        ("chat", "slack://silent/1", "slack://silent/1"),
    ],
)
def test_nothing_goes_to_a_suppressed_address(
    system: Running, channel: str, suppressed: str, recipient: str, critical: bool
) -> None:
    suppress(system, suppressed, channel, reason="complaint")
    notification = system.finished(system.event(channel=channel, recipient=recipient, critical=critical))
    assert (notification["status"], notification["reason"]) == ("skipped", "suppressed")
    assert (notification["attempts"], notification["due_at"], notification["attempt_log"]) == (0, None, [])
    assert "complaint" in notification["explanation"]
    assert system.sql("SELECT 1 FROM outbox WHERE notification_id = :id", id=notification["id"]) == []


def test_a_suppressed_webhook_is_not_called(system: Running, http: HttpReceiver) -> None:
    suppress(system, http.url("/silent"), "webhook")
    notification = system.finished(system.event(channel="webhook", recipient=http.url("/silent")))
    assert (notification["status"], notification["reason"]) == ("skipped", "suppressed")
    assert http.received("/silent") == []


def test_only_the_suppressed_channel_is_silent(system: Running, smtp: SmtpReceiver) -> None:
    phone = "+4915123451003"
    suppress(system, "one-channel@example.com")
    put_user(system, "one-channel", email="one-channel@example.com", phone=phone)
    made = ended(system, system.event(user_id="one-channel"))
    assert made == {"one-channel@example.com": "skipped", phone: "sent"}
    assert smtp.mails_to("one-channel@example.com") == []


def test_one_that_has_ended_holds_up_nothing(system: Running, smtp: SmtpReceiver) -> None:
    suppress(system, "ended@example.com", until=ahead(seconds=-1))
    assert len(listed(system, address="ended@example.com")) == 1
    assert system.finished(system.event(channel="email", recipient="ended@example.com"))["status"] == "sent"
    suppress(system, "ended@example.com", until=ahead(hours=1))
    assert system.finished(system.event(channel="email", recipient="ended@example.com"))["status"] == "skipped"
    assert len(smtp.mails_to("ended@example.com")) == 1


def test_what_was_accepted_before_is_held_to_it(system: Running, smtp: SmtpReceiver) -> None:
    event_id = system.event(channel="email", recipient="in-time@example.com", send_at=ahead(hours=1))
    suppress(system, "in-time@example.com")
    system.sql("UPDATE notifications SET due_at = now() WHERE event_id = :id", id=event_id)
    assert system.finished(event_id)["reason"] == "suppressed"
    # And one that was lifted in time is sent.
    event_id = system.event(channel="email", recipient="in-time@example.com", send_at=ahead(hours=1))
    lift(system, params={"channel": "email", "address": "in-time@example.com"})
    system.sql("UPDATE notifications SET due_at = now() WHERE event_id = :id", id=event_id)
    assert system.finished(event_id)["status"] == "sent"
    assert len(smtp.mails_to("in-time@example.com")) == 1


def test_a_retry_is_held_to_it_too(system: Running, smtp: SmtpReceiver) -> None:
    smtp.refuse("bounces@example.com", "451 later")
    event_id = system.event(channel="email", recipient="bounces@example.com")
    wait_for(lambda: system.notifications(event_id)[0]["status"] == "retrying")
    suppress(system, "bounces@example.com", reason="hard_bounce")
    notification = system.finished(event_id)
    assert (notification["status"], notification["reason"]) == ("skipped", "suppressed")
    assert 1 <= notification["attempts"] <= 2


def test_it_outlives_the_user(system: Running) -> None:
    put_user(system, "outlived", email="outlived@example.com")
    suppress(system, "outlived@example.com")
    assert system.http.delete(f"{system.url}/api/v1/users/outlived", timeout=20).status_code == 204
    assert len(listed(system, address="outlived@example.com")) == 1
    assert system.finished(system.event(channel="email", recipient="outlived@example.com"))["reason"] == "suppressed"


# Asked about, beside the other rules.


def test_one_that_has_ended_by_then_does_not_count(system: Running) -> None:
    put_user(system, "asks-later", email="asks-later@example.com")
    suppress(system, "asks-later@example.com", until="2031-01-01T00:00:00Z")
    assert ask(system, "asks-later") == (False, "suppression")
    assert ask(system, "asks-later", at="2030-12-31T23:59:59Z") == (False, "suppression")
    assert ask(system, "asks-later", at="2031-01-01T00:00:00Z") == (True, None)


def test_one_of_several_addresses_leaves_the_others(system: Running) -> None:
    put_user(system, "two-devices", push_tokens=["device-1", "device-2"])
    suppress(system, "device-1", "push")
    assert ask(system, "two-devices", channel="push") == (True, None)
    event_id = system.event(user_id="two-devices")
    assert ended(system, event_id) == {"device-1": "skipped", "device-2": "sent"}
    suppress(system, "device-2", "push")
    assert ask(system, "two-devices", channel="push", critical=True) == (False, "suppression")


def test_an_address_that_has_opted_out_is_asked_about_as_well(system: Running) -> None:
    # Its owner used the link of a mail to the bare address; now they are a user, and it still holds.
    put_user(system, "was-bare", email="was-bare@example.com")
    url = links(system.engine, system.vault, "").url(Channel.EMAIL, "news", None, "Was-Bare@example.com")
    assert system.post(url).status_code == 200
    for category, status, answer in (("news", "skipped", (False, "category")), ("orders", "sent", (True, None))):
        event_id = system.event(user_id="was-bare", category=category)
        assert ended(system, event_id) == {"was-bare@example.com": status}
        assert ask(system, "was-bare", category=category) == answer
    event_id = system.event(user_id="was-bare", category="news", critical=True)
    assert ended(system, event_id) == {"was-bare@example.com": "sent"}


# The cost of asking.


def _queue(engine: Engine, template: UUID, count: int) -> list[UUID]:
    """Queued messages: of five, one is suppressed, one opted out, one in quiet hours; one has a template."""
    rows = [
        {
            "id": uuid4(),
            "address": f"+49151{number % 5}{uuid4().int % 10**8:08}",
            "user_id": f"person-{number % 5}",
            "template": "t" if number % 5 == 4 else None,
            "template_id": template if number % 5 == 4 else None,
        }
        for number in range(count)
    ]
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO notifications (id, source, user_id, recipient, channel, critical, priority, content, queue,
                    status, due_at, created_at, dedup_key, dedup_window, template, template_id, template_version)
                VALUES (:id, 'test', :user_id, :address, 'sms', false, 'normal', '{"body": "x"}', 'sms', 'queued',
                    now(), now(), 'once', 'PT1H', :template, :template_id, CASE WHEN :template = 't' THEN 1 END)
            """),
            rows,
        )
        connection.execute(
            text("""
                INSERT INTO suppressions (id, channel, address, folded, reason, created_at)
                SELECT gen_random_uuid(), 'sms', recipient, recipient, 'manual', now() FROM notifications
                WHERE user_id = 'person-0' ON CONFLICT DO NOTHING
            """)
        )
    return [row["id"] for row in rows]


def test_a_batch_costs_the_same_queries_however_many_rows_it_has(database_url: str, engine: Engine) -> None:
    settings = {"DATABASE_URL": database_url, "NOTIFIER_SMS": "outbox:", "NOTIFIER_SENDING_WINDOW": "60"}
    wires = Wiring(read_settings(settings))
    off = {"categories": {"general": {"sms": False}}}
    day = {"quiet_hours": [{"start": "00:00", "end": "12:00"}, {"start": "12:00", "end": "00:00"}]}
    for number, preferences in enumerate([{}, off, day, {}, {}]):
        users.put(wires.engine, f"person-{number}", {**dict.fromkeys(FIELDS), "push_tokens": []}, b"{}")
        users.set_preferences(wires.engine, f"person-{number}", preferences)
    template = uuid4()
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO templates (id, name, channel, locale, version, text, created_at)
                VALUES (:id, 't', 'sms', 'default', 1, '{{ user.user_id }}', now())
            """),
            {"id": template},
        )
    statements: list[str] = []
    sqlalchemy_event.listen(wires.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    costs = []
    try:
        for count in (5, 5, 200):  # the first one reads what a process remembers
            ids = _queue(engine, template, count)
            statements.clear()
            wires.deliveries[Channel.SMS].deliver(ids, 0, lambda _finish, _tries: False)
            costs.append(len(statements))
    finally:
        wires.template_process.close()
        wires.engine.dispose()
    assert costs[1] == costs[2], statements
    with engine.connect() as connection:
        counts = connection.execute(text("SELECT status, reason, count(*) FROM notifications GROUP BY 1, 2")).all()
    assert {(row.status, row.reason): row[2] for row in counts} == {
        ("skipped", "suppressed"): 42,
        ("skipped", "opted_out"): 42,
        ("scheduled", "quiet_hours"): 42,
        ("sent", None): 84,
    }
