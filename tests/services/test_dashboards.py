"""Every query of every dashboard is asked of a system that does something: none may err, and none may be empty."""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import yaml
from sqlalchemy import Engine, make_url, text

from deploy.embedded import EmbeddedPostgres
from deploy.ports import free_port
from notifier.notifications import delivery_receipts
from notifier.providers.receipts import Kind, Receipt, Report
from notifier.storage.dashboard_role import set_up
from tests.conftest import engine_of
from tests.services.prometheus import Prometheus
from tests.support.dashboards import DASHBOARDS
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, ahead, made, made_of, reaches, wait_for

TOKEN = "what-prometheus-brings"
PASSWORD = "what-grafana-brings"
ROLE = "reader_of_dashboards"
#: Stands in each address, each user's id and each payload, and must be seen nowhere.
SECRET = "whom-it-concerns"

#: dashboard: panel → target.
TARGETS: dict[str, dict[str, Any]] = {
    f"{name}: {panel['title']} {target['refId']}": target
    for name, each in DASHBOARDS.items()
    for panel in each["panels"]
    for target in panel["targets"]
}
OF_PROMETHEUS = {name: target["expr"] for name, target in TARGETS.items() if "expr" in target}
NUMBERS = {
    f"{name}: {panel['title']} A"
    for name, each in DASHBOARDS.items()
    for panel in each["panels"]
    if panel["type"] == "stat"
}
OF_POSTGRES = {name: target["rawSql"] for name, target in TARGETS.items() if "rawSql" in target}


class Watched(NamedTuple):
    """A system that has done something of everything, and those who look at it."""

    system: Running
    prometheus: Prometheus
    reader: Engine
    #: The notification whose story has everything in it, and one that waits.
    bounced: str
    waiting: str
    #: The panels of numbers that had none before anything was done.
    blank: set[str]


def asked(expression: str, **variables: str) -> str:
    """A query as Grafana would send it: variables replaced, all of them chosen where they are not named."""
    values = {"channel": ".*", "provider": ".*", **variables, "__rate_interval": "5m", "__range": "5m"}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


def sql_of(sql: str, typed: str) -> str:
    """The same for Postgres: `:sqlstring` is a literal, its quotes doubled."""
    return sql.replace("${notification_id:sqlstring}", "'" + typed.replace("'", "''") + "'")


def configuration(ports: dict[str, int]) -> dict[str, Any]:
    """deploy/prometheus/prometheus.yml, for processes that are on this machine. `ports`: by the container's name."""
    folder = ROOT / "deploy" / "prometheus"
    config: dict[str, Any] = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s")
    config["rule_files"] = [str(folder / name) for name in config["rule_files"]]
    jobs = []
    for job in config["scrape_configs"]:
        if "dns_sd_configs" in job:
            [name] = job.pop("dns_sd_configs")[0]["names"]
            target = f"127.0.0.1:{ports[name]}"
            jobs.append({**job, "authorization": {"credentials": TOKEN}, "static_configs": [{"targets": [target]}]})
    return {**config, "scrape_configs": jobs}


def missing(prometheus: Prometheus) -> dict[str, str]:
    """The queries that give no number now: name → PromQL."""
    found = {}
    for name, expression in OF_PROMETHEUS.items():
        query = asked(expression)
        if not any(not math.isnan(sample.value) for sample in prometheus.query(query)):
            found[name] = query
    return found


