"""Metrics: what is counted is counted exactly, says nothing of anybody, and is for those who bring a key."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from config.queues import ALL
from config.settings import read_settings
from config.wiring import Wiring
from deploy.child_process import Child
from deploy.exporter import Standings
from deploy.ports import free_port
from notifier.observability import heartbeats, metrics
from notifier.providers.protocol import Outcome
from notifier.security import api_keys
from notifier.vocabulary.ids import new_id
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, made, reaches, wait_for

TOKEN = "what-prometheus-brings"

#: name and labels → value.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Measured:
    """A system that asks for keys, with an exporter."""

    system: Running
    exporter: str

    @property
    def workers(self) -> dict[str, str]:
        """Where each worker serves its metrics."""
        return {name: f"http://127.0.0.1:{port}/metrics" for name, port in self.system.metrics_ports.items()}

    def texts(self) -> dict[str, str]:
        """Return what each process serves."""
        served = {"api": self.system.get("/metrics").text}
        for name, url in {**self.workers, "exporter": self.exporter}.items():
            answer = requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
            assert answer.status_code == 200, answer.text
            served[name] = answer.text
        return served

    def total(self, name: str, **labels: str) -> float:
        """A counter's sum over all processes and over what `labels` leave open."""
        samples = [samples_of(served) for served in self.texts().values()]
        wanted = labels.items()
        return sum(
            value for each in samples for (found, given), value in each.items() if found == name and wanted <= given
        )


