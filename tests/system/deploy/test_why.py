"""manage.py why: what became of an event or a notification, in words."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from deploy.ports import free_port
from tests.support.commands import manage, succeed
from tests.support.running import Running, made, wait_for


@pytest.fixture
def env(system: Running) -> dict[str, str]:
    """The shared system's environment."""
    return system.environment


def test_why_an_sms_did_not_go_out(start_system: Callable[..., Running], env: dict[str, str]) -> None:
    """An operator looks, step by step, at a system whose provider is down."""
    port = free_port()
    sms = f"twilio://AC1:s3cret@127.0.0.1:{port}?from=%2B15550100&tls=none"
    system = start_system(NOTIFIER_SMS=sms, NOTIFIER_SMS_RETRY_BACKOFF="1")
    here = {**env, **system.environment}
    first = succeed("providers", "status", environment={**here, "NOTIFIER_PUSH": ""})
    assert "twilio is well: no failure of its own is known." in first
    assert "No provider: NOTIFIER_PUSH is not set, and the API answers 422." in first
    assert "Nothing was tried within the last hour." in first

    stuck = made(system, channel="sms", recipient="+4915112345678")
    for number in range(6):
        made(system, channel="sms", recipient=f"+491511234567{number}")
    wait_for(lambda: system.notification(stuck)["reason"] == "breaker_open", 30)
    told = succeed("providers", "status", "sms", environment=here)
    assert "twilio is left alone since " in told
    assert "refused: connection refused" in told
    assert "wait: breaker_open; the first is due at " in told

    system.post("/api/v1/suppressions", {"address": "+4915112345678", "channel": "sms", "reason": "asked us to"})
    system.http.put(f"{system.url}/api/v1/holds/sms", timeout=20).raise_for_status()
    told = succeed("providers", "status", "sms", "+4915112345678", environment=here)
    assert "An operator holds sms: nothing of it goes out before manage.py release sms." in told
    assert "The address is on the suppression list, and gets nothing: asked us to." in told
    assert f"{stuck}, made at " in told
    assert "attempt 1 by twilio: unsent (refused: connection refused)" in told
    assert "s3cret" not in told
    told = succeed("why", stuck, environment=here)
    assert "The provider twilio fails since " in told
    assert "left alone (refused: connection refused); one message tries it from " in told
    assert " holds sms since " in told
    assert "Its address is on the suppression list by now: asked us to." in told
    assert "It names no user, so nobody's quiet hours hold it up." in told
    assert "s3cret" not in told
    done = manage("providers", "status", "sms", "Ada", environment=here)
    assert done.returncode == 2
    assert "Not a phone number" in done.stderr


def test_why_tells_what_happened_in_local_time(system: Running, env: dict[str, str]) -> None:
    person = {"push_tokens": ["why-token"], "timezone": "Asia/Tokyo"}
    system.http.put(f"{system.url}/api/v1/users/u-why", json=person, timeout=20).raise_for_status()
    posted = {"event_type": "why.event", "user_id": "u-why", "channel": "push", "critical": True}
    event = system.post("/api/v1/events", posted, headers={"X-Request-Id": "why-request"}).json()["id"]
    wait_for(lambda: system.notifications(event))
    notification = system.finished(event)["id"]
    # As where a worker was lost, and another one sent it again.
    system.sql(
        "INSERT INTO attempts (id, notification_id, number, outcome, error)"
        " VALUES (:id, :id, 2, 'ambiguous', E'worker lost: \\x1b[31m it may have been sent')",
        id=notification,
    )
    system.sql(
        "INSERT INTO taken_receipts (id, notification_id, provider, kind, error, happened_at, taken_at, applied)"
        " VALUES (:id, :id, 'acme', 'bounced', 'nobody there', '2026-11-01T16:30:00Z', '2026-11-01T16:30:05Z', false)",
        id=notification,
    )
    for asked in (notification, event, "u-why", "why-request", "why-token"):
        said = succeed("why", asked, environment=env)
        assert notification in said, asked
    assert "Asia/Tokyo: Attempt 1 by" in said
    assert "It may have arrived 2 times: by attempts 1, 2." in said
    assert "It is critical" in said
    assert "\x1b" not in said
    assert "2026-11-02 01:30:00 Asia/Tokyo: Its provider acme says: bounced (nobody there)." in said
    assert "We heard of it at 2026-11-01T16:30:05Z; it came late or twice, and changed nothing." in said
    assert "Its user has set no quiet hours." not in said


