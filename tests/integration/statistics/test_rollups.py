"""Roll-ups of minutes and hours, against rows of our own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from notifier.statistics.minute_counts import MOST_NAMES
from notifier.statistics.rollups import PASSES, roll_up
from notifier.vocabulary.statistics import OTHERS
from tests.support.deliveries import Deliveries, minutes_ago, several
from tests.support.old_data import purge

#: What nearly all rows of these tests have none of.
NOTHING = dict.fromkeys(("rejected", "unsent", "ambiguous", "retries", "delivered", "failed"), 0)


@pytest.fixture
def data(engine: Engine) -> Deliveries:
    return Deliveries(engine)


def count(data: Deliveries) -> list[datetime]:
    return list(roll_up(data.engine))


def count_until(data: Deliveries, last: datetime) -> None:
    """Count up to a minute, which is the last."""
    for counted in roll_up(data.engine):
        if counted >= last:
            return


def sql(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def begin_again(data: Deliveries, since: datetime, *passes: str) -> None:
    """Have some passes, or all, count anew from a minute on."""
    for each in passes or [each.name for each in PASSES]:
        sql(data.engine, "INSERT INTO stats_progress (name, until) VALUES (:name, :until)"
            " ON CONFLICT (name) DO UPDATE SET until = :until", name=each, until=since)  # fmt: skip


def test_what_happened_is_counted_by_each_dimension(data: Deliveries) -> None:
    minute = minutes_ago(2)
    delivered = data.notification(minute, channel="webhook", queue="webhook.high", priority="high", status="delivered")
    data.attempt(delivered, minute, provider="webhook")
    retried = data.notification(minute, queue="email.retry", status="sent", event_type=None, source="billing")
    data.attempt(retried, minute, outcome="unsent", provider="first")
    data.attempt(retried, minute + timedelta(seconds=30), number=2, provider="second")
    dead = data.notification(minute, queue="email.retry", status="failed")
    data.attempt(dead, minute, outcome="ambiguous", provider="first")
    data.attempt(dead, minute + timedelta(seconds=9), number=2, outcome="rejected", provider="second")
    data.letter(minute + timedelta(seconds=10), dead, attempts=2)
    count(data)

    email = {**NOTHING, "accepted": 2, "sent": 1, "unsent": 1, "ambiguous": 1, "rejected": 1, "retries": 2, "failed": 1}
    webhook = {**NOTHING, "accepted": 1, "sent": 1, "delivered": 1}
    assert data.sums(dimension="channel", name="email") == email
    assert data.sums(dimension="channel", name="webhook") == webhook
    first = {**NOTHING, "accepted": 0, "sent": 0, "unsent": 1, "ambiguous": 1}
    assert data.sums(dimension="provider", channel="email", name="first") == first
    second = {**NOTHING, "accepted": 0, "sent": 1, "rejected": 1, "retries": 2, "failed": 1}
    assert data.sums(dimension="provider", channel="email", name="second") == second
    none = {**NOTHING, "accepted": 1, "sent": 1, "unsent": 1, "retries": 1}
    assert data.sums(dimension="event_type", name="") == none
    assert data.sums(dimension="source", name="billing") == none
    assert data.sums(dimension="event_type", name="order.paid")["accepted"] == 2
    assert data.sums(dimension="queue", name="webhook.high") == webhook
    # By now a row that failed has moved on from the queue of its first attempt.
    first_tries = {**NOTHING, "accepted": 2, "sent": 0, "unsent": 1, "ambiguous": 1}
    assert data.sums(dimension="queue", channel="email", name="email") == first_tries
    assert data.sums(dimension="queue", name="email.retry")["retries"] == 2
    assert {row["moment"] for row in data.rows()} == {minute}


def test_only_what_was_due_at_once_has_waited_for_us(data: Deliveries) -> None:
    minute = minutes_ago(2)
    at_once = data.notification(minute)
    data.attempt(at_once, minute + timedelta(seconds=1), duration_ms=50)
    later = minute + timedelta(days=1)
    for columns in ({"send_at": minute}, {"target_date": later}, {"deferred_at": minute}, {"follows": at_once}):
        data.attempt(data.notification(minute, **columns), minute + timedelta(seconds=1))
    data.attempt(at_once, minute, number=2)
    count(data)
    [row] = data.rows(dimension="channel")
    assert sum(row["call_buckets"]) == 6
    assert sum(row["wait_buckets"]) == 1
    assert len(row["wait_buckets"]) == 22, "1,050 ms lie between 1,024 and 1,448"


def test_each_row_is_in_one_minute(data: Deliveries) -> None:
    minute = minutes_ago(3)
    for moment in (minute, minute + timedelta(seconds=59.999), minute + timedelta(minutes=1)):
        row = data.notification(moment)
        data.attempt(row, moment)
        data.letter(moment, row)
    count(data)
    counts = [(row["accepted"], row["sent"], row["failed"]) for row in data.rows(dimension="channel")]
    assert counts == [(2, 2, 2), (1, 1, 1)]


def test_the_current_minute_is_left_alone(data: Deliveries) -> None:
    data.sent(datetime.now(UTC))
    assert count(data) == [] or data.rows(dimension="channel")[0]["moment"] < minutes_ago(0)
    assert data.rows(dimension="channel", moment=minutes_ago(0)) == []


def test_a_second_run_counts_nothing_twice(data: Deliveries) -> None:
    minute = minutes_ago(5)
    data.sent(minute)
    assert minute in count(data)
    before = data.rows()
    assert minute not in count(data)
    begin_again(data, minute)
    assert minute in count(data)
    assert data.rows() == before


def test_only_one_process_counts(data: Deliveries) -> None:
    data.sent(minutes_ago(5))
    counting = roll_up(data.engine)
    next(counting)
    with data.engine.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(5141980131)"))
        assert list(counting) == []
        assert count(data) == []
    assert len(count(data)) >= 4


def test_a_run_that_is_cut_off_is_continued(data: Deliveries) -> None:
    first, second = minutes_ago(6), minutes_ago(5)
    data.sent(first)
    data.sent(second)
    counting = roll_up(data.engine)
    assert next(counting) == first
    counting.close()
    assert [row["moment"] for row in data.rows(dimension="channel")] == [first]
    assert count(data)[0] == second


def test_a_minute_and_its_progress_are_one_transaction(data: Deliveries, owner_engine: Engine) -> None:
    minute = minutes_ago(5)
    data.sent(minute)
    begin_again(data, minute, "fresh")
    # It dies at its last statement, after it has replaced the rows.
    sql(owner_engine, "ALTER TABLE stats_progress ADD CONSTRAINT stop CHECK (name <> 'fresh') NOT VALID")
    with pytest.raises(Exception, match="stop"):
        count(data)
    assert data.rows() == []
    sql(owner_engine, "ALTER TABLE stats_progress DROP CONSTRAINT stop")
    assert count(data)[0] == minute


def test_late_rows_are_counted_by_a_later_pass(data: Deliveries) -> None:
    minute = minutes_ago(5)
    row = data.sent(minute)
    count(data)
    data.attempt(row, minute, number=2)
    sql(data.engine, "UPDATE notifications SET status = 'delivered' WHERE id = :id", id=row)
    count(data)
    assert data.sums(dimension="channel")["sent"] == 1
    begin_again(data, minute, "settled")
    count(data)
    assert data.sums(dimension="channel") == {**NOTHING, "accepted": 1, "sent": 2, "retries": 1, "delivered": 2}


def test_what_was_deleted_since_stays_counted(data: Deliveries) -> None:
    minute = minutes_ago(5)
    kept, _ = data.sent(minute), data.sent(minute)
    count(data)
    before = data.rows()
    sql(data.engine, "DELETE FROM attempts WHERE notification_id = :id", id=kept)
    begin_again(data, minute, "final")
    begin_again(data, minute, "late", "settled")
    count(data)
    assert data.rows() == before


def test_minutes_without_anything_have_no_rows(data: Deliveries) -> None:
    data.sent(minutes_ago(9))
    assert len(count(data)) > 9
    assert len(data.rows(dimension="channel")) == 1


def test_a_clock_that_was_away_for_days_goes_on_two_days_back(data: Deliveries) -> None:
    begin_again(data, datetime.now(UTC) - timedelta(days=9))
    first = next(roll_up(data.engine))
    age = datetime.now(UTC) - first
    assert timedelta(hours=47) < age <= timedelta(hours=48)


def test_the_first_run_begins_at_the_first_notification_of_the_last_hour(data: Deliveries) -> None:
    minute = minutes_ago(30)
    data.sent(minutes_ago(90))
    data.sent(minute)
    assert next(roll_up(data.engine)) == minute


def test_every_pass_begins_where_the_first_run_did(data: Deliveries) -> None:
    data.sent(minutes_ago(30))
    count(data)
    with data.engine.connect() as connection:
        rows = connection.execute(text("SELECT name, until FROM stats_progress"))
        found = {row.name: row.until for row in rows}
    assert set(found) == {each.name for each in PASSES}
    assert found["final"] == found["late"]
    assert timedelta(minutes=29) < datetime.now(UTC) - found["final"] < timedelta(minutes=32)
    assert found["settled"] < found["fresh"]
    begin_again(data, datetime.now(UTC) - timedelta(hours=25), "final")
    count(data)
    assert len(data.rows(dimension="channel")) == 1


def test_an_hour_is_made_of_its_minutes(data: Deliveries) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    for moment in (hour, hour + timedelta(minutes=59), hour + timedelta(minutes=59, seconds=59)):
        data.sent(moment)
    for moment in (hour - timedelta(seconds=1), hour + timedelta(hours=1)):
        data.sent(moment, channel="sms", queue="sms")
    begin_again(data, hour, "fresh")
    count_until(data, hour + timedelta(minutes=58))
    assert data.rows("stats_hours") == [], "it is not over"
    count_until(data, hour + timedelta(minutes=60))
    [row] = data.rows("stats_hours", dimension="channel", moment=hour)
    assert (row["name"], row["accepted"], row["sent"]) == ("email", 3, 3)
    assert (sum(row["call_buckets"]), sum(row["wait_buckets"])) == (3, 3)
    before = data.rows("stats_hours")
    begin_again(data, hour + timedelta(minutes=58), "fresh")
    count_until(data, hour + timedelta(minutes=60))
    assert data.rows("stats_hours") == before


def test_names_that_callers_choose_are_few(data: Deliveries) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    for number, moment in enumerate(several(MOST_NAMES + 5, hour)):
        data.sent(moment, event_type=f"type.{number:03}", source=f"source {number:03}")
    loud = [data.sent(hour, event_type="loud") for _ in range(3)]
    for moment in several(MOST_NAMES, hour + timedelta(minutes=1)):
        data.sent(moment, event_type=f"other.{moment:%S}")
    begin_again(data, hour, "fresh")
    count_until(data, hour + timedelta(minutes=59))
    rows = data.rows(dimension="event_type", moment=hour)
    assert len(rows) == MOST_NAMES + 1
    counts = {row["name"]: row["sent"] for row in rows}
    assert (counts["loud"], counts[OTHERS]) == (len(loud), 6)
    assert sum(counts.values()) == MOST_NAMES + 8
    assert data.sums(dimension="source", moment=hour, name=OTHERS)["sent"] == 6
    hours = {row["name"]: row["sent"] for row in data.rows("stats_hours", dimension="event_type")}
    assert len(hours) == MOST_NAMES + 1
    assert sum(hours.values()) == 2 * MOST_NAMES + 8
    assert hours["loud"] == len(loud)


def test_no_row_can_stop_the_counting(data: Deliveries) -> None:
    minute = minutes_ago(2)
    odd = data.notification(minute, channel=None, recipient=None, event_type="x" * 100_000, source="=" * 5_000)
    data.attempt(odd, minute, duration_ms=float("nan"), provider="y" * 5_000)
    sql(data.engine, "UPDATE notifications SET created_at = '-infinity' WHERE id = :id", id=odd)
    old = data.notification(minute)
    sql(data.engine, "UPDATE notifications SET created_at = '4000-01-01 00:00 BC' WHERE id = :id", id=old)
    data.attempt(old, minute, duration_ms=None)
    data.attempt(old, minute, number=2, duration_ms=-5, outcome="teleported")
    for started_at in ("infinity", "-infinity", None):
        sql(data.engine, "INSERT INTO attempts (id, notification_id, number, outcome, started_at) VALUES"
            " (gen_random_uuid(), :id, 1, 'accepted', CAST(:at AS timestamptz))", id=old, at=started_at)  # fmt: skip
    data.letter(minute, None, channel=None, event_type=None)
    count(data)
    assert data.sums(dimension="channel", name="")["sent"] == 1
    assert data.rows(dimension="channel", name="")[0]["wait_buckets"] == [], "nobody has waited since ever"
    assert data.sums(dimension="channel", name="email")["sent"] == 1
    assert {len(row["name"]) for row in data.rows(dimension="event_type", channel="")} == {0, 10, 255}


def test_a_minute_that_cannot_be_counted_is_left_out(data: Deliveries, owner_engine: Engine) -> None:
    broken, next_one = minutes_ago(6), minutes_ago(5)
    data.sent(broken, event_type="broken")
    data.sent(next_one)
    sql(owner_engine, "ALTER TABLE stats_minutes ADD CONSTRAINT stop CHECK (name <> 'broken')")
    try:
        count(data)
    finally:
        sql(owner_engine, "ALTER TABLE stats_minutes DROP CONSTRAINT stop")
    assert {row["moment"] for row in data.rows()} == {next_one}


def test_an_hour_whose_last_minute_cannot_be_counted_is_made_of_the_others(
    data: Deliveries, owner_engine: Engine
) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    data.sent(hour + timedelta(minutes=58))
    data.sent(hour + timedelta(minutes=59), event_type="broken")
    begin_again(data, hour + timedelta(minutes=58), "fresh")
    sql(owner_engine, "ALTER TABLE stats_minutes ADD CONSTRAINT stop CHECK (name <> 'broken')")
    try:
        count_until(data, hour + timedelta(minutes=60))
    finally:
        sql(owner_engine, "ALTER TABLE stats_minutes DROP CONSTRAINT stop")
    assert data.sums("stats_hours", dimension="channel")["sent"] == 1


def test_old_statistics_go(data: Deliveries) -> None:
    insert = """INSERT INTO {} SELECT 'channel', now() - CAST(:age AS interval), 'email', 'email', 1, 1, 0, 0, 0, 0, 0,
        0, '{{}}', '{{}}'"""
    for age in ("47 hours", "49 hours"):
        sql(data.engine, insert.format("stats_minutes"), age=age)
    for age in ("399 days", "401 days"):
        sql(data.engine, insert.format("stats_hours"), age=age)
    purge(data.engine)
    [minute], [hour] = data.rows("stats_minutes"), data.rows("stats_hours")
    assert datetime.now(UTC) - minute["moment"] < timedelta(hours=48)
    assert datetime.now(UTC) - hour["moment"] < timedelta(days=400)


def test_a_minute_is_found_by_its_index(data: Deliveries) -> None:
    data.sent(minutes_ago(2))
    with data.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(connection.scalars(text("EXPLAIN SELECT FROM attempts WHERE started_at > now()")))
        options = text("SELECT reloptions FROM pg_class WHERE relname LIKE 'attempts\\_%\\_started_at_idx'")
        found = list(connection.scalars(options))
    assert "_started_at_idx" in plan
    assert len(found) > 8
    assert all("autosummarize=on" in each for each in found), "also of days that are made by a function"