@pytest.fixture(scope="module")
def watched(
    postgres: EmbeddedPostgres,
    new_system: Callable[..., Running],
    smtp: SmtpReceiver,
    http: HttpReceiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    nobody = f"twilio://AC{'0' * 32}:secret@127.0.0.1:{free_port()}?from=%2B15550100&tls=none"
    system = new_system(
        NOTIFIER_METRICS_TOKEN=TOKEN,
        NOTIFIER_EMAIL=f"{smtp.dsn}?tls=none",
        NOTIFIER_SMS=nobody,
        NOTIFIER_SMS_RETRY_BACKOFF="1",
        NOTIFIER_CHAT_RETRY_BACKOFF="1",
        NOTIFIER_CHAT_MAX_RETRIES="1",
    )
    exporter = free_port()
    system.add("exporter", "exporter", "--port", str(exporter))
    ports = {f"worker-{name}": port for name, port in system.metrics_ports.items()}
    config = configuration({**ports, "api": system.port, "exporter": exporter})
    url = make_url(system.environment["DATABASE_URL"]).set(username=ROLE, password=PASSWORD)
    admin = engine_of(postgres.url(str(url.database)))
    set_up(admin, PASSWORD, ROLE)
    admin.dispose()
    reader = engine_of(url.render_as_string(hide_password=False))
    with system, Prometheus(tmp_path_factory.mktemp("prometheus"), config) as prometheus:
        wait_for(lambda: set(prometheus.targets().values()) == {"up"}, 40, "everybody to be scraped")
        wait_for(lambda: prometheus.query("notifier_postgres_up"), 20, "a scrape of the exporter")
        blank = NUMBERS & missing(prometheus).keys()
        _prepare(system, http)
        # Twice, with a scrape between: what Prometheus has one sample of has no rate.
        bounced, _ = _traffic(system, http, "first")
        wait_for(lambda: prometheus.query('notifier_notifications_total{reason="bounced"} > 0'), 20, "a scrape")
        bounced, waiting = _traffic(system, http, "second")
        yield Watched(system, prometheus, reader, bounced, waiting, blank)
    reader.dispose()


def _prepare(system: Running, http: HttpReceiver) -> None:
    for name in ("one", "two"):
        body = {"url": http.url(f"/{SECRET}-{name}"), "event_types": ["test.fan"]}
        assert system.post("/api/v1/subscriptions", body).status_code == 201
    now = datetime.now(UTC)
    night = {
        "channels": ["push"],
        "start": f"{now - timedelta(hours=1):%H:%M}",
        "end": f"{now + timedelta(hours=1):%H:%M}",
    }
    user = f"{system.url}/api/v1/users/{SECRET}"
    assert system.http.put(user, json={"push_tokens": [f"{SECRET}-token"]}, timeout=10).ok
    assert system.http.put(f"{user}/preferences", json={"quiet_hours": [night]}, timeout=10).ok


def _traffic(system: Running, http: HttpReceiver, name: str) -> tuple[str, str]:
    """Something of everything; returns the ids of a notification that bounced and of one that waits."""
    payload = {"note": SECRET}
    http.answer(f"/{SECRET}-flaky-{name}", 503, 204)
    http.answer(f"/{SECRET}-gone-{name}", 410)
    flaky = made(system, channel="webhook", recipient=http.url(f"/{SECRET}-flaky-{name}"))
    dead = made(system, channel="webhook", recipient=http.url(f"/{SECRET}-gone-{name}"))
    for number in range(6):
        made(system, channel="sms", recipient=f"+49151123456{number:02}")
    made(system, channel="email", recipient=f"{SECRET}@example.com", subject=SECRET)
    for outcome in ("delivered", "rejected", "unavailable", "ambiguous"):
        made(system, channel="chat", recipient=f"simulator://{outcome}+{SECRET}")
    late = made(system, channel="push", user_id=SECRET)
    waiting = made(system, channel="push", recipient=f"{SECRET}-token", send_at=ahead(hours=1))
    made(system, channel="chat", recipient=f"simulator://sent+{SECRET}", expires_at=ahead(seconds=-1))
    made(system, channel="chat", user_id=f"{SECRET}-unknown")
    event = {"event_type": "test.repeated", "idempotency_key": f"{SECRET}-{name}", "payload": payload}
    assert not system.post("/api/v1/events", event).json()["duplicate"]
    assert system.post("/api/v1/events", event).json()["duplicate"]
    assert system.post("/api/v1/events", {"event_type": "?"}).status_code == 422
    assert system.post("/api/v1/notifications", {"channel": "sms"}).status_code == 422
    made_of(system, "test.fan", payload)
    addressed = {"channel": "chat", "recipient": f"simulator://bounce+{SECRET}", "payload": payload}
    [bounced] = system.notifications(system.event(event_type="test.bounce", **addressed))
    reaches(system, flaky, "delivered")
    reaches(system, dead, "failed")
    reaches(system, bounced["id"], "failed")
    wait_for(lambda: system.notification(late)["reason"] == "quiet_hours")
    return bounced["id"], waiting


def test_every_query_of_prometheus_gives_numbers(watched: Watched) -> None:
    with suppress(AssertionError):
        wait_for(lambda: not missing(watched.prometheus), 60)
    assert missing(watched.prometheus) == {}


def test_a_system_that_does_nothing_shows_zeros(watched: Watched) -> None:
    """All but what has been measured nowhere yet."""
    assert watched.blank <= {"overview: Latency, 95 of 100 A", "queues: Oldest canary A"}


def test_alerts_that_fire_are_counted(watched: Watched) -> None:
    prometheus = watched.prometheus
    wait_for(lambda: value(watched, "overview: Alerts A") == len(prometheus.alerts()), 20, "the alerts")


def value(watched: Watched, name: str, **labels: str) -> float:
    """Return what a panel shows, added up over the series that have these labels."""
    samples = watched.prometheus.query(asked(OF_PROMETHEUS[name]))
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("overview: Accepted A", 0.01),
        ("overview: Sent A", 0.01),
        ("overview: Attempts that failed A", 0.2),
        ("overview: Dead letters A", 7),
        ("overview: Breakers open A", 1),
        ("queues: Workers alive, by lane A", 3),
        ("dead-letters: Standing A", 7),
        ("dead-letters: Written lately A", 3),
        ("dead-letters: Share of what ended A", 0.1),
    ],
)
def test_numbers_are_what_was_provoked(watched: Watched, name: str, least: float) -> None:
    assert wait_for(lambda: value(watched, name) >= least or None, 30, name)


