"""Retention: what is old goes, what anything alive still needs stays, and nobody waits for that."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from notifier.events.fan_out import replay
from notifier.notifications.holds import free_released
from notifier.storage import compaction, retention
from notifier.storage.partitions import TABLES, make_day, partition_of
from notifier.storage.retention import PurgedElsewhere, Retention
from notifier.vocabulary.ids import derived_id, first_id_of, new_id
from tests.conftest import clean_environment
from tests.support.paths import ROOT
from tests.support.running import Running, wait_for

SPANS = Retention(timedelta(days=30), timedelta(days=90))
TODAY = datetime.now(UTC).date()
OLD = TODAY - timedelta(days=40)


def id_of(day: date, *parts: object, hour: float = 12) -> UUID:
    """An id of a day: other parts, another id."""
    moment = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=hour)
    return derived_id(int(moment.timestamp() * 1000), *parts, "test")


class Data:
    """Rows of any age, written straight into the tables."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def days(self, *days: date) -> None:
        with self.engine.begin() as connection:
            for day in days:
                for table in TABLES:
                    make_day(connection, table, day)

    def insert(self, table: str, **columns: Any) -> Any:
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        with self.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), columns)
        return columns.get("id")

    def event(self, event_id: UUID, **columns: Any) -> UUID:
        base = {"event_type": "x", "source": "s", "status": "processed", "payload": "{}", "critical": False}
        base |= {"priority": "normal", "created_at": datetime.now(UTC)}
        self.insert("events", id=event_id, **(base | columns))
        return event_id

    def notification(self, row_id: UUID, *, attempts: int = 1, **columns: Any) -> UUID:
        base = {"source": "s", "critical": False, "priority": "normal", "queue": "email", "status": "sent"}
        base |= {"created_at": datetime.now(UTC), "channel": "email", "recipient": "a@example.com"}
        self.insert("notifications", id=row_id, **(base | columns))
        for number in range(attempts):
            attempt = derived_id(row_id.int >> 80, row_id, number)
            self.insert("attempts", id=attempt, notification_id=row_id, number=number + 1, outcome="accepted")
        return row_id

    def update(self, table: str, row_id: UUID, **columns: Any) -> None:
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        with self.engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET {assignments} WHERE id = :id"), {"id": row_id, **columns})

    def live(self, row_id: UUID, **columns: Any) -> UUID:
        return self.notification(row_id, **({"status": "queued", "due_at": datetime.now(UTC)} | columns))

    def letter(self, day: date, **columns: Any) -> UUID:
        base = {"id": id_of(day, "letter"), "claims": 1, "reason": "x", "attempts": 1, "created_at": datetime.now(UTC)}
        row: UUID = self.insert("dead_letters", **(base | columns))
        return row

    def count(self, table: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    def ids(self, table: str) -> set[UUID]:
        with self.engine.connect() as connection:
            return set(connection.scalars(text(f"SELECT id FROM {table}")))

    def parts(self, day: date) -> set[str]:
        """The tables that have a partition of the day."""
        with self.engine.connect() as connection:
            there = set(connection.scalars(text("SELECT relname FROM pg_class")))
        return {table for table in TABLES if partition_of(table, day) in there}


@pytest.fixture
def data(engine: Engine) -> Data:
    return Data(engine)


@pytest.fixture
def small_days_are_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each test filled its days with a million rows."""
    monkeypatch.setattr(compaction, "_SMALLEST", 0)
    monkeypatch.setattr(compaction, "_TIMES", 0)


@pytest.fixture(params=["row by row", "anew"])
def both_ways(request: pytest.FixtureRequest) -> None:
    """A needed day loses what nobody needs by deleting, and by being made anew."""
    if request.param == "anew":
        request.getfixturevalue("small_days_are_compacted")


def purge(engine: Engine, spans: Retention = SPANS) -> list[retention.Step]:
    return list(retention.purge(engine, spans))


def test_a_day_that_nobody_needs_is_dropped_and_the_younger_ones_stay(data: Data) -> None:
    last, first = TODAY - timedelta(days=31), TODAY - timedelta(days=30)
    data.days(OLD, last, first)
    for day in (OLD, last, first):
        data.notification(id_of(day, "n"), event_id=data.event(id_of(day, "e")))
    dropped = {step.table for step in purge(data.engine) if step.rows is None}
    assert dropped == {partition_of(table, day) for table in TABLES for day in (OLD, last)}
    assert data.parts(first) == set(TABLES)
    assert {table: data.count(table) for table in TABLES} == {
        "events": 1,
        "notifications": 1,
        "attempts": 1,
        "attachments": 0,
    }
    assert not [step for step in purge(data.engine) if step.rows != 0]


@pytest.mark.usefixtures("both_ways")
def test_a_day_with_a_live_row_stays_but_its_finished_rows_go(data: Data) -> None:
    data.days(OLD)
    kept_event = data.event(id_of(OLD, "kept"))
    live = data.live(id_of(OLD, "live"), event_id=kept_event, attempts=2)
    for n in range(5):
        data.notification(id_of(OLD, n), event_id=data.event(id_of(OLD, "e", n)), attempts=n % 2)
    with data.engine.begin() as connection:  # more than a batch
        connection.execute(
            text(
                "INSERT INTO notifications (id, source, critical, priority, queue, status, created_at)"
                " SELECT id, 's', false, 'low', 'sms', 'skipped', now() FROM unnest(:ids) AS id"
            ),
            {"ids": [id_of(OLD, "more", n) for n in range(1500)]},
        )
    data.event(id_of(OLD, "lonely"))
    purge(data.engine)
    assert data.parts(OLD) == {"notifications", "attempts", "events"}
    assert data.ids("notifications") == {live}
    assert data.ids("events") == {kept_event}
    assert data.count("attempts") == 2
    with data.engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET status = 'cancelled', due_at = NULL"))
    purge(data.engine)
    assert data.parts(OLD) == set()


@pytest.mark.usefixtures("both_ways")
def test_an_event_that_waits_to_be_fanned_out_stays(data: Data) -> None:
    data.days(OLD)
    event = data.event(id_of(OLD, "e"), status="accepted", due_at=datetime.now(UTC))
    data.event(id_of(OLD, "other"))
    purge(data.engine)
    assert data.ids("events") == {event}
    assert data.parts(OLD) == {"events"}


@pytest.mark.usefixtures("both_ways")
def test_a_standing_dead_letter_keeps_its_row_and_its_event_for_its_own_time(data: Data) -> None:
    older = TODAY - timedelta(days=95)
    data.days(OLD, older)
    kept = []
    for day in (OLD, older):
        event = data.event(id_of(day, "e"))
        row = data.notification(id_of(day, "n"), event_id=event, status="failed")
        data.letter(day, notification_id=row, event_id=event)
        broken = data.event(id_of(day, "broken"), status="failed")
        data.insert(
            "dead_letters",
            id=id_of(day, "another"),
            event_id=broken,
            claims=0,
            reason="fan_out_failed",
            attempts=0,
            created_at=datetime.now(UTC),
        )
        data.notification(id_of(day, "other"), status="failed")
        data.letter(day, id=id_of(day, "requeued"), notification_id=id_of(day, "other"), requeued_at=datetime.now(UTC))
        kept.append(({row}, {event, broken}))
    purge(data.engine)
    [(rows, events), _] = kept
    assert (data.ids("notifications"), data.ids("events")) == (rows, events)
    assert data.parts(older) == set()
    assert data.ids("dead_letters") == {id_of(OLD, each) for each in ("letter", "another", "requeued")}


@pytest.mark.usefixtures("both_ways")
def test_what_a_replay_made_keeps_its_old_event(data: Data) -> None:
    data.days(OLD)
    event = data.event(id_of(OLD, "e"))
    data.event(id_of(OLD, "other"))
    data.notification(id_of(OLD, "n"), event_id=event)
    made = {data.live(new_id(), event_id=event), data.notification(new_id(), event_id=event)}
    purge(data.engine)
    assert data.parts(OLD) == {"events"}
    assert (data.ids("events"), data.ids("notifications")) == ({event}, made)


def test_a_replay_finds_out_that_its_event_was_purged(data: Data) -> None:
    with pytest.raises(Exception, match="outlived its retention"):
        replay(data.engine, {"id": id_of(OLD, "gone")}, None, None)  # type: ignore[arg-type]  # it gets no further


@pytest.mark.usefixtures("both_ways")
def test_what_a_live_row_looks_at_stays(data: Data) -> None:
    """Its siblings, when it fails; a reminder that takes its place."""
    data.days(OLD)
    sent, live, owing, beside = (id_of(OLD, each) for each in ("sent", "live", "owing", "beside"))
    later, earlier, other = (id_of(OLD, each) for each in ("later", "earlier", "other"))
    data.notification(sent, siblings=[live], next_channels=["sms"])
    data.live(live, siblings=[sent], next_channels=["sms"])
    data.notification(owing, siblings=[beside], next_channels=["sms"], status="failed")
    data.notification(beside, siblings=[owing], next_channels=["sms"])
    target = {"target_date": datetime.now(UTC), "cancellation_key": "k"}
    data.live(earlier, **target, origin_id=id_of(OLD, hour=1))
    data.notification(later, **target, origin_id=id_of(OLD, hour=2))
    data.notification(other, cancellation_key="k")
    purge(data.engine)
    assert data.ids("notifications") == {sent, live, owing, beside, later, earlier}


@pytest.mark.usefixtures("both_ways")
def test_a_day_is_kept_by_what_owes_a_channel_and_by_reminders(data: Data) -> None:
    earlier_day, owing_day = OLD - timedelta(days=1), OLD - timedelta(days=2)
    data.days(OLD, earlier_day, owing_day)
    target = {"target_date": datetime.now(UTC), "cancellation_key": "k"}
    data.live(id_of(earlier_day, "n"), **target, origin_id=id_of(earlier_day))
    later = data.notification(id_of(OLD, "n"), **target, origin_id=id_of(OLD))
    owing = data.notification(id_of(owing_day, "n"), next_channels=["sms"], status="skipped")
    keepers = {day.partition: day.keeper for day in retention.survey(data.engine, SPANS)}
    purge(data.engine)
    assert {later, owing} < data.ids("notifications")
    assert keepers[partition_of("notifications", OLD)] == "reminders"
    assert keepers[partition_of("notifications", owing_day)] == "owed channels"
    assert keepers[partition_of("notifications", earlier_day)] == "live"


@pytest.mark.usefixtures("both_ways")
def test_attachments_stay_while_a_notification_names_them(data: Data) -> None:
    eve = OLD - timedelta(days=1)
    data.days(eve, OLD)
    named, before_midnight, unnamed = id_of(OLD, "a"), id_of(eve, "b", hour=23.9999), id_of(OLD, "c")
    for each in (named, before_midnight, unnamed):
        data.insert("attachments", id=each, name="x", content_type="x/y", content=b"x")
    content = orjson.dumps({"body": "x", "attachments": [str(named), str(before_midnight)]}).decode()
    live = data.live(id_of(OLD, "n", hour=0), content=content)
    purge(data.engine)
    assert data.ids("attachments") == {named, before_midnight}
    with data.engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET status = 'cancelled', due_at = NULL"))
    purge(data.engine)
    assert data.ids("attachments") == set()
    assert live not in data.ids("notifications")


def test_old_rows_in_the_default_partition_go(data: Data) -> None:
    for n in range(3):
        data.notification(id_of(OLD, n), event_id=data.event(id_of(OLD, "e", n)))
    live = data.live(id_of(OLD, "live"))
    data.insert("attempts", id=id_of(OLD, "orphan"), notification_id=id_of(OLD, "gone"), number=1, outcome="accepted")
    young = data.notification(new_id())
    purge(data.engine)
    assert data.ids("notifications") == {live, young}
    assert (data.count("events"), data.count("attempts")) == (0, 2)


def test_what_has_a_lifetime_of_its_own_goes_by_that(data: Data) -> None:
    now = datetime.now(UTC)
    for name, delta in (("over", -timedelta(seconds=1)), ("not", timedelta(hours=1))):
        key = {"source": "s", "key": name, "fingerprint": b"x", "ids": [new_id()], "created_at": now}
        data.insert("idempotency_keys", **key, expires_at=now + delta)
        data.insert("dedup_keys", channel="email", address=name, key="k", notification_id=new_id(), until=now + delta)
        times = {"happened_at": now, "due_at": now, "keep_until": now + delta}
        data.insert("receipts", id=new_id(), notification_id=new_id(), provider="p", kind="delivered", **times)
    for days in (0, 32):
        message = {"notification_id": new_id(), "channel": "sms", "recipient": "x", "text": "x"}
        data.insert("outbox", **message, created_at=now - timedelta(days=days))
        data.insert("heartbeats", name=f"w{days}", kind="worker", queues=["sms"], seen_at=now - timedelta(days=days))
        moment = now - timedelta(days=days)
        its_id = first_id_of(moment)
        resend = {"how": "resend", "asked_by": "k", "asked_at": moment, "status": "sent", "attempts": 1}
        data.insert("resends", id=its_id, notification_id=its_id, **resend)
        said = {"provider": "p", "kind": "delivered", "happened_at": moment, "taken_at": moment, "applied": True}
        data.insert("taken_receipts", id=its_id, notification_id=its_id, **said)
        data.insert("suppressions", id=new_id(), channel="sms", address=f"{days}", folded=f"{days}", reason="stop",
                    created_at=now - timedelta(days=days))  # fmt: skip
        data.insert("opt_outs", channel="sms", address_hash=b"x", category=f"{days}",
                    created_at=now - timedelta(days=days))  # fmt: skip
    over = ("idempotency_keys", "dedup_keys", "receipts", "outbox", "heartbeats", "resends", "taken_receipts")
    assert retention.count_expired(data.engine, SPANS) == {"dead_letters": 0, "erasures": 0, **dict.fromkeys(over, 1)}
    purge(data.engine)
    assert {table: data.count(table) for table in over} == dict.fromkeys(over, 1)
    assert (data.count("suppressions"), data.count("opt_outs")) == (2, 2)


def waiting_for_a_lock(engine: Engine) -> int | None:
    """The process that waits for a table's lock."""
    with engine.connect() as connection:
        return connection.scalar(text("SELECT pid FROM pg_locks WHERE NOT granted AND locktype = 'relation' LIMIT 1"))


class Purging(threading.Thread):
    """A purge beside the test, and what it did."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self._engine = engine
        self.error: Exception | None = None
        self.steps: list[retention.Step] = []
        self.start()

    def run(self) -> None:
        try:
            self.steps += retention.purge(self._engine, SPANS)
        except Exception as error:
            self.error = error


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge that waits for locks until the test has done what it wants to do meanwhile."""
    monkeypatch.setattr(retention, "_LOCK_TIMEOUT", "20s")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("table", ["notifications", "events"])
def test_what_becomes_alive_between_the_check_and_the_drop_is_not_lost(data: Data, table: str) -> None:
    data.days(OLD)
    row = data.notification(id_of(OLD, "n")) if table == "notifications" else data.event(id_of(OLD, "e"))
    state = "queued" if table == "notifications" else "accepted"
    with data.engine.begin() as other:
        other.execute(text(f"UPDATE {table} SET status = '{state}', due_at = now()"))
        purging = Purging(data.engine)
        wait_for(lambda: waiting_for_a_lock(data.engine))
    purging.join(20)
    assert not purging.is_alive()
    assert purging.error is None
    assert data.ids(table) == {row}
    assert table in data.parts(OLD)


def test_what_becomes_alive_between_the_look_and_the_delete_is_not_lost(data: Data) -> None:
    """Somebody resends a row while a batch that holds it is under way."""
    data.days(OLD)
    data.live(id_of(OLD, "keeper"))
    row = data.notification(id_of(OLD, "n"))
    with data.engine.begin() as other:
        other.execute(text("UPDATE notifications SET status = 'queued', due_at = now() WHERE id = :id"), {"id": row})
        purge(data.engine)
        assert row in data.ids("notifications")
    purge(data.engine)
    assert row in data.ids("notifications")


def fill(data: Data, rows: int) -> None:
    """So many finished notifications, each with its event and attempt."""
    ids = [id_of(OLD, "many", n) for n in range(rows)]
    with data.engine.begin() as connection:
        for statement in (
            "INSERT INTO events (id, event_type, source, status, payload, critical, priority, created_at)"
            " SELECT id, 'x', 's', 'processed', to_json(repeat('x', 500)), false, 'normal', now()",
            "INSERT INTO notifications (id, event_id, source, critical, priority, queue, status, rule, created_at)"
            " SELECT id, id, 's', false, 'low', 'sms', 'sent', repeat('x', 500), now()",
            "INSERT INTO attempts (id, notification_id, number, outcome, error)"
            " SELECT id, id, 1, 'accepted', repeat('x', 500)",
        ):
            connection.execute(text(f"{statement} FROM unnest(CAST(:ids AS uuid[])) AS id"), {"ids": ids})


def sizes(engine: Engine) -> dict[str, int]:
    """The bytes of the old day's partitions."""
    with engine.connect() as connection:
        query = text("SELECT pg_total_relation_size(to_regclass(:part))")
        return {table: connection.scalar(query, {"part": partition_of(table, OLD)}) or 0 for table in TABLES}


def test_a_large_day_of_which_little_is_needed_is_made_anew_and_gives_its_disk_space_back(data: Data) -> None:
    data.days(OLD)
    event = data.event(id_of(OLD, "e"))
    live = data.live(id_of(OLD, "n"), event_id=event)
    fill(data, 3000)
    before = sizes(data.engine)
    steps = purge(data.engine)
    kept = {step.table: step.kept for step in steps if step.kept is not None}
    assert kept == {partition_of(table, OLD): 1 for table in ("notifications", "attempts", "events")}
    assert not any(step.rows for step in steps), "nothing is left to delete row by row"
    assert (data.ids("notifications"), data.ids("events"), data.count("attempts")) == ({live}, {event}, 1)
    after = sizes(data.engine)
    assert all(after[table] < before[table] / 4 for table in ("notifications", "attempts", "events"))
    with data.engine.connect() as connection:
        # It is a partition like any other: with the indexes of its table, none of them twice.
        query = text(
            "SELECT array_agg(regexp_replace(indexdef, '^.* USING ', '') ORDER BY 1) FROM pg_indexes"
            " WHERE tablename = :name"
        )
        for table in ("notifications", "attempts", "events"):
            [here, there] = (connection.scalar(query, {"name": each}) for each in (partition_of(table, OLD), table))
            assert sorted(here) == sorted(there)
    assert not [step for step in purge(data.engine) if step.kept is not None or step.rows], "once is enough"


def test_a_day_of_which_much_is_needed_is_not_copied(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MOST", 2)
    data.days(OLD)
    live = {data.live(id_of(OLD, n), attempts=0) for n in range(3)}
    fill(data, 3000)
    steps = purge(data.engine)
    assert partition_of("notifications", OLD) not in {step.table for step in steps if step.kept is not None}
    assert data.ids("notifications") == live


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("table", ["notifications", "events"])
def test_what_happens_to_a_day_while_it_is_made_anew_is_not_lost(data: Data, table: str) -> None:
    data.days(OLD)
    live, done = (
        data.live(id_of(OLD, name, "n"), event_id=data.event(id_of(OLD, name, "e"))) for name in ("live", "done")
    )
    if table == "events":
        live, done = (id_of(OLD, name, "e") for name in ("live", "done"))
        data.update("notifications", done_event := id_of(OLD, "done", "n"), status="sent", due_at=None)
        data.update("events", done, status="accepted", due_at=datetime.now(UTC))
        assert done_event in data.ids("notifications")
    fill(data, 3000)
    row, state = id_of(OLD, "many", 7), {"notifications": "queued", "events": "accepted"}[table]
    new = id_of(OLD, "new")
    with data.engine.begin() as other:
        update = f"UPDATE {table} SET status = :status, due_at = :due_at, source = 'touched' WHERE id = :id"
        now = datetime.now(UTC)
        finished = {"notifications": "sent", "events": "processed"}[table]
        other.execute(text(update), {"id": row, "status": state, "due_at": now})
        other.execute(text(update), {"id": live, "status": state, "due_at": now})
        other.execute(text(update), {"id": done, "status": finished, "due_at": None})
        if table == "notifications":
            insert = "INSERT INTO notifications (id, source, critical, priority, queue, status, due_at, created_at)"
            values = "VALUES (:id, 'touched', false, 'low', 'sms', 'queued', now(), now())"
            other.execute(text(f"{insert} {values}"), {"id": new})
        purging = Purging(data.engine)
        wait_for(lambda: waiting_for_a_lock(data.engine))
    purging.join(60)
    assert not purging.is_alive()
    assert purging.error is None
    assert any(partition_of(table, OLD) == step.table and step.kept is not None for step in purging.steps)
    expected = {row, live, new} if table == "notifications" else {row, live}
    assert data.ids(table) - {done} == expected
    with data.engine.connect() as connection:
        touched = connection.execute(text(f"SELECT id, due_at IS NULL FROM {table} WHERE source = 'touched'")).all()
    assert {(each, finished) for each, finished in touched} - {(done, True)} == {(each, False) for each in expected}


def test_replaced_reminders_by_the_thousand_stay_known(data: Data) -> None:
    """A reminder that is live asks for the later ones by key: together they are many pairs, but few rows."""
    eve = OLD - timedelta(days=1)
    data.days(eve, OLD)
    target = {"target_date": datetime.now(UTC), "cancellation_key": "k"}
    for n in range(110):
        data.live(id_of(eve, "live", n), attempts=0, **target, origin_id=id_of(eve))
    later = {data.notification(id_of(OLD, "later", n), attempts=0, **target, origin_id=id_of(OLD)) for n in range(110)}
    fill(data, 3000)
    steps = purge(data.engine)
    assert (partition_of("notifications", OLD), 110) in {(step.table, step.kept) for step in steps}
    assert later < data.ids("notifications")


def test_a_day_of_large_rows_that_are_needed_is_not_copied_again_and_again(data: Data) -> None:
    data.days(OLD)
    for n in range(100):
        data.live(id_of(OLD, n), attempts=0, content=orjson.dumps({"body": os.urandom(8000).hex()}).decode())
    assert not [step for step in purge(data.engine) if step.kept is not None]


def test_what_cannot_be_made_anew_now_loses_its_rows_meanwhile(data: Data) -> None:
    data.days(OLD)
    live = data.live(id_of(OLD, "n"))
    fill(data, 3000)
    with data.engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM notifications"))
        steps = purge(data.engine)
    assert partition_of("notifications", OLD) not in {step.table for step in steps if step.kept is not None}
    assert data.ids("notifications") == {live}


def test_a_clock_that_goes_on_does_not_keep_a_day_from_being_made_anew(data: Data) -> None:
    """Each tick locks rows of all days, and none of them is in the other's way for long."""
    data.days(OLD)
    content = orjson.dumps({"body": os.urandom(4_000).hex()}).decode()
    live = {data.live(id_of(OLD, n), attempts=0, content=content) for n in range(200)}
    fill(data, 20_000)
    stop, ticks = threading.Event(), list[int]()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(free_released(data.engine))

    clock = threading.Thread(target=tick)
    clock.start()
    try:
        steps = purge(data.engine)
    finally:
        stop.set()
        clock.join(20)
    assert len(ticks) > 10
    assert (partition_of("notifications", OLD), len(live)) in {(step.table, step.kept) for step in steps}
    assert data.ids("notifications") == live


@pytest.mark.parametrize("read", ["notifications", partition_of("notifications", OLD)])
def test_nobody_waits_while_a_lock_is_not_to_be_had(data: Data, read: str) -> None:
    data.days(OLD)
    data.notification(id_of(OLD, "n"))
    with data.engine.connect() as reader:
        reader.execute(text(f"SELECT count(*) FROM {read}"))
        purging = Purging(data.engine)
        longest = timedelta(0)
        while purging.is_alive():
            began = datetime.now(UTC)
            data.notification(new_id(), attempts=0)
            longest = max(longest, datetime.now(UTC) - began)
        purging.join()
        assert purging.error is None
        assert longest < timedelta(seconds=1)
        assert "notifications" in data.parts(OLD)
        assert id_of(OLD, "n") in data.ids("notifications")  # it will be dropped whole, which costs next to nothing
    purge(data.engine)
    assert data.parts(OLD) == set()


@pytest.mark.usefixtures("patient")
def test_a_purge_that_is_killed_leaves_nothing_half_done(data: Data) -> None:
    data.days(OLD)
    row = data.notification(id_of(OLD, "n"))
    with data.engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM notifications"))
        purging = Purging(data.engine)
        # By now it holds the day's lock, and has looked a second time.
        pid = wait_for(lambda: waiting_for_a_lock(data.engine))
        with data.engine.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        purging.join(20)
    assert purging.error is not None
    assert data.parts(OLD) == set(TABLES)
    assert data.ids("notifications") == {row}
    purge(data.engine)
    assert data.parts(OLD) == set()


def test_one_purge_at_a_time(data: Data) -> None:
    data.days(*(OLD - timedelta(days=n) for n in range(3)))
    for n in range(3):
        data.notification(id_of(OLD - timedelta(days=n), "n"))
    with data.engine.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": retention._PURGING})
        with pytest.raises(PurgedElsewhere):
            purge(data.engine)
    both = [Purging(data.engine), Purging(data.engine)]
    for each in both:
        each.join(20)
    assert all(each.error is None or isinstance(each.error, PurgedElsewhere) for each in both)
    assert not all(each.error for each in both)
    assert (data.count("notifications"), data.count("attempts")) == (0, 0)


def manage(database_url: str, *arguments: str, **settings: str) -> str:
    environment = {**clean_environment(), "DATABASE_URL": database_url, "COLUMNS": "200", **settings}
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/Los_Angeles"])
def test_days_are_those_of_utc_wherever_it_runs(data: Data, database_url: str, zone: str) -> None:
    before = TODAY - timedelta(days=3)
    data.days(before - timedelta(days=1), before)
    data.notification(id_of(before - timedelta(days=1), "last", hour=23.9))
    stays = {data.notification(id_of(before, "first", hour=0)), data.notification(id_of(before, "x", hour=23.9))}
    for hour in (-0.1, 0.1):
        moment = datetime.combine(before, datetime.min.time(), UTC) + timedelta(hours=hour)
        data.insert("outbox", notification_id=new_id(), channel="sms", recipient="x", text="x", created_at=moment)
    out = manage(database_url, "purge", TZ=zone, PGTZ=zone, NOTIFIER_RETENTION="P3D")
    assert "Dropped 4 of 4 old partitions." in out
    assert data.ids("notifications") == stays
    assert data.count("outbox") == 1


def test_the_dry_run_says_what_would_go_and_changes_nothing(data: Data, database_url: str) -> None:
    other = OLD - timedelta(days=1)
    data.days(OLD, other)
    data.notification(id_of(OLD, "n"), event_id=data.event(id_of(OLD, "e")))
    data.live(id_of(other, "n"), event_id=data.event(id_of(other, "e")))
    data.letter(TODAY - timedelta(days=91), notification_id=id_of(OLD, "n"))
    out = manage(database_url, "purge", "--dry-run")
    lines = {line.split()[1]: line for line in out.splitlines() if "_20" in line}
    assert "kept: live" in lines[partition_of("notifications", other)]
    assert "kept: notifications" in lines[partition_of("events", other)]
    assert "Would delete 1 of dead_letters." in out
    assert (data.count("notifications"), data.count("dead_letters")) == (2, 1)
    said = {name for name, line in lines.items() if "dropped" in line}
    real = manage(database_url, "purge")
    assert "Deleted 1 of dead_letters." in real
    assert {table for table in TABLES if partition_of(table, OLD) not in said} == set(), said
    assert data.parts(OLD) == set()


def test_for_ever_is_a_hundred_years(data: Data) -> None:
    data.notification(id_of(date(1971, 1, 2), "n"))
    for_ever = Retention(timedelta(days=36500), timedelta(days=36500))
    assert not [step for step in purge(data.engine, for_ever) if step.rows != 0]
    assert data.count("notifications") == 1


def test_the_clock_purges_beside_its_ticks(data: Data, new_system: Callable[..., Running], database_url: str) -> None:
    data.days(OLD)
    data.notification(id_of(OLD, "n"))
    system = new_system(DATABASE_URL=database_url)
    try:
        system.start(only=[system.clock])
        code = "from tasks.clock import purge; purge.apply_async(queue='clock')"
        subprocess.run([sys.executable, "-c", code], env=system.environment, cwd=ROOT, check=True)
        wait_for(lambda: not data.parts(OLD), 60, "the old day to be dropped")
    finally:
        system.stop()


def test_erasures_that_are_finished_go_and_others_stay(data: Data) -> None:
    common = {"asked_by": "x", "round": 2, "erased": 1, "left_in": [], "created_at": datetime.now(UTC)}
    data.insert("erasures", id=id_of(OLD, "finished"), finished_at=datetime.now(UTC), **common)
    running = data.insert("erasures", id=id_of(OLD, "running"), due_at=datetime.now(UTC), **common)
    recent = data.insert("erasures", id=new_id(), finished_at=datetime.now(UTC), **common)
    purge(data.engine)
    assert data.ids("erasures") == {running, recent}
