"""Days that are dropped or made anew while others work on them."""

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text

from notifier.notifications.holds import free_released
from notifier.storage import compaction, retention
from notifier.storage.partitions import TABLES, partition_of
from notifier.storage.retention import PurgedElsewhere
from notifier.vocabulary.ids import new_id
from tests.support.old_data import OLD, SPANS, Data, id_of, purge
from tests.support.running import wait_for


@pytest.fixture
def data(engine: Engine) -> Data:
    return Data(engine)


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


def test_a_day_that_another_purge_has_dropped_is_passed_over(data: Data) -> None:
    data.days(*(OLD - timedelta(days=n) for n in range(3)))
    first, seen = retention.purge(data.engine, SPANS), retention.survey(data.engine, SPANS)
    assert next(step for step in first if step.rows is None)
    assert next(seen)
    dropped = {step.table for step in purge(data.engine) if step.rows is None}
    assert len(dropped) == 3 * 4 - 1
    assert [step for step in first if step.rows is None] == []
    assert list(seen) == []


def test_a_day_that_goes_between_two_looks_is_passed_over(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    data.days(OLD)
    look = retention._is_free

    def and_then_another_purges(*about: Any) -> bool:
        found = look(*about)
        monkeypatch.setattr(retention, "_is_free", look)
        purge(data.engine)
        return found

    monkeypatch.setattr(retention, "_is_free", and_then_another_purges)
    assert retention._drop(data.engine, "notifications", OLD) is None
    assert retention._compact(data.engine, "notifications", OLD) is None


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
    errors = [each.error for each in both if each.error]
    assert [each for each in errors if not isinstance(each, PurgedElsewhere)] == []
    assert len(errors) < 2
    assert (data.count("notifications"), data.count("attempts")) == (0, 0)