def test_an_open_breaker_is_seen(watched: Watched) -> None:
    wait_for(lambda: value(watched, "delivery: Breakers A", provider="twilio") >= 1, 30)
    assert value(watched, "delivery: Breakers A", provider="outbox") == 0


@pytest.mark.parametrize("name", [name for name in OF_PROMETHEUS if name.startswith("delivery")])
def test_a_choice_of_channels_narrows_it(watched: Watched, name: str) -> None:
    samples = watched.prometheus.query(asked(OF_PROMETHEUS[name], channel="(webhook|chat)"))
    assert {sample.labels.get("channel", "chat") for sample in samples} <= {"webhook", "chat"}
    assert watched.prometheus.query(asked(OF_PROMETHEUS[name], channel="pigeon")) == []


def test_variables_have_something_to_choose_from(watched: Watched) -> None:
    variables = {
        v["name"]: v for each in DASHBOARDS.values() for v in each["templating"]["list"] if v["type"] == "query"
    }
    found = {}
    for name, variable in variables.items():
        assert variable["definition"] == variable["query"]["query"]
        query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert query
        found[name] = watched.prometheus.get(f"label/{query[2]}/values", **{"match[]": asked(query[1])})
    assert set(found["channel"]) >= {"email", "sms", "push", "chat", "webhook"}
    assert set(found["provider"]) >= {"twilio", "smtp", "simulator", "webhook"}


# --- Postgres


def rows(watched: Watched, name: str, typed: str = "") -> list[dict[str, Any]]:
    """Return what the reader gets for a panel."""
    with watched.reader.connect() as connection:
        result = connection.exec_driver_sql(sql_of(OF_POSTGRES[name], typed).replace("%", "%%"))
        return [dict(row) for row in result.mappings()]


@pytest.mark.parametrize("name", OF_POSTGRES)
def test_every_query_of_postgres_gives_rows(watched: Watched, name: str) -> None:
    found = rows(watched, name, watched.bounced)
    assert found
    assert SECRET not in json.dumps(found, default=str)


def test_the_story_is_told_in_order(watched: Watched) -> None:
    told = [row["what"] for row in rows(watched, "story: Its story, in order A", watched.bounced)]
    assert told == [
        "the event was accepted",
        "the notification was made",
        "attempt 1 by simulator: accepted",
        "it became a dead letter: bounced",
    ]
    [state] = rows(watched, "story: The notification A", watched.bounced)
    assert (state["status"], state["reason"], state["waits for"]) == ("failed", "bounced", "nothing")


def test_the_story_says_what_is_waited_for(watched: Watched) -> None:
    [state] = rows(watched, "story: The notification A", f"  {watched.waiting.upper()} ")
    assert (state["status"], state["waits for"]) == ("scheduled", "its time")
    assert state["until"] > datetime.now(UTC) + timedelta(minutes=50)
    assert rows(watched, "story: Its story, in order A", watched.waiting)[-1]["what"] == "ahead: it goes"
    early = Receipt("fcm", UUID(watched.waiting), Kind.DELIVERED, datetime.now(UTC))
    delivery_receipts.take(watched.system.engine, Report((early,)))
    [receipt] = rows(watched, "story: Receipts A", watched.waiting)
    assert (receipt["receipt"], receipt["provider"], receipt["applied"]) == ("delivered", "fcm", "waits")


@pytest.mark.parametrize("typed", ["", "42", "'; DROP TABLE events; --", "{0}", "00000000-0000-7000-8000-000000000000"])
def test_what_is_no_notification_finds_nothing(watched: Watched, typed: str) -> None:
    for name in OF_POSTGRES:
        if name.startswith("story"):
            assert rows(watched, name, typed) == []


def test_a_dead_letter_s_row_has_the_id_that_its_link_takes(watched: Watched) -> None:
    letters = rows(watched, "dead-letters: Standing, the newest 200 A")
    assert watched.bounced in {str(row["notification"]) for row in letters}
    with watched.system.engine.connect() as connection:
        assert len(letters) == connection.scalar(text("SELECT count(*) FROM dead_letters WHERE requeued_at IS NULL"))
