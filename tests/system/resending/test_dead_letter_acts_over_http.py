"""Acts on many dead letters over HTTP: who may begin, watch, stop and resume them, and that the clock goes on."""

from typing import Any

import pytest
import requests

from notifier.security.audit_log import AuditLog
from notifier.security.permits import permit_of
from tests.support.callers import Callers
from tests.support.letters import Letters
from tests.support.running import Running, wait_for

ACTS = "/api/v1/dead-letters/acts"
GROUPS = "/api/v1/dead-letters/groups"


@pytest.fixture
def letters(system: Running) -> Letters:
    return Letters(system.engine)


def begin(system: Running, act: str, **filters: Any) -> dict[str, Any]:
    answer = system.post(ACTS, {"act": act, "filter": filters})
    assert answer.status_code == 202, answer.text
    begun: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"{ACTS}/{begun['id']}"
    return begun


def finished(system: Running, act: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = system.get(f"{ACTS}/{act['id']}").json()
        assert found["done"] + found["refused"] <= found["total"]
        return found if found["status"] == "finished" else None

    done = wait_for(look, 60)
    assert done in system.get(ACTS).json()["items"]
    return done


def test_the_clock_goes_on_with_an_act(system: Running, letters: Letters) -> None:
    letters.make(1_200, channel="push", recipient="acts", event_type="acts.clock")
    begun = begin(system, "requeue", event_type="acts.clock")
    assert (begun["total"], begun["done"], begun["status"], begun["finished_at"]) == (1_200, 500, "running", None)
    done = finished(system, begun)
    assert (done["done"], done["refused"], done["refused_reasons"]) == (1_200, 0, {})
    sent = "SELECT count(*) FROM notifications WHERE event_type = 'acts.clock' AND status = 'sent' AND attempts = 2"
    wait_for(lambda: system.sql(sent)[0][0] == 1_200, 60)
    assert done["filter"] == {**dict.fromkeys(done["filter"]), "event_type": "acts.clock"}


def test_a_drop_leaves_no_letters(system: Running, letters: Letters) -> None:
    letters.make(1_100, event_type="acts.drop")
    begun = begin(system, "drop", event_type="acts.drop", created_after="2026-01-01T00:00:00Z")
    assert finished(system, begun)["done"] == 1_100
    assert system.get("/api/v1/dead-letters", params={"event_type": "acts.drop"}).json()["items"] == []


def test_a_dry_run_says_what_it_would_take_and_changes_nothing(system: Running, letters: Letters) -> None:
    ids = letters.make(12, event_type="acts.dry")
    asked = {"act": "drop", "filter": {"event_type": "acts.dry"}, "dry_run": True}
    answer = system.post(ACTS, asked)
    assert answer.status_code == 200
    assert answer.json() == {
        "act": "drop",
        "total": 12,
        "by_reason": {"retries_exhausted": 12},
        "sample": [str(each) for each in ids[:10]],
    }
    assert len(system.get("/api/v1/dead-letters", params={"event_type": "acts.dry"}).json()["items"]) == 12


WRONG: list[tuple[Any, str]] = [
    ({"act": "requeue"}, "filter"),
    ({"act": "requeue", "filter": {}}, "filter"),
    ({"act": "requeue", "filter": {"channel": None}}, "filter"),
    ({"act": "requeue", "filter": {"channel": "fax"}}, "filter.channel"),
    ({"act": "requeue", "filter": {"unknown": 1}}, "filter.unknown"),
    ({"act": "requeue", "filter": {"requeued": True}}, "filter.requeued"),
    ({"act": "requeue", "filter": {"recipient": ["x"]}}, "filter.recipient"),
    ({"act": "requeue", "filter": {"channel": "sms"}, "all": True}, "all"),
    ({"act": "requeue", "all": "true"}, "all"),
    ({"act": "requeue", "all": True, "dry_run": 1}, "dry_run"),
    ({"act": "purge", "all": True}, "act"),
    ({"all": True}, "act"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_act_is_refused_and_begins_nothing(system: Running, number: int) -> None:
    before = system.get(ACTS).json()["items"]
    body, field = WRONG[number]
    answer = system.post(ACTS, body)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [field]), answer.text
    assert system.get(ACTS).json()["items"] == before


def test_a_stopped_act_is_resumed(system: Running, letters: Letters) -> None:
    letters.make(600, channel="push", recipient="acts", event_type="acts.stopped")
    begun = begin(system, "requeue", event_type="acts.stopped")
    # As if it had been stopped before the clock came to it.
    system.sql("UPDATE dead_letter_acts SET stopped_at = now(), finished_at = NULL WHERE id = :id", id=begun["id"])
    stopped = system.post(f"{ACTS}/{begun['id']}/stop")
    assert (stopped.status_code, stopped.json()["status"]) == (200, "stopped")
    assert stopped.json()["stopped_at"] is not None
    assert system.post(f"{ACTS}/{begun['id']}/resume").json()["status"] in {"running", "finished"}
    assert finished(system, begun)["stopped_at"] is None
    for change in ("stop", "resume"):
        assert system.post(f"{ACTS}/{begun['id']}/{change}").status_code == 409
        assert system.post(f"{ACTS}/{letters.make(1)[0]}/{change}").status_code == 404
    assert system.get(f"{ACTS}/{letters.make(1)[0]}").status_code == 404


def test_a_key_acts_on_its_own_source_alone(callers: Callers, system: Running, letters: Letters) -> None:
    letters.make(2, source="acts-own", event_type="acts.own")
    letters.make(3, source="acts-other", event_type="acts.own")
    own, other = (callers.new(["requeue", "read"], source=source) for source in ("acts-own", "acts-other"))
    asked = {"act": "requeue", "filter": {"event_type": "acts.own"}}
    assert own.post(ACTS, {**asked, "dry_run": True}).json()["total"] == 2
    begun = own.post(ACTS, asked).json()
    assert (begun["total"], begun["done"], begun["source"]) == (2, 2, "acts-own")
    others = {"act": "requeue", "filter": {"source": "acts-other"}}
    assert own.post(ACTS, others).status_code == 403
    assert other.post(ACTS, {"act": "requeue", "all": True, "dry_run": True}).json()["total"] == 3
    system.sql("UPDATE dead_letter_acts SET stopped_at = now(), finished_at = NULL WHERE id = :id", id=begun["id"])
    for change in ("stop", "resume"):
        assert other.post(f"{ACTS}/{begun['id']}/{change}").status_code == 404
    assert own.post(f"{ACTS}/{begun['id']}/stop").status_code == 200
    standing = system.get("/api/v1/dead-letters", params={"source": "acts-other", "requeued": "false"}).json()
    assert len(standing["items"]) == 3


def test_only_an_administrator_drops(callers: Callers, system: Running, letters: Letters) -> None:
    letters.make(2, source="acts-drop", event_type="acts.admin")
    asked = {"act": "drop", "filter": {"event_type": "acts.admin"}}
    requeuer = callers.new(["requeue", "read"], source="acts-drop")
    for dry_run in (True, False):
        refused = requeuer.post(ACTS, {**asked, "dry_run": dry_run})
        assert refused.status_code == 403
        assert "lacks the scope 'admin'" in refused.json()["detail"]
    assert callers.new(["read", "send"]).post(ACTS, {"act": "requeue", "all": True}).status_code == 403
    begun = callers.new(["admin"]).post(ACTS, asked)
    assert (begun.status_code, begun.json()["done"]) == (202, 2)
    assert begun.json()["filter"] is None, "an administrator who may not read sees no filters"
    system.sql("UPDATE dead_letter_acts SET stopped_at = now(), finished_at = NULL WHERE act = 'drop'")
    assert requeuer.post(f"{ACTS}/{begun.json()['id']}/resume").status_code == 404
    same = callers.new(["requeue"], source="acts-drop")
    system.sql("UPDATE dead_letter_acts SET source = 'acts-drop' WHERE id = :id", id=begun.json()["id"])
    assert same.post(f"{ACTS}/{begun.json()['id']}/resume").status_code == 403


def test_a_limited_key_names_its_channel_and_type(callers: Callers, letters: Letters) -> None:
    letters.make(2, source="acts-limited", event_type="acts.limited")
    permit = permit_of(["sms"], ["acts.limited"])
    limited = callers.new(["requeue"], source="acts-limited", permit=permit)

    def asked(**filters: Any) -> requests.Response:
        return limited.post(ACTS, {"act": "requeue", "filter": filters})

    assert asked(channel="email", event_type="acts.limited").status_code == 403
    assert asked(event_type="acts.limited").status_code == 403
    assert asked(channel="sms").status_code == 403
    assert limited.post(ACTS, {"act": "requeue", "all": True}).status_code == 403
    assert asked(channel="sms", event_type="acts.limited").json()["done"] == 2


def test_beginnings_and_stops_are_on_record_without_anything_personal(callers: Callers, system: Running) -> None:
    caller = callers.new(["requeue", "read"], name="acts-on-record")
    filters = {"channel": "email", "reason": "secret words", "recipient": "secret@example.com", "user_id": "secret-1"}
    begun = caller.post(ACTS, {"act": "requeue", "filter": filters}).json()
    assert begun["filter"]["recipient"] == "secret@example.com"
    caller.post(ACTS, {"act": "requeue", "filter": {"reason": "bounced"}, "dry_run": True})
    caller.post(f"{ACTS}/{begun['id']}/stop")
    lines = AuditLog(system.engine, system.vault).lines(actor="acts-on-record")
    assert [(line.action, line.target, line.outcome) for line in reversed(lines)] == [
        (f"POST {ACTS}", f"act=requeue act_id={begun['id']} channel=email", "202"),
        (f"POST {ACTS}", "act=requeue dry_run=yes reason=bounced", "200"),
        (f"POST {ACTS}/{{act_id}}/stop", f"act=requeue act_id={begun['id']} channel=email", "409"),
    ]


def test_groups_over_http(system: Running, letters: Letters) -> None:
    letters.make(3, event_type="acts.groups", error="http 503: #")
    letters.make(2, event_type="acts.groups", reason="permanent_error", provider=None)
    asked = {"by": "reason,error,provider", "event_type": "acts.groups"}
    found = system.get(GROUPS, params=asked).json()
    assert (found["by"], found["groups"], found["counted"], found["is_sample"]) == (
        *(["reason", "error", "provider"], 2, 5, False),
    )
    first, second = found["items"]
    assert (first["reason"], first["error"], first["provider"], first["count"]) == (
        *("retries_exhausted", "http 503: {id}", "outbox", 3),
    )
    assert "channel" not in first
    assert (sum(first["hourly"]), len(first["hourly"]), len(first["daily"]), first["daily"][-1]) == (3, 24, 14, 3)
    assert first["filter"] == {"reason": "retries_exhausted", "error": "http 503: {id}", "last_provider": "outbox"}
    assert (second["count"], second["provider"], second["filter"]) == (2, None, None)
    begun = begin(system, "drop", event_type="acts.groups", **first["filter"])
    assert (begun["total"], begun["done"]) == (3, 3)
    assert system.get(GROUPS, params={"event_type": "acts.groups"}).json()["items"][0]["reason"] == "permanent_error"
    assert system.get(GROUPS).json()["by"] == ["reason"]


@pytest.mark.parametrize(
    "query",
    ["by=", "by=reason,", "by=reason,reason", "by=status", "by=reason, error", "limit=0", "cursor=x"],
)
def test_a_wrong_question_for_groups_is_refused(system: Running, query: str) -> None:
    answer = system.get(f"{GROUPS}?{query}")
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [query.partition("=")[0]])
