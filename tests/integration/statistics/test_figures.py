"""Figures of spans of time: hours and minutes added up are what was counted, once each."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from notifier.statistics import figures
from notifier.statistics.figures import Answer, Question, Step
from notifier.statistics.rollups import roll_up
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.statistics import Dimension
from tests.support.deliveries import Deliveries, minutes_ago

NOW = datetime.now(UTC)
THIS_HOUR = NOW.replace(minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def data(engine: Engine) -> Deliveries:
    return Deliveries(engine)


def ask(data: Deliveries, since: datetime, until: datetime, step: Step = Step.TOTAL, **more: Any) -> Answer:
    more.setdefault("by", Dimension.CHANNEL)
    return figures.ask(data.engine, Question(step=step, since=since, until=until, **more))


def last_hour(data: Deliveries, step: Step = Step.TOTAL, **more: Any) -> Answer:
    now = datetime.now(UTC)
    return ask(data, now - HOUR, now, step, **more)


def put(data: Deliveries, table: str, moment: datetime, name: str = "email", **columns: Any) -> None:
    base = {"dimension": "channel", "channel": name, "accepted": 0, "sent": 1, "rejected": 0, "unsent": 0}
    base |= {"ambiguous": 0, "retries": 0, "delivered": 0, "failed": 0, "call_buckets": [1], "wait_buckets": []}
    row = {**base, "moment": moment, "name": name, **columns}
    names, values = ", ".join(row), ", ".join(f":{each}" for each in row)
    with data.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


def progress(data: Deliveries, **until: datetime) -> None:
    with data.engine.begin() as connection:
        for name, moment in until.items():
            connection.execute(
                text("INSERT INTO stats_progress VALUES (:name, :until)"), {"name": name, "until": moment}
            )


@pytest.fixture
def five_hours(data: Deliveries) -> Deliveries:
    """A row for each minute of the last five hours, and for each hour that is over."""
    for number in range(5):
        put(data, "stats_hours", THIS_HOUR - (number + 1) * HOUR, sent=60, call_buckets=[60])
    with data.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO stats_minutes SELECT 'channel', moment, 'email', 'email', 0, 1, 0, 0, 0, 0, 0, 0, '{1}',"
                " '{0,0,1}' FROM generate_series(CAST(:since AS timestamptz), :until, interval '1 minute') moment"
            ),
            {"since": THIS_HOUR - 5 * HOUR, "until": THIS_HOUR + 5 * MINUTE},
        )
    progress(data, fresh=THIS_HOUR + 6 * MINUTE, settled=THIS_HOUR + 3 * MINUTE)
    return data


@pytest.mark.parametrize(
    ("since", "until"),
    [(-300, 6), (-60, 0), (-61, 1), (-90, -30), (-59, -58), (-20, 6), (0, 6), (-299, -1), (-240, -180)],
)
def test_each_minute_is_in_a_total_once(five_hours: Deliveries, since: int, until: int) -> None:
    [item] = ask(five_hours, THIS_HOUR + since * MINUTE, THIS_HOUR + until * MINUTE).items
    assert item["sent"] == until - since
    assert item["start"] == THIS_HOUR + since * MINUTE


def test_whole_hours_are_read_as_such(five_hours: Deliveries) -> None:
    with five_hours.engine.begin() as connection:
        connection.execute(text("UPDATE stats_hours SET sent = 1000 WHERE moment = :hour"), {"hour": THIS_HOUR - HOUR})
    assert ask(five_hours, THIS_HOUR - 61 * MINUTE, THIS_HOUR).items[0]["sent"] == 1001
    assert ask(five_hours, THIS_HOUR - 59 * MINUTE, THIS_HOUR).items[0]["sent"] == 59


def test_hours_come_one_by_one_with_the_current_one_from_its_minutes(five_hours: Deliveries) -> None:
    answer = ask(five_hours, THIS_HOUR - 90 * MINUTE, THIS_HOUR + 4 * MINUTE, Step.HOUR)
    assert (answer.since, answer.until) == (THIS_HOUR - 2 * HOUR, THIS_HOUR + HOUR)
    found = [(item["start"], item["sent"]) for item in answer.items]
    assert found == [(THIS_HOUR - 2 * HOUR, 60), (THIS_HOUR - HOUR, 60), (THIS_HOUR, 6)]


def test_minutes_come_one_by_one(five_hours: Deliveries) -> None:
    answer = ask(five_hours, THIS_HOUR - 1.5 * MINUTE, THIS_HOUR + 0.5 * MINUTE, Step.MINUTE)
    assert [item["start"] for item in answer.items] == [THIS_HOUR + n * MINUTE for n in (-2, -1, 0)]
    assert answer.complete_until == THIS_HOUR + 3 * MINUTE


def test_an_item_says_how_it_went_and_how_long_it_took(data: Deliveries) -> None:
    counts = {"accepted": 9, "sent": 6, "rejected": 1, "unsent": 2, "ambiguous": 3, "retries": 4, "delivered": 5}
    put(data, "stats_minutes", THIS_HOUR - MINUTE, **counts, failed=7, call_buckets=[0, 0, 0, 0, 0, 90, 10])
    [item] = ask(data, THIS_HOUR - HOUR, THIS_HOUR).items
    assert {name: item[name] for name in counts} == counts
    assert (item["failed"], item["attempts"], item["success_rate"]) == (7, 12, 0.5)
    assert item["wait"] == {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    assert 4 < item["call"]["p50_ms"] < 5.657 < item["call"]["p95_ms"] < item["call"]["p99_ms"] < 8


def test_nothing_tried_has_no_rate_of_success(data: Deliveries) -> None:
    put(data, "stats_minutes", minutes_ago(1), sent=0, accepted=2, name="sms")
    assert last_hour(data).items[0]["success_rate"] is None


def test_histograms_of_different_lengths_are_added_up(data: Deliveries) -> None:
    put(data, "stats_minutes", THIS_HOUR - 2 * MINUTE, call_buckets=[0, 1])
    put(data, "stats_minutes", THIS_HOUR - MINUTE, call_buckets=[0, 1, 0, 0, 0, 0, 0, 0, 1, 1])
    [item] = ask(data, THIS_HOUR - HOUR, THIS_HOUR).items
    assert item["call"]["p50_ms"] == 1.41
    assert item["call"]["p99_ms"] > 16


def test_one_name_can_be_asked_for(data: Deliveries) -> None:
    for name in ("email", "sms"):
        put(data, "stats_minutes", minutes_ago(1), name=name)
    for step in (Step.MINUTE, Step.TOTAL):
        assert [item["name"] for item in last_hour(data, step, name="sms").items] == ["sms"]


def test_nothing_was_counted_yet(data: Deliveries) -> None:
    answer = last_hour(data)
    assert (answer.items, answer.complete_until) == ([], None)


@pytest.mark.parametrize(
    ("since", "until", "step", "field"),
    [
        (NOW, NOW, Step.TOTAL, "from"),
        (NOW + HOUR, NOW, Step.TOTAL, "from"),
        (NOW - timedelta(days=401), NOW, Step.HOUR, "from"),
        (NOW - timedelta(hours=49), NOW, Step.MINUTE, "from"),
    ],
)
def test_spans_that_have_no_figures_are_refused(
    data: Deliveries, since: datetime, until: datetime, step: Step, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        ask(data, since, until, step)
    assert set(refused.value.errors) == {field}


def test_a_long_span_is_read_in_whole_hours(data: Deliveries) -> None:
    since = THIS_HOUR - timedelta(days=100)
    put(data, "stats_hours", since)
    progress(data, fresh=THIS_HOUR)
    answer = ask(data, since + 10 * MINUTE, THIS_HOUR)
    assert (answer.since, answer.items[0]["sent"]) == (since, 1)


def test_too_many_items_are_refused(data: Deliveries) -> None:
    insert = text(
        "INSERT INTO stats_minutes SELECT 'event_type', :since - n / 10 * interval '1 minute', '', 'type ' || n % 10,"
        " 1, 1, 0, 0, 0, 0, 0, 0, '{}', '{}' FROM generate_series(0, 10000) AS n"
    )
    until = minutes_ago(0)
    with data.engine.begin() as connection:
        connection.execute(insert, {"since": until - MINUTE})
    since = until - timedelta(hours=30)
    with pytest.raises(Invalid) as refused:
        ask(data, since, until, Step.MINUTE, by=Dimension.EVENT_TYPE)
    assert set(refused.value.errors) == {"step"}
    assert len(ask(data, since, until - MINUTE, Step.MINUTE, by=Dimension.EVENT_TYPE).items) == 9_991


def test_queues_have_a_rate_of_the_last_minutes(data: Deliveries) -> None:
    assert figures.attempts_per_minute(data.engine) is None
    for number in range(1, 8):
        data.sent(minutes_ago(number))
    data.sent(minutes_ago(1), queue="sms.low", channel="sms")
    list(roll_up(data.engine))
    rates = figures.attempts_per_minute(data.engine)
    # A minute may have ended since.
    assert rates in ({"email": 1.0, "sms.low": 0.2}, {"email": 0.8, "sms.low": 0.2})
    with data.engine.begin() as connection:
        connection.execute(text("UPDATE stats_progress SET until = until - interval '6 minutes'"))
    assert figures.attempts_per_minute(data.engine) is None
