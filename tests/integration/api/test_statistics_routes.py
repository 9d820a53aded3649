"""Statistics and the system's state over HTTP."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.app import create_app
from config.queues import WORKERS
from config.settings import read_settings
from config.wiring import Wiring
from notifier.notifications import holds
from notifier.observability import heartbeats
from notifier.providers import breakers
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.security import api_keys
from notifier.statistics.rollups import roll_up
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.queues import DELIVERY, FAN_OUT
from notifier.vocabulary.states import Channel
from tests.support.deliveries import Deliveries, minutes_ago

STATS = "/api/v1/stats"


class _Reader:
    """A caller with a key that may read."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self._client = client
        self._authorization = {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **headers: str) -> Any:
        return self._client.get(path, headers={**self._authorization, **headers})

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.get_json()


@pytest.fixture
def reader(database_url: str, engine: Engine) -> Iterator[_Reader]:
    wires = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    yield _Reader(create_app(wires).test_client(), api_keys.create(engine, "reader", ["read"]))
    wires.engine.dispose()


@pytest.fixture
def counted(engine: Engine) -> datetime:
    """A minute with a few rows, which was counted; its beginning."""
    data, minute = Deliveries(engine), minutes_ago(5)
    for columns in ({}, {"channel": "sms", "queue": "sms"}, {"source": "=HYPERLINK(1)"}):
        data.sent(minute, **columns)
    list(roll_up(engine))
    return minute


def test_the_last_hour_by_channel_is_what_comes_without_parameters(reader: _Reader, counted: datetime) -> None:
    answer = reader.json(STATS)
    assert {"by": "channel", "step": "total"}.items() <= answer.items()
    since, until = datetime.fromisoformat(answer["from"]), datetime.fromisoformat(answer["to"])
    assert until - since in {timedelta(minutes=60), timedelta(minutes=61)}
    assert [(each["name"], each["sent"], each["channel"]) for each in answer["items"]] == [
        ("email", 2, "email"),
        ("sms", 1, "sms"),
    ]
    assert answer["items"][0]["success_rate"] == 1
    assert 80 < answer["items"][0]["wait"]["p50_ms"] < 130
    assert datetime.fromisoformat(answer["complete_until"]) > counted


def test_each_dimension_and_step_can_be_asked_for(reader: _Reader, counted: datetime) -> None:
    for by, name in (("provider", "smtp"), ("event_type", "order.paid"), ("source", "shop"), ("queue", "sms")):
        for step in ("minute", "hour", "total"):
            items = reader.json(f"{STATS}?by={by}&step={step}&from={counted.isoformat().replace('+', '%2B')}")["items"]
            assert name in {each["name"] for each in items}, (by, step)
    only = reader.json(f"{STATS}?by=queue&name=sms")["items"]
    assert [(each["channel"], each["name"], each["sent"]) for each in only] == [("sms", "sms", 1)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("by=user", "by"),
        ("step=day", "step"),
        ("from=yesterday", "from"),
        ("to=2026-01-01T00:00:00", "to"),
        ("from=2999-01-01T00:00:00Z", "from"),
        ("from=2001-01-01T00:00:00Z", "from"),
        ("step=minute&from=2026-01-01T00:00:00Z", "from"),
        ("to=9999-12-31T23:59:59Z", "to"),
        ("to=0001-01-01T00:00:00Z", "to"),
        ("from=9999-12-31T23:59:59Z", "from"),
        ("from=0001-01-01T00:00:00Z&step=hour", "from"),
        ("format=xml", "format"),
        ("since=2026-01-01T00:00:00Z", "since"),
        ("name=", "name"),
    ],
)
def test_what_has_no_figures_is_refused(reader: _Reader, query: str, field: str) -> None:
    answer = reader.get(f"{STATS}?{query}")
    assert (answer.status_code, set(answer.get_json()["errors"])) == (422, {field})