@pytest.mark.parametrize(
    "asked",
    [
        "nobody-known",
        "nobody/known",
        "",
        "\x1b[31m\u202e",
        "\udcff",
        "%",
        "[red]",
        "01a22194-6b9e-7199-8934-ad1d48133d9e",
    ],
)
def test_why_of_what_nobody_knows_is_an_error_of_one_line(env: dict[str, str], asked: str) -> None:
    done = manage("why", asked, environment=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: No notification or event of that id, address, user or request is known.\n"


def made_nothing(system: Running, event_type: str, payload: dict[str, Any], request: str) -> str:
    """An event that was fanned out and made no notification."""
    body = {"event_type": event_type, "payload": payload}
    event: str = system.post("/api/v1/events", body, headers={"X-Request-Id": request}).json()["id"]
    wait_for(lambda: system.get(f"/api/v1/events/{event}").json()["status"] == "processed")
    assert system.notifications(event) == []
    return event


def test_why_tells_why_an_event_made_nothing(system: Running, env: dict[str, str]) -> None:
    nobody = made_nothing(system, "why.nobody", {}, "why-request-nobody")
    for asked in (nobody, "why-request-nobody"):
        said = succeed("why", asked, environment=env)
        assert f"event {nobody}\n" in said
        assert "Accepted: why.nobody by anonymous, by request why-request-nobody." in said
        assert "No route is for why.nobody." in said
        assert "No subscription is for why.nobody." in said
    definitions: dict[str, dict[str, Any]] = {
        "why-filter": {"filter": "payload.total > `100`"},
        "why-off": {"enabled": False},
    }
    for name, fields in definitions.items():
        route = {"event_type": "why.route", "to": {"user_id": "payload.user_id"}, **fields}
        system.http.put(f"{system.url}/api/v1/routes/{name}", json=route, timeout=20).raise_for_status()
    subscription = {"url": "https://why.example/", "event_types": ["why.route"], "filter": "payload.total > `200`"}
    heard = system.post("/api/v1/subscriptions", subscription).json()["id"]
    event = made_nothing(system, "why.route", {"total": 5}, "why-request-route")
    said = succeed("why", event, environment=env)
    assert "The route why-filter is for its type, and its filter does not want it: payload.total > `100`." in said
    assert "The route why-off is disabled." in said
    assert f"The subscription {heard} is for its type, and its filter does not want it: payload.total > `200`." in said
    route = {"event_type": "why.nobody", "to": {"user_id": "payload.user_id"}}
    system.http.put(f"{system.url}/api/v1/routes/why-later", json=route, timeout=20).raise_for_status()
    assert "The route why-later is for it by now" in succeed("why", nobody, environment=env)
    system.sql("UPDATE routes SET definition = '[]' WHERE name = 'why-later'")
    assert "The route why-later is for it, and cannot be used: " in succeed("why", nobody, environment=env)
    for name in (*definitions, "why-later"):
        system.http.delete(f"{system.url}/api/v1/routes/{name}", timeout=20).raise_for_status()
    system.http.delete(f"{system.url}/api/v1/subscriptions/{heard}", timeout=20).raise_for_status()


def test_why_tells_of_an_event_that_broke_fan_out(system: Running, env: dict[str, str]) -> None:
    event, letter = str(uuid4()), str(uuid4())
    system.sql(
        "INSERT INTO events (id, event_type, source, status, payload, recipient, channel, critical, priority,"
        " created_at, error)"
        " VALUES (:id, 'why.broken', 'test', 'failed', '{}', '+4915112340055', 'sms', false, 'normal', now(),"
        " E'broke \\x1b[31m')",
        id=event,
    )
    system.sql(
        "INSERT INTO dead_letters (id, event_id, claims, event_type, reason, error, attempts, created_at)"
        " VALUES (:id, :event, 0, 'why.broken', 'fan_out_failed', 'too bad', 0, now())",
        id=letter,
        event=event,
    )
    for asked in (event, letter, "+4915112340055", " 4915112340055", "+49 1511 2340055"):
        said = succeed("why", asked, environment=env)
        assert "It was given up: fan_out_failed (too bad)." in said, asked
        assert r"stands in the dead letters: broke \u001b[31m." in said, asked
    system.sql("DELETE FROM dead_letters WHERE id = :id", id=letter)
    system.sql("DELETE FROM events WHERE id = :id", id=event)


def test_why_knows_addresses_with_a_plus_and_ids_with_a_slash(system: Running, env: dict[str, str]) -> None:
    posted = {"recipient": "why+tag@example.com", "channel": "email", "send_at": "2040-01-01T00:00:00Z"}
    event = system.event(event_type="why.plus", **posted)
    [notification] = wait_for(lambda: system.notifications(event))
    # As they were accepted once.
    system.sql("UPDATE notifications SET user_id = 'team/why' WHERE id = :id", id=notification["id"])
    for asked in ("why+tag@example.com", "why tag@EXAMPLE.com", "team/why"):
        assert f"{notification['id']}\n" in succeed("why", asked, environment=env), asked
    system.http.put(f"{system.url}/api/v1/users/why-quiet", json={"email": "q+w@example.com"}, timeout=20)
    for asked in ("why-quiet", "q+w@example.com"):
        said = succeed("why", asked, environment=env)
        assert said == "user why-quiet\n  Nothing was made for it that is still kept.\n"
    system.post("/api/v1/suppressions", {"address": "gone+w@example.com", "channel": "email", "reason": "asked us to"})
    said = succeed("why", "Gone+W@example.com", environment=env)
    assert "It was put on the suppression list: asked us to." in said
