"""Logs and traces: what a request brings about can be found by its id, and nothing personal can be found at all."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from config.settings import read_settings
from config.wiring import make_engine
from deploy.embedded import EmbeddedPostgres
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, made, wait_for

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
#: Where the collector listens.
SPANS = "/v1/traces"


class Span(NamedTuple):
    """A span as the collector got it: ids in hexadecimal, `links` as (trace, span)."""

    name: str
    trace: str
    id: str
    parent: str
    links: set[tuple[str, str]]
    attributes: dict[str, Any]
    failed: bool


@pytest.fixture(scope="module")
def collector() -> Iterator[HttpReceiver]:
    """An OpenTelemetry collector."""
    with HttpReceiver() as receiver:
        receiver.answer(SPANS, 200)
        yield receiver


@pytest.fixture(scope="module")
def logged(new_system: Callable[..., Running], smtp: SmtpReceiver, collector: HttpReceiver) -> Iterator[Running]:
    """A system that logs JSON and sends its spans to the collector."""
    running = new_system(
        NOTIFIER_LOG_FORMAT="json",
        NOTIFIER_EMAIL=f"{smtp.dsn}?tls=none",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url(""),
        OTEL_BSP_SCHEDULE_DELAY="200",
    )
    try:
        running.start()
        yield running
    finally:
        running.stop()


def logs_of(system: Running) -> str:
    return "".join(file.read_text() for file in sorted(system.folder.glob("*.log")))


def lines(system: Running, event: str, **known: Any) -> list[dict[str, Any]]:
    """The lines of a name that say this, oldest first of each process."""
    found = [json.loads(line) for line in logs_of(system).splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event and known.items() <= line.items()]


def spans(collector: HttpReceiver) -> list[Span]:
    """All that the collector has got."""
    found = []
    for request in collector.received(SPANS):
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                attributes = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
                links = {(link.trace_id.hex(), link.span_id.hex()) for link in span.links}
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                found.append(Span(span.name, *ids, links, attributes, span.status.code == 2))
    return found


def post(system: Running, event: dict[str, Any], **headers: str) -> tuple[str, str]:
    """Post an event that must be accepted; its id, and its request's."""
    answer = system.post("/api/v1/events", {"event_type": "log.test", **event}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"], answer.headers["X-Request-Id"]


def test_a_request_is_found_in_every_line_that_it_brings_about(logged: Running, http: HttpReceiver) -> None:
    http.answer("/found", 503, 204)
    event_id, request_id = post(
        logged,
        {"recipient": http.url("/found"), "channel": "webhook", "payload": {"n": 1}},
        **{"X-Request-Id": "checkout/7", "traceparent": TRACEPARENT},
    )
    assert request_id == "checkout/7"
    notification = logged.finished(event_id)
    ids = {"request_id": "checkout/7", "event_id": event_id, "notification_id": notification["id"]}
    [request] = wait_for(lambda: lines(logged, "request", request_id="checkout/7", event_id=event_id))
    assert (request["method"], request["route"], request["status"]) == ("POST", "/api/v1/events", 202)
    assert request["source"] == "anonymous"
    assert request["ms"] > 0
    first, second = wait_for(lambda: lines(logged, "attempt", **ids)[1:] and lines(logged, "attempt", **ids))
    assert (first["outcome"], first["code"], first["number"], first["level"]) == ("unsent", 503, 1, "warning")
    assert (second["outcome"], second["code"], second["number"], second["level"]) == ("accepted", 204, 2, "info")
    assert first["task"] == second["task"] == "tasks.deliver.webhook"
    # The first batch knows it by the header of its message; the second came from the clock.
    batches = lines(logged, "batch", request_id="checkout/7")
    assert [(batch["claimed"], batch["failed"]) for batch in batches] == [(1, 1)]
    assert all(line["traceparent"].startswith(f"00-{TRACE}-") for line in (request, first, second, *batches))


def test_fan_out_dead_letters_and_what_is_put_aside_have_lines_too(logged: Running, http: HttpReceiver) -> None:
    http.answer("/never", 400)
    fields = {"url": http.url("/never"), "event_types": ["log.never"], "permanent_statuses": [400]}
    answer = logged.post("/api/v1/subscriptions", fields)
    assert answer.status_code == 201, answer.text
    event_id, request_id = post(logged, {"event_type": "log.never", "payload": {}})
    logged.dead_letter(event_id)
    known = {"request_id": request_id, "event_id": event_id}
    [fanned_out] = wait_for(lambda: lines(logged, "fanned_out", **known))
    assert (fanned_out["notifications"], fanned_out["finished"], fanned_out["event_type"]) == (1, True, "log.never")
    [dead] = wait_for(lambda: lines(logged, "dead_letter", **known))
    assert (dead["reason"], dead["error"], dead["channel"]) == ("permanent_error", "http 400", "webhook")
    logged.http.put(f"{logged.url}/api/v1/holds/sms", timeout=20)
    held = made(logged, recipient="+4915112345678", channel="sms")
    [aside] = wait_for(lambda: lines(logged, "put_aside", notification_id=held))
    assert (aside["status"], aside["reason"]) == ("scheduled", "held")
    assert aside["until"] > aside["timestamp"]
    logged.http.delete(f"{logged.url}/api/v1/holds/sms", timeout=20)


def test_what_is_told_of_a_notification_belongs_to_the_same_request(logged: Running, http: HttpReceiver) -> None:
    told = {"url": http.url("/told"), "event_types": ["notifier.notification.delivered"]}
    created = logged.post("/api/v1/subscriptions", told)
    assert created.status_code == 201, created.text
    try:
        event_id, request_id = post(logged, {"recipient": http.url("/tell"), "channel": "webhook", "payload": {}})
        notification = logged.finished(event_id)
        wait_for(lambda: http.received("/told"))
        ours = {"request_id": request_id, "event_type": "notifier.notification.delivered"}
        [callback] = wait_for(lambda: lines(logged, "attempt", **ours))
    finally:
        logged.http.delete(f"{logged.url}/api/v1/subscriptions/{created.json()['id']}", timeout=20)
    assert callback["notification_id"] != notification["id"]
    [received] = http.received("/told")
    assert received.json["data"]["notification_id"] == notification["id"]
    assert "request_id" not in received.json["data"]


def test_a_batch_tells_how_it_went_and_its_items_carry_its_id(logged: Running, http: HttpReceiver) -> None:
    events = [{"event_type": "log.batch", "recipient": http.url("/batch"), "channel": "webhook", "payload": {"n": n}}
              for n in range(3)]  # fmt: skip
    answer = logged.post("/api/v1/events/batch", {"events": [*events, {"payload": 1}]})
    request_id = answer.headers["X-Request-Id"]
    [line] = wait_for(lambda: lines(logged, "request", request_id=request_id))
    assert (line["accepted"], line["rejected"], line["duplicates"]) == (3, 1, 0)
    wait_for(lambda: len(lines(logged, "attempt", request_id=request_id)) == 3)
    assert lines(logged, "batch", request_id=request_id), "the message's header names the one request"


@pytest.mark.parametrize("given", ["ada@example.com", "x" * 129, "a b", "-", "", "é"])
def test_an_id_that_could_be_anything_is_replaced(logged: Running, given: str) -> None:
    answer = logged.get("/api/v1/events", headers={"X-Request-Id": given.encode()})
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", answer.headers["X-Request-Id"])


def test_each_answer_has_an_id_also_an_error(logged: Running) -> None:
    for path, status in (("/api/v1/events", 200), ("/nowhere", 404), ("/health", 200), ("/api/v1/events/x", 404)):
        answer = logged.get(path, headers={"X-Request-Id": "a-1"})
        assert (answer.status_code, answer.headers["X-Request-Id"]) == (status, "a-1")
    assert not lines(logged, "request", route="/health"), "told of at debug alone"
    assert lines(logged, "request", request_id="a-1", route="unmatched", status=404)


def test_one_trace_from_the_post_to_the_provider(logged: Running, http: HttpReceiver, collector: HttpReceiver) -> None:
    trace = "a" * 31 + "1"
    event_id, request_id = post(
        logged,
        {"recipient": http.url("/traced"), "channel": "webhook", "payload": {}},
        traceparent=f"00-{trace}-{CALLER}-01",
    )
    notification = logged.finished(event_id)

    def found() -> dict[str, Span] | None:
        ours = {span.name: span for span in spans(collector) if span.trace == trace}
        return ours if len(ours) == 3 else None

    ours = wait_for(found, 20, "three spans")
    request, send = ours["POST /api/v1/events"], ours["send webhook"]
    assert (request.parent, send.parent) == (CALLER, request.id)
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["notifier.request_id"] == request_id
    assert send.attributes["notifier.notification_id"] == notification["id"]
    assert send.attributes["notifier.event_id"] == event_id
    assert (send.attributes["notifier.provider"], send.attributes["notifier.outcome"]) == ("webhook", "accepted")
    # Its message came from this one request, so that its batch stands in the same trace.
    batch = ours["deliver webhook"]
    assert batch.parent == request.id
    assert send.links == {(trace, batch.id)}
    assert batch.links == {(trace, request.id)}
    # Each request that went out stands below the span of its sending.
    [received] = http.received("/traced")
    assert received.headers["traceparent"] == f"00-{trace}-{send.id}-01"
    [attempt] = notification["attempt_log"]
    assert attempt["request_headers"]["traceparent"] == received.headers["traceparent"]


def test_a_batch_has_a_link_to_each_trace_that_it_works_for(
    logged: Running, http: HttpReceiver, collector: HttpReceiver
) -> None:
    logged.http.put(f"{logged.url}/api/v1/holds/webhook", timeout=20)
    traces = [f"{n:032x}" for n in range(1, 201)]  # more than the SDK would keep
    ids = [
        post(
            logged,
            {"recipient": http.url("/linked"), "channel": "webhook", "payload": {}},
            traceparent=f"00-{trace}-{CALLER}-01",
        )[0]
        for trace in traces
    ]
    wait_for(lambda: logged.sql("SELECT 1 FROM notifications WHERE reason = 'held' HAVING count(*) >= 200"))
    logged.http.delete(f"{logged.url}/api/v1/holds/webhook", timeout=20)
    wait_for(lambda: len(http.received("/linked")) == len(ids), 40)

    def linked() -> bool:
        found = [span for span in spans(collector) if span.name == "deliver webhook"]
        sends = [span for span in spans(collector) if span.name == "send webhook" and span.trace in traces]
        everything = {trace for span in found for trace, _ in span.links}
        return set(traces) <= everything and len(sends) == len(traces) and max(len(each.links) for each in found) > 128

    wait_for(linked, 20, "a link to each of 200 traces")


def test_without_a_collector_the_traceparent_goes_on_as_it_came(system: Running, http: HttpReceiver) -> None:
    subscription = {"url": http.url("/passed-on"), "event_types": ["log.passed-on"]}
    created = system.post("/api/v1/subscriptions", subscription)
    assert created.status_code == 201, created.text
    later = f"cc-{TRACE}-{CALLER}-01-what-later-versions-add"
    for given in (TRACEPARENT, later, f"00-{'0' * 32}-{CALLER}-01", "nonsense", None):
        http_before = len(http.received("/passed-on"))
        headers = {} if given is None else {"traceparent": given}
        answer = system.post("/api/v1/events", {"event_type": "log.passed-on", "payload": {}}, headers=headers)
        assert answer.status_code == 202
        wait_for(lambda before=http_before: len(http.received("/passed-on")) > before)
        received = http.received("/passed-on")[-1]
        known = given in {TRACEPARENT, later}
        assert received.headers.get("traceparent") == (TRACEPARENT if known else None)


SECRET = "zqx"  # stands in every address and payload below, and in no log


def test_nothing_personal_is_in_the_logs_of_a_whole_run(
    logged: Running, http: HttpReceiver, smtp: SmtpReceiver, collector: HttpReceiver
) -> None:
    payload = {"name": f"{SECRET} Ada", "items": [{f"{SECRET}-key": f"{SECRET}-value"}], "amount": 8675309.25}
    everybody = {
        "email": f"{SECRET}-ada@example.com",
        "sms": "+15550109876",
        "push": f"{SECRET}-token-{'x' * 40}",
        "chat": f"json://127.0.0.1:9/{SECRET}",
        "webhook": http.url(f"/{SECRET}-hook?token={SECRET}"),
    }
    refused = f"{SECRET}-nobody@example.com"
    smtp.refuse(refused, f"550 5.1.1 <{refused}>: nobody here of this name")
    http.answer(f"/{SECRET}-broken", 503)
    ids = []
    for channel, address in everybody.items():
        ids.append(logged.event(recipient=address, channel=channel, payload=payload))
    ids.append(logged.event(recipient=refused, channel="email", payload=payload))
    for url in (http.url(f"/{SECRET}-broken"), f"http://{SECRET}.invalid/{SECRET}", f"http://u:{SECRET}@127.0.0.1:9/"):
        ids += [logged.event(recipient=url, channel="webhook", payload=payload)]
    tried = "SELECT 1 FROM notifications WHERE event_id = :id AND attempts > 0 AND status <> 'sending'"
    for event_id in ids:
        wait_for(lambda one=event_id: logged.sql(tried, id=one))
    # Refused at once, in every way.
    for body in (
        {"event_type": SECRET, "payload": payload, "recipient": f"{SECRET}@", "channel": "email"},
        {"event_type": "log.test", "payload": payload, "recipient": f"{SECRET}", "channel": "sms"},
        {"event_type": "log.test", "payload": payload, "user_id": f"{SECRET}", "template": f"{SECRET}-unknown"},
        {SECRET: SECRET},
        [SECRET],
    ):
        assert logged.post("/api/v1/events", body).status_code == 422
    assert logged.http.post(f"{logged.url}/api/v1/events", data=f"{{{SECRET}", timeout=20).status_code in {400, 415}
    # A person, with preferences, templates, direct messages, suppressions, an unsubscribe link, an erasure.
    user = f"/api/v1/users/{SECRET}-user"
    person = {"email": everybody["email"], "phone": everybody["sms"], "attributes": {"note": f"{SECRET} note"}}
    assert logged.http.put(logged.url + user, json=person, timeout=20).status_code in {200, 201}
    template = {"channel": "email", "subject": f"{SECRET} {{{{ data.a.b.c }}}}", "text": f"{SECRET} {{{{ name }}}}"}
    assert logged.post("/api/v1/templates/greeting/versions", template).status_code < 500
    direct = {"user_id": f"{SECRET}-user", "channel": "email", "subject": f"{SECRET} hi", "body": f"{SECRET} body"}
    made_here = made(logged, **direct)
    address = {"channel": "email", "address": everybody["email"], "reason": "manual"}
    logged.post("/api/v1/suppressions", address)
    suppressed = made(logged, **direct)
    assert logged.get("/api/v1/suppressions", params={"address": everybody["email"]}).status_code == 200
    for sought in (*everybody.values(), f"{SECRET}-user", f"{SECRET}\n"):
        assert logged.get("/api/v1/search", params={"q": sought}).status_code in {200, 422}
    logged.get(f"/u/{SECRET}-token")
    logged.get(f"/{SECRET}/nowhere?x={SECRET}")
    logged.get(f"{user}/export")
    for notification in (made_here, suppressed):
        wait_for(lambda one=notification: logged.notification(one)["status"] in {"sent", "skipped", "failed"})
    logged.http.delete(logged.url + user, timeout=20)
    # Replayed, requeued, resent.
    logged.post(f"/api/v1/events/{ids[0]}/replay")
    letter = logged.dead_letter(ids[5])
    logged.post(f"/api/v1/dead-letters/{letter['id']}/requeue")
    wait_for(lambda: len(lines(logged, "dead_letter", notification_id=letter["notification_id"])) == 2)
    said = logs_of(logged) + "".join(str(span) for span in spans(collector))
    assert len(lines(logged, "attempt")) > len(ids), "there is something to look through"
    for marker in (SECRET, *everybody.values(), "8675309"):
        assert marker not in said, [line for line in said.splitlines() if marker in line][:3]


def test_postgres_logs_no_statement_that_fails(logged: Running, postgres: EmbeddedPostgres) -> None:
    """Its log would have all that we write, as literals."""
    postgres_log = postgres.log
    with pytest.raises(Exception, match="invalid input syntax"):
        logged.sql(f"SELECT CAST('{SECRET}-in-a-statement' AS integer)")
    wait_for(lambda: "invalid input syntax" in postgres_log.read_text())
    assert f"{SECRET}-in-a-statement' AS" not in postgres_log.read_text()


def test_what_was_asked_of_postgres_does_not_stand_in_its_exceptions(database_url: str) -> None:
    """A server that prints them, as it does where an answer breaks off, prints what they say."""
    engine = make_engine(read_settings({"DATABASE_URL": database_url}))
    with engine.connect() as connection, pytest.raises(DBAPIError) as refused:
        connection.execute(text("SELECT 1 / 0, CAST(:address AS text)"), {"address": SECRET})
    engine.dispose()
    assert "division by zero" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_exceptions_are_told_without_what_they_say(logged: Running) -> None:
    """The API breaks on what it did not foresee, and Postgres repeats the row."""
    logged.sql("ALTER TABLE users ADD CONSTRAINT unforeseen CHECK (user_id NOT LIKE '%-user')")
    try:
        answer = logged.http.put(
            f"{logged.url}/api/v1/users/{SECRET}-user", json={"email": f"{SECRET}@example.com"}, timeout=20
        )
    finally:
        logged.sql("ALTER TABLE users DROP CONSTRAINT unforeseen")
    assert answer.status_code == 500
    [line] = wait_for(lambda: lines(logged, "request_failed", request_id=answer.headers["X-Request-Id"]))
    assert "psycopg2.errors.CheckViolation" in line["exception"]
    assert str(ROOT / "api") in line["exception"]
    [request] = wait_for(lambda: lines(logged, "request", request_id=line["request_id"]))
    assert (request["status"], request["level"]) == (500, "error")
    assert SECRET not in logs_of(logged)


SPEAKS = """
import logging, sys
from config.logs import configure_logs
from config.settings import read_settings
configure_logs(read_settings({"DATABASE_URL": "postgresql://localhost/x", "NOTIFIER_LOG_FORMAT": sys.argv[1]}))
import structlog
structlog.get_logger().warning("lost", of="half a pair: \\ud800")
logging.getLogger("other").warning("lost as well")
print("went on", flush=True)
"""


FLOODS = """
import sys
from config.logs import configure_logs
from config.settings import read_settings
configure_logs(read_settings({"DATABASE_URL": "postgresql://localhost/x", "NOTIFIER_LOG_FORMAT": "json"}))
import structlog
log = structlog.get_logger()
for n in range(70_000):
    log.info("flood", n=n)
print("went on", flush=True)
sys.stdin.read()
"""


def test_a_reader_that_takes_nothing_holds_up_nobody_and_fills_no_memory() -> None:
    flooding = subprocess.Popen(
        [sys.executable, "-c", FLOODS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert flooding.stdout
    assert flooding.stdout.readline() == "went on\n"
    said = [json.loads(line) for line in flooding.communicate("")[1].splitlines()]
    dropped = sum(line["lines"] for line in said if line["event"] == "lines_dropped")
    kept = [line["n"] for line in said if line["event"] == "flood"]
    assert dropped > 0
    assert kept == list(range(len(kept)))
    assert len(kept) + dropped == 70_000


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("full", [True, False])
def test_a_log_that_cannot_be_written_is_nothing_to_fail_for(form: str, full: bool, tmp_path: Path) -> None:
    """A disk may be full, and who reads may have gone: a request that was answered 500 for that would be repeated."""
    log = Path("/dev/full") if full else tmp_path / "log"
    with log.open("w") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", SPEAKS, form],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=False,
        )
    assert done.stdout == "went on\n"
    if not full:
        assert log.read_text().count("lost") == 2