def test_items_come_as_csv_that_no_spreadsheet_takes_for_formulas(reader: _Reader, counted: datetime) -> None:
    by_source = f"{STATS}?by=source"
    answer = reader.get(f"{by_source}&format=csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["name"] for row in rows] == ["'=HYPERLINK(1)", "shop"]
    [item] = [each for each in reader.json(by_source)["items"] if each["name"] == "shop"]
    flat = {f"{part}_{name}": value for part in ("call", "wait") for name, value in item[part].items()}
    wanted = {name: value for name, value in item.items() if name not in {"call", "wait"}} | flat
    assert rows[1] == {name: "" if value is None else str(value) for name, value in wanted.items()}
    assert reader.get(by_source, Accept="text/csv").text == answer.text
    assert reader.get(by_source, Accept="text/html, */*;q=0.1").is_json
    assert reader.get(f"{by_source}&format=json", Accept="text/csv").is_json
    assert counted.isoformat()


def state_of(reader: _Reader, part: str, name: str) -> dict[str, Any]:
    [found] = [each for each in reader.json("/api/v1/state")[part] if each["name"] == name]
    document: dict[str, Any] = found
    return document


def test_the_state_of_a_system_at_rest(reader: _Reader) -> None:
    state = reader.json("/api/v1/state")
    assert [each["name"] for each in state["queues"]] == [FAN_OUT, *DELIVERY]
    assert all(
        each["depth"] == 0 and each["oldest_due_seconds"] is None and not each["workers"] for each in state["queues"]
    )
    parts = ("providers", "endpoints", "holds", "processes")
    assert [state[part] for part in parts] == [[], [], [], []]
    assert state["more_endpoints"] is False


def test_a_queue_says_what_is_due_and_who_serves_it(reader: _Reader, engine: Engine) -> None:
    data, now = Deliveries(engine), datetime.now(UTC)
    due = {"status": "scheduled", "due_at": now - timedelta(seconds=90)}
    data.notification(now, **due)
    data.notification(now, status="queued", due_at=now + timedelta(seconds=30))
    data.notification(now, status="sending", due_at=now + timedelta(seconds=30))
    data.notification(now, status="retrying", due_at=now + timedelta(seconds=30))
    data.notification(now, status="scheduled", due_at=now + timedelta(days=30))
    data.sent(minutes_ago(2))
    for name, queues in WORKERS.items():
        heartbeats.sign(engine, f"{name}@here", heartbeats.WORKER, queues, [("email", "smtp")])
    heartbeats.sign(engine, heartbeats.CLOCK, heartbeats.CLOCK)
    list(roll_up(engine))
    email = state_of(reader, "queues", "email")
    assert (email["depth"], email["more"], email["channel"], email["held"]) == (3, False, "email", False)
    assert 90 <= email["oldest_due_seconds"] < 150
    assert email["workers"] == ["fresh@here"]
    assert email["attempts_per_minute"] == 0.2
    assert state_of(reader, "queues", "sms.retry")["workers"] == ["retry@here"]
    assert state_of(reader, "queues", FAN_OUT)["attempts_per_minute"] is None
    processes = {each["name"]: each for each in reader.json("/api/v1/state")["processes"]}
    assert set(processes) == {"fresh@here", "retry@here", "clock@here", "clock"}
    assert (processes["clock"]["kind"], processes["clock@here"]["queues"]) == ("clock", ["clock"])
    assert state_of(reader, "providers", "smtp")["state"] == "closed"


def test_events_that_wait_for_their_fan_out_are_a_queue(reader: _Reader, engine: Engine) -> None:
    now = datetime.now(UTC)
    event = {"event_type": "x", "source": "s", "status": "accepted", "payload": "{}", "critical": False}
    event |= {"priority": "normal", "created_at": now, "due_at": now - timedelta(seconds=5)}
    Deliveries(engine).insert("events", id=new_id(), **event)
    found = state_of(reader, "queues", FAN_OUT)
    assert (found["depth"], found["channel"]) == (1, None)
    assert found["oldest_due_seconds"] >= 5


def test_holds_are_shown_with_the_queues_that_they_pause(reader: _Reader, engine: Engine) -> None:
    holds.hold(engine, "sms", "ops")
    held = {each["name"] for each in reader.json("/api/v1/state")["queues"] if each["held"]}
    assert held == {"sms", "sms.high", "sms.low", "sms.retry"}
    assert [each["target"] for each in reader.json("/api/v1/state")["holds"]] == ["sms"]
    holds.hold(engine, "all", "ops")
    assert sum(each["held"] for each in reader.json("/api/v1/state")["queues"]) == len(DELIVERY)


def test_a_provider_with_trouble_says_which_without_the_vendors_words(reader: _Reader, engine: Engine) -> None:
    tally = breakers.ProviderTally("smtp", breakers.Circuit())
    for _ in range(breakers.OPENS_AT):
        error, now = "smtp 421: ada@example.com is busy", datetime.now(UTC)
        failed = Result(new_id(), Outcome.UNSENT, "smtp", now, 1.0, fault=Fault.PROVIDER, error=error)
        tally.add(failed, probing=False)
    breakers.remember(engine, Channel.EMAIL, [note for note in [tally.take()] if note])
    with engine.begin() as connection:
        connection.execute(text("UPDATE providers SET line_until = now() + interval '9 s', next_slot = now()"))
    found = state_of(reader, "providers", "smtp")
    assert (found["state"], found["failures"], found["error"], found["in_use"]) == ("open", 5, "smtp 421", False)
    assert found["open_until"]
    assert found["line_until"] > found["next_slot"]


def test_endpoints_that_fail_or_are_slow_are_listed_the_open_ones_first(reader: _Reader, engine: Engine) -> None:
    with engine.begin() as connection:
        for failures, columns in (
            (0, "slow_until) VALUES (:id, :failures, now() + interval '1 min')"),
            (7, "failing_since, open_until) VALUES (:id, :failures, now(), now() + interval '1 min')"),
            (0, "slow_until) VALUES (:id, :failures, now() - interval '1 min')"),
        ):
            insert = f"INSERT INTO endpoints (id, failures, {columns}"
            connection.execute(text(insert), {"id": new_id(), "failures": failures})
    state = reader.json("/api/v1/state")
    assert [(each["state"], each["failures"]) for each in state["endpoints"]] == [("open", 7), ("closed", 0)]
    assert {each["is_subscription"] for each in state["endpoints"]} == {False}
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO endpoints (id, failures, failing_since) SELECT gen_random_uuid(), 1, now()"
                " FROM generate_series(1, 100)"
            )
        )
    state = reader.json("/api/v1/state")
    assert (len(state["endpoints"]), state["more_endpoints"]) == (100, True)


def test_a_key_that_may_not_read_sees_neither(database_url: str, engine: Engine) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    client = create_app(wires).test_client()
    token = api_keys.create(engine, "sender", ["send"])
    for path in (STATS, "/api/v1/state"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 403
    wires.engine.dispose()
