"""Permits of keys: the scope `critical`, and the channels and event types of keys that are limited."""

from typing import Any

import pytest
from sqlalchemy import Engine

from notifier.security import api_keys
from notifier.security.permits import Permit, permit_of
from notifier.vocabulary.errors import Invalid
from tests.support.callers import Caller, Callers
from tests.support.commands import succeed
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, reaches, wait_for

EVENT, NOTIFICATION = "/api/v1/events", "/api/v1/notifications"
TO = {"recipient": "permits", "channel": "push"}


def answered(answer: Any, status: int, kind: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    if kind is not None:
        assert answer.json()["type"] == f"/problems/{kind}", answer.text


# Critical.


@pytest.mark.parametrize("path", [EVENT, "/events"])
def test_a_critical_event_needs_its_scope(callers: Callers, path: str) -> None:
    body = {"event_type": "x", "critical": True}
    answer = callers.new(["send", "read", "requeue"]).post(path, body)
    answered(answer, 403, "missing-scope")
    assert "'critical'" in answer.json()["detail"]
    for scopes in (["send", "critical"], ["send", "admin"]):
        answered(callers.new(scopes).post(path, body), 202)
    answered(callers.new().post(path, {**body, "critical": False, "priority": "high"}), 202)


@pytest.mark.parametrize("path", [NOTIFICATION, "/send-notification"])
def test_a_critical_notification_needs_its_scope(callers: Callers, path: str) -> None:
    body = {**TO, "body": "x", "critical": True, "idempotency_key": f"critical-{path}"}
    sender = callers.new()
    answered(sender.post(path, body), 403, "missing-scope")
    answered(sender.post(path, {**body, "critical": False}), 202)  # what was refused has burnt no key
    answered(callers.new(["send", "critical"]).post(path, body), 202)


def test_in_a_batch_it_is_the_item_s_error(callers: Callers) -> None:
    events = [{"event_type": "x", "critical": critical} for critical in (False, True, False)]
    answer = callers.new().post(f"{EVENT}/batch", {"events": events}).json()
    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    refused = answer["items"][1]
    assert (refused["status"], refused["type"], list(refused["errors"])) == (
        *(403, "/problems/missing-scope", ["critical"]),
    )


def test_a_route_may_be_critical_whoever_posts(callers: Callers, system: Running) -> None:
    route = {"event_type": "permits.routed", "to": {"recipient": "payload.to", "channel": "push"}, "critical": True}
    system.http.put(f"{system.url}/api/v1/routes/permits", json=route, timeout=20).raise_for_status()
    event = callers.new().event(event_type="permits.routed", payload={"to": "permits-routed"})
    [made] = wait_for(lambda: system.notifications(event))
    assert made["critical"] is True


def test_to_ask_is_no_sending(callers: Callers, system: Running) -> None:
    system.http.put(f"{system.url}/api/v1/users/u-permits", json={"email": "p@example.com"}, timeout=20)
    question = {"user_id": "u-permits", "channel": "email", "critical": True}
    answered(callers.new(["read"]).post("/api/v1/preferences/check", question), 200)


# Channels.


def test_only_the_channels_of_a_key_are_used(callers: Callers) -> None:
    limited = callers.new(["send", "critical"], permit=Permit(channels=frozenset({"push", "sms"})))
    for channel, recipient, status in (
        *(("push", "token", 202), ("sms", "+4915112345678", 202)),
        *(("email", "ada@example.com", 403), ("chat", "slack://permits", 403)),
    ):
        fields = {"channel": channel, "recipient": recipient}
        for path, body in ((EVENT, {"event_type": "x"}), (NOTIFICATION, {"body": "x"})):
            answer = limited.post(path, {**body, **fields})
            answered(answer, status, "key-restricted" if status == 403 else None)
            assert status == 202 or "push, sms" in answer.json()["detail"]
    # A request that names no channel means all that the user has.
    answered(limited.post(EVENT, {"event_type": "x", "user_id": "u"}), 403, "key-restricted")
    answered(limited.post(NOTIFICATION, {"body": "x", "user_id": "u"}), 403, "key-restricted")
    for channels, status in ((["push", "sms"], 202), (["push", "email"], 403)):
        for strategy in ("all", "first"):
            body = {"body": "x", "user_id": "u", "channels": channels, "strategy": strategy}
            answered(limited.post(NOTIFICATION, body), status)
    # Routes and subscriptions are the operator's.
    answered(limited.post(EVENT, {"event_type": "x"}), 202)
    # With another system's words too.
    body = {"userId": "u", "template": "permits"}
    for kind, status in (("EMAIL", 403), ("PUSH", 422)):  # there is no such template
        answered(limited.post("/notify", {**body, "type": kind}), status)
    items = [{"event_type": "x", **TO}, {"event_type": "x", "recipient": "a@example.com", "channel": "email"}]
    answer = limited.post(f"{EVENT}/batch", {"events": items}).json()
    assert [item["status"] for item in answer["items"]] == ["accepted", 403]
    assert list(answer["items"][1]["errors"]) == ["channel"]


def test_only_the_event_types_of_a_key_are_used(callers: Callers) -> None:
    limited = callers.new(permit=Permit(event_types=("invoice", "order.*")))
    for event_type, status in (
        *(("order.paid", 202), ("order.", 202), ("invoice", 202)),
        *(("order", 403), ("invoice.paid", 403), ("reorder.paid", 403), ("Order.paid", 403)),
    ):
        answered(limited.post(EVENT, {"event_type": event_type}), status)
        answered(limited.post("/events", {"type": event_type}), status)
    answered(limited.post(NOTIFICATION, {**TO, "body": "x"}), 403, "key-restricted")


def test_what_is_sent_again_is_within_a_key_s_limits(callers: Callers, system: Running, http: HttpReceiver) -> None:
    http.answer("/permits-dead", 400)
    owner = callers.new()
    event = owner.event(event_type="order.paid", recipient=http.url("/permits-dead"), channel="webhook")
    [failed] = wait_for(lambda: system.notifications(event))
    reaches(system, failed["id"], "failed")
    [letter] = system.get("/api/v1/dead-letters", params={"event_id": event}).json()["items"]
    scheduled = owner.made(**TO, send_at="2040-06-01T12:00:00Z")

    def allowed(permit: Permit, status: int, *, all_of: dict[str, Any]) -> None:
        admin = callers.new(["admin"], permit=permit)
        move = {"send_at": "2041-06-01T12:00:00Z"}
        assert admin.ask("PATCH", f"{NOTIFICATION}/{scheduled}", json=move).status_code == 403
        for path in (f"{EVENT}/{event}/replay", f"/api/v1/dead-letters/{letter['id']}/requeue"):
            assert admin.post(path).status_code == status, path
        resent = admin.post(f"{NOTIFICATION}/{failed['id']}/resend")
        assert (resent.status_code == 403) == (status == 403)
        answered(admin.post("/api/v1/dead-letters/requeue", all_of), status)
        answered(admin.post("/api/v1/dead-letters/requeue", {"event_id": event}), 403, "key-restricted")

    allowed(Permit(channels=frozenset({"email"})), 403, all_of={"channel": "webhook", "event_id": event})
    allowed(Permit(event_types=("invoice.*",)), 403, all_of={"event_type": "order.paid", "event_id": event})
    assert system.notification(failed["id"])["status"] == "failed"
    assert len(system.notifications(event)) == 1
    both = Permit(frozenset({"webhook"}), ("order.*",))
    allowed(both, 202, all_of={"channel": "webhook", "event_type": "order.paid", "event_id": event})
    assert system.notification(scheduled)["send_at"] == "2040-06-01T12:00:00Z"


# Keys.


def test_a_key_is_made_with_its_limits_and_keeps_them(callers: Callers, system: Running) -> None:
    limits = ("--channel", "email", "--channel", "sms", "--event-type", "order.*", "--event-type", "invoice")
    key = succeed(
        *("api-keys", "create", "--name", "within-limits", "--scope", "send,critical", *limits),
        environment=system.environment,
    ).strip()
    limited = Caller(callers.new().url, key)
    answered(limited.post(EVENT, {"event_type": "x"}), 403, "key-restricted")
    [row] = [
        line
        for line in succeed("api-keys", "list", environment=system.environment).splitlines()
        if "within-limits" in line
    ]
    assert "email, sms, invoice, order.*" in row
    rotated = api_keys.rotate(system.engine, "within-limits")
    answered(Caller(limited.url, str(rotated)).post(EVENT, {"event_type": "x"}), 403, "key-restricted")
    found = api_keys.find(system.engine, str(rotated))
    assert found
    assert found.permit == Permit(frozenset({"email", "sms"}), ("invoice", "order.*"))


@pytest.mark.parametrize(
    ("channels", "event_types"),
    [(["fax"], []), (["EMAIL"], []), ([""], []), ([], [""]), ([], ["*.paid"]), ([], ["order*paid"]), ([], ["a b"])],
)
def test_wrong_limits_are_refused(engine: Engine, channels: list[str], event_types: list[str]) -> None:
    with pytest.raises(Invalid):
        permit_of(channels, event_types)
    assert api_keys.listed(engine) == []