def samples_of(served: str) -> Samples:
    """All samples of an exposition."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(served)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def measured(new_system: Callable[..., Running]) -> Iterator[Measured]:
    running = new_system(
        NOTIFIER_AUTH="required",
        NOTIFIER_METRICS_TOKEN=TOKEN,
        NOTIFIER_CHAT_RETRY_BACKOFF="1",
        NOTIFIER_CHAT_MAX_RETRIES="1",
    )
    port = free_port()
    running.add("exporter", "exporter", "--port", str(port))
    key = api_keys.create(running.engine, "everything", ["send", "read", "admin"])
    running.http.headers["Authorization"] = f"Bearer {key}"
    with running:
        found = Measured(running, f"http://127.0.0.1:{port}/metrics")
        wait_for(lambda: _listens(found), 40, "everybody to serve metrics")
        yield found


def _listens(measured: Measured) -> bool:
    try:
        measured.texts()
    except requests.ConnectionError:
        return False
    return True


def chat(system: Running, name: str, **fields: Any) -> str:
    return made(system, channel="chat", recipient=f"simulator://{name}", **fields)


def test_what_becomes_of_notifications_is_counted_exactly(measured: Measured) -> None:
    system = measured.system
    reaches(system, chat(system, "sent"), "sent")
    reaches(system, chat(system, "delivered"), "delivered")
    reaches(system, chat(system, "rejected"), "failed")
    reaches(system, chat(system, "unavailable"), "failed")
    reaches(system, chat(system, "bounce"), "failed")
    reaches(system, chat(system, "sent", expires_at=ahead(seconds=-1)), "expired")
    reaches(system, made(system, channel="chat", user_id="u_unknown"), "skipped")
    now = datetime.now(UTC)
    night = {
        "channels": ["chat"],
        "start": f"{now - timedelta(hours=1):%H:%M}",
        "end": f"{now + timedelta(hours=1):%H:%M}",
    }
    http = system.http
    assert http.put(f"{system.url}/api/v1/users/u_night", json={"chat_url": "simulator://sent"}, timeout=10).ok
    assert http.put(f"{system.url}/api/v1/users/u_night/preferences", json={"quiet_hours": [night]}, timeout=10).ok
    night_id = made(system, channel="chat", user_id="u_night")
    wait_for(lambda: system.notification(night_id)["reason"] == "quiet_hours")

    expected = {
        ("sent", ""): 3,  # the two that have receipts were sent first
        ("delivered", ""): 1,
        ("failed", "permanent_error"): 1,
        ("failed", "retries_exhausted"): 1,
        ("failed", "bounced"): 1,
        ("expired", ""): 1,
        ("skipped", "no_address"): 1,
        ("scheduled", "quiet_hours"): 1,
    }

    def counted() -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        for served in measured.texts().values():
            for (name, labels), value in samples_of(served).items():
                given = dict(labels)
                if name == "notifier_notifications_total" and given["channel"] == "chat":
                    pair = given["status"], given["reason"]
                    found[pair] = found.get(pair, 0) + value
        return found

    wait_for(lambda: counted() == expected, 10, "the counters")
    attempts = {
        outcome: measured.total("notifier_attempts_total", channel="chat", outcome=outcome) for outcome in Outcome
    }
    assert attempts == {"accepted": 3, "rejected": 1, "unsent": 2, "ambiguous": 0}
    assert measured.total("notifier_attempts_total", channel="chat", provider="simulator") == 6
    assert measured.total("notifier_retries_total", channel="chat") == 1
    assert measured.total("notifier_dead_letters_total", channel="chat", reason="bounced") == 1
    assert measured.total("notifier_dead_letters_total", channel="chat") == 3
    assert measured.total("notifier_delivery_latency_seconds_count", channel="chat") == 3
    assert measured.total("notifier_receipt_latency_seconds_count", channel="chat") == 1
    assert measured.total("notifier_send_seconds_count", channel="chat", provider="simulator") == 6
    assert measured.total("notifier_batch_step_seconds_count", channel="chat", step="record") >= 5
    # On a slow machine one is handed over twice.
    assert measured.total("notifier_handovers_total", queue="chat.retry") >= 1
    assert measured.total("notifier_tick_seconds_count") > 0
    # The exporter sees it, as soon as it looks again.
    wait_for(lambda: measured.total("notifier_dead_letters", channel="chat") == 3)
    assert measured.total("notifier_live_notifications", channel="chat", status="scheduled") == 1
    assert measured.total("notifier_workers_alive") == 3
    assert measured.total("notifier_postgres_up") == measured.total("notifier_broker_up") == 1
    assert measured.total("notifier_breaker_state", provider="outbox") == 0


def test_a_retry_is_measured_from_when_it_was_due(measured: Measured, http: HttpReceiver) -> None:
    http.answer("/measured-twice", 503, 204)
    began = datetime.now(UTC)
    row_id = made(measured.system, channel="webhook", recipient=http.url("/measured-twice"))
    assert reaches(measured.system, row_id, "delivered")["attempts"] == 2
    lasted = (datetime.now(UTC) - began).total_seconds()
    # The clock's message says when it was due; before that it waited for its retry, which is no latency.
    name = "notifier_delivery_latency_seconds"
    wait_for(lambda: measured.total(f"{name}_count", channel="webhook") == 1)
    assert measured.total(f"{name}_sum", channel="webhook") <= lasted - 1


def test_what_is_accepted_repeated_and_refused_is_counted_exactly(measured: Measured) -> None:
    system = measured.system
    names = ("events_accepted_total", "notifications_accepted_total", "duplicates_total", "intake_group_size_sum")

    def counted() -> list[float]:
        samples = samples_of(system.get("/metrics").text)
        refused = [
            samples.get((f"notifier_{what}_rejected_total", frozenset({("status", status)})), 0)
            for what, status in (("events", "422"), ("events", "400"), ("notifications", "422"))
        ]
        return [sum(v for (name, _), v in samples.items() if name == f"notifier_{each}") for each in names] + refused

    before = counted()
    event = {"event_type": "test.counted"}
    assert system.post("/api/v1/events", {**event, "idempotency_key": "counted"}).status_code == 202
    assert system.post("/api/v1/events", {**event, "idempotency_key": "counted"}).json()["duplicate"]
    assert system.post("/api/v1/events", {"event_type": "?"}).status_code == 422
    items = [event, {"event_type": "?"}, event, {"channel": "sms"}]
    assert system.post("/api/v1/events/batch", {"events": items}).json()["rejected"] == 2
    headers = {"Content-Type": "application/json"}
    assert system.http.post(f"{system.url}/api/v1/events", data="{", headers=headers, timeout=10).status_code == 400
    assert system.post("/api/v1/notifications", {"channel": "sms"}).status_code == 422
    chat(system, "sent")
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [3, 1, 1, 5, 3, 1, 1]


def test_requests_are_measured_by_route_and_not_by_path(measured: Measured) -> None:
    system = measured.system
    for path in (f"/api/v1/events/{new_id()}", f"/api/v1/events/{new_id()}", "/nowhere/at/all"):
        assert system.get(path).status_code == 404
    assert system.http.request("BREW", f"{system.url}/health", timeout=10).status_code == 405
    served = samples_of(system.get("/metrics").text)

    def count(**labels: str) -> float | None:
        return served.get(("notifier_http_request_seconds_count", frozenset(labels.items())))

    assert count(route="/api/v1/events/<uuid:event_id>", method="GET", code="4xx") == 2
    assert count(route="unmatched", method="GET", code="4xx") == 1
    assert count(route="unmatched", method="other", code="4xx") == 1


def test_canaries_come_through_every_queue(measured: Measured) -> None:
    def arrived() -> set[str]:
        served = samples_of(measured.texts()["exporter"])
        return {dict(labels)["queue"] for name, labels in served if name == "notifier_canary_age_seconds"}

    wait_for(lambda: arrived() == set(ALL), 60, "a canary through every queue")
    waits = {queue: measured.total("notifier_canary_wait_seconds_count", queue=queue) for queue in ALL}
    assert all(waits.values()), waits
    # They are nobody who lives.
    assert {each.kind for each, _ in heartbeats.alive(measured.system.engine)} == {"worker", "clock"}


def test_labels_say_nothing_of_anybody(measured: Measured) -> None:
    allowed = {
        "channel",
        "provider",
        "outcome",
        "queue",
        "status",
        "reason",
        "code",
        "route",
        "method",
        "step",
        "state",
    }
    allowed |= {"lane", "le", "version", "implementation", "major", "minor", "patchlevel"}
    for process, served in measured.texts().items():
        for name, labels in samples_of(served):
            given = dict(labels)
            assert given.keys() <= allowed, (process, name)
            given.pop("route", None)
            for label, value in given.items():
                assert re.fullmatch(r"[A-Za-z0-9_.+-]{0,32}", value), (process, name, label, value)
                assert not re.fullmatch(r"[0-9a-f-]{32,36}", value), (process, name, label, value)
            assert not {"u_night", "u_unknown", "test.counted"} & set(given.values())


def test_what_is_served_is_well_formed(measured: Measured) -> None:
    for process, served in measured.texts().items():
        names = set()
        for family in text_string_to_metric_families(served):
            assert family.name not in names, f"{process} serves {family.name} twice"
            names.add(family.name)
            assert family.documentation, family.name
            assert family.type in {"counter", "gauge", "histogram"}, family.name
            if family.name.startswith("notifier_"):
                assert family.documentation.endswith("."), family.name
                assert re.fullmatch(r"notifier_[a-z]+(_[a-z]+)*", family.name)
                assert not re.search(r"_(ms|milliseconds|minutes|count|sum|bucket)$", family.name)
            for sample in family.samples:
                assert sample.value == sample.value, f"{sample.name} is not a number"
        if promtool := shutil.which("promtool"):
            done = subprocess.run(
                [promtool, "check", "metrics"], input=served, text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr


def test_openmetrics_is_answered_where_it_is_asked_for(measured: Measured) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    answers = [
        measured.system.get("/metrics", headers=accept),
        requests.get(measured.exporter, headers={**accept, **bearer}, timeout=10),
    ]
    for answer in answers:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
    assert measured.system.get("/metrics").headers["Content-Type"].startswith("text/plain; version=")


# --- Who may look


def test_workers_and_exporter_ask_for_the_token(measured: Measured) -> None:
    for url in (measured.exporter, *measured.workers.values()):
        for header in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer é".encode()):
            headers = {} if header is None else {"Authorization": header}
            answer = requests.get(url, headers=headers, timeout=10)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "notifier_" not in answer.text
        base = url.removesuffix("/metrics")
        assert requests.get(f"{base}/health", timeout=10).text == "ok\n"
        assert requests.get(f"{base}/", timeout=10).status_code == 404
        assert requests.post(url, timeout=10).status_code == 501


def test_the_api_asks_for_a_key_that_may_read(measured: Measured) -> None:
    url = f"{measured.system.url}/metrics"
    sender, reader = (api_keys.create(measured.system.engine, f"m-{scope}", [scope]) for scope in ("send", "read"))
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.get(url, headers={"Authorization": f"Bearer {sender}"}, timeout=10).status_code == 403
    assert requests.get(url, headers={"Authorization": f"Bearer {reader}"}, timeout=10).status_code == 200


def test_the_api_takes_the_token_of_metrics_and_for_nothing_else(measured: Measured) -> None:
    url = measured.system.url

    def status(path: str, header: str | bytes) -> int:
        return requests.get(f"{url}{path}", headers={"Authorization": header}, timeout=10).status_code

    assert status("/metrics", f"Bearer {TOKEN}") == status("/metrics", f"bearer  {TOKEN}") == 200
    for wrong in (TOKEN, "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer é".encode()):
        assert status("/metrics", wrong) == 401
    for path in ("/api/v1/notifications", "/api/v1/dead-letters", "/api/v1/holds"):
        assert status(path, f"Bearer {TOKEN}") == 401


def test_where_no_token_is_set_none_is_taken(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.app.configure_logs", lambda _: None)  # it would take pytest's own handlers away
    wires = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    client = create_app(wires).test_client()
    for header in ("Bearer ", "Bearer None", "Bearer"):
        assert client.get("/metrics", headers={"Authorization": header}).status_code == 401
    wires.engine.dispose()


def test_without_auth_and_token_both_are_open(system: Running) -> None:
    assert system.get("/metrics").status_code == 200
    url = f"http://127.0.0.1:{system.metrics_ports['fresh']}/metrics"
    assert requests.get(url, timeout=10).status_code == 200
    # But to no page of another site, which has its own name lead here.
    assert requests.get(url, headers={"Host": "evil.example"}, timeout=10).status_code == 421
    refused = requests.post(url, timeout=10)
    assert (refused.status_code, refused.headers["Content-Type"]) == (501, "text/plain; charset=utf-8")


def test_flower_shows_its_own_metrics_to_nobody_without_its_password(measured: Measured, tmp_path: Path) -> None:
    port = free_port()
    environment = {**measured.system.environment, "FLOWER_BASIC_AUTH": "operator:secret"}
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, ROOT / "manage.py", "flower", "--port", str(port)]

    def answers() -> bool:
        try:
            return requests.get(f"{url}/healthcheck", timeout=2).ok
        except requests.RequestException:
            return False

    flower = Child("flower", command, log=tmp_path / "flower.log", environment=environment, cwd=ROOT, ready=answers)
    flower.start()
    try:
        assert requests.get(f"{url}/metrics", timeout=10).status_code == 401
        answer = requests.get(f"{url}/metrics", auth=("operator", "secret"), timeout=10)
        assert answer.status_code == 200
        assert "notifier_attempts" not in answer.text
    finally:
        flower.stop()


def test_an_exporter_goes_on_without_postgres_and_broker(measured: Measured, tmp_path: Path) -> None:
    port = free_port()
    away = {"DATABASE_URL": "postgresql://127.0.0.1:9/x", "REDIS_URL": "redis://127.0.0.1:9/0"}
    command = [sys.executable, ROOT / "manage.py", "exporter", "--port", str(port)]
    environment = {**measured.system.environment, **away, "NOTIFIER_METRICS_TOKEN": ""}
    exporter = Child("exporter", command, log=tmp_path / "exporter.log", environment=environment, cwd=ROOT)
    exporter.launch()

    def served() -> str | None:
        try:
            return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        except requests.ConnectionError:
            return None

    try:
        samples = samples_of(wait_for(served, 30, "the exporter"))
        assert samples["notifier_postgres_up", frozenset()] == samples["notifier_broker_up", frozenset()] == 0
        assert not [name for name, _ in samples if name in {"notifier_queue_messages", "notifier_holds"}]
        assert exporter.alive()
        # Not by the signal itself: as process 1 of a container it would not end at all.
        exporter.terminate()
        wait_for(lambda: not exporter.alive(), 10, "its end")
        assert exporter.exit_code == 0
    finally:
        exporter.stop()


# --- What each serves


def test_each_process_serves_all_that_it_may_count(measured: Measured) -> None:
    own = {family.name for family in metrics.REGISTRY.collect()}
    gauges = {
        family.name for family in Standings(Wiring(read_settings({"DATABASE_URL": "postgresql://nowhere"}))).describe()
    }
    for process, served in measured.texts().items():
        names = {family.name for family in text_string_to_metric_families(served)}
        wanted = gauges if process == "exporter" else own
        assert wanted - {"notifier_build"} <= names | {name.removesuffix("_info") for name in names}, process
        assert "notifier_build_info" in names


def test_what_alerts_watch_begins_at_zero(measured: Measured) -> None:
    samples = {name: samples_of(served) for name, served in measured.texts().items()}
    nothing = frozenset({("channel", "push"), ("reason", "too_old")})
    assert {name for name, each in samples.items() if each.get(("notifier_dead_letters_total", nothing)) == 0} == {
        "api",
        *measured.workers,
    }
    for outcome in Outcome:
        labels = frozenset({("channel", "push"), ("provider", "outbox"), ("outcome", outcome.value)})
        assert samples["fresh"]["notifier_attempts_total", labels] == 0


def test_breakers_are_told_of_providers_that_are_set(measured: Measured) -> None:
    insert = "INSERT INTO providers (channel, name, open_until) VALUES ('push', :name, now() + interval '1 hour')"
    for name in ("outbox", "removed"):
        measured.system.sql(insert, name=name)
    try:
        wait_for(lambda: measured.total("notifier_breaker_state", channel="push", provider="outbox") == 2)
        exporter = samples_of(measured.texts()["exporter"])
        assert [labels for name, labels in exporter if ("provider", "removed") in labels] == []
    finally:
        measured.system.sql("DELETE FROM providers WHERE name IN ('outbox', 'removed')")


def test_metrics_are_described_in_openapi(database_url: str) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url}))
    described = create_app(wires).extensions["openapi"].document()["paths"]["/metrics"]["get"]
    assert list(described["responses"]["200"]["content"]) == ["text/plain"]
    assert "security" not in described  # so it wants a key, as all do that do not say otherwise
    wires.engine.dispose()
