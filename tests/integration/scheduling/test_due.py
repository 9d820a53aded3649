"""Handing over by the clock, against rows of our own: what it counts, what it takes back, and what it buries."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.events import fan_out
from notifier.notifications.attempts import Record, record
from notifier.notifications.claims import renew
from notifier.notifications.retries import RetryPolicy
from notifier.providers.protocol import Outcome, Result
from notifier.scheduling.due import DUE_BATCH, MAX_BEGUN, MAX_WORKER_LOSSES, Handover, hand_over
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.queues import FAN_OUT
from notifier.vocabulary.states import Status
from tests.support.running import wait_for

POLICY = RetryPolicy(1, 1, 3)
#: The messages for which a queue has room, and rows of which there are many more.
ROOM = 7
MANY = 60


class Rows:
    """Notifications in one queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def sql(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """Execute a statement; returns its rows, if any."""
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def write(self, count: int, status: str, *, lost: int = 0) -> list[UUID]:
        """Write rows that have been due for a minute; workers that hold any have been asked, and were silent."""
        ids = [new_id() for _ in range(count)]
        self.sql(
            """
            INSERT INTO notifications (id, source, recipient, channel, critical, priority, queue, status, due_at,
                claims, silent_claim, attempts, lost, created_at)
            SELECT id, 'test', 'ada@example.com', 'email', false, 'normal', 'email', :status,
                now() - interval '1 minute', 1, 1, 0, :lost, now()
            FROM unnest(CAST(:ids AS uuid[])) AS made(id)
            """,
            **{"ids": ids, "status": status, "lost": lost},
        )
        return ids

    def tick(self, room: int = ROOM, lease: float = 60) -> list[Handover]:
        """Hand over what is due."""
        return hand_over(self._engine, "email", room, lease, POLICY)

    def claim(self, ids: list[UUID]) -> None:
        """Claim rows, as a worker does that dies at once; its lease is over, and it was silent since."""
        statement = """
            UPDATE notifications SET status = 'sending', claims = claims + 1, silent_claim = claims + 1,
                due_at = now() - interval '1 second'
            WHERE id = ANY(:ids)
        """
        self.sql(statement, ids=ids)

    def found(self) -> list[tuple[Any, ...]]:
        """Return status, lost workers, and how many rows have them."""
        return self.sql("SELECT status, lost, count(*) FROM notifications GROUP BY 1, 2 ORDER BY 1, 2")


@pytest.fixture
def rows(engine: Engine) -> Rows:
    """The queue."""
    return Rows(engine)


def test_a_crash_counts_once_however_little_room_there_is(rows: Rows) -> None:
    rows.write(MANY, "sending")
    handed: list[UUID] = []
    for _ in range(2 * MAX_WORKER_LOSSES):
        handed += [row_id for message in rows.tick() for row_id in message.ids]
    assert rows.found() == [("queued", 1, MANY)]
    assert len(handed) == len(set(handed)) == MANY
    assert rows.sql("SELECT DISTINCT attempts FROM notifications") == [(1,)]
    assert rows.sql("SELECT count(*) FROM attempts") == [(MANY,)]


def test_a_worker_is_asked_before_its_rows_are_taken_back(engine: Engine, rows: Rows) -> None:
    ids = rows.write(2 * DUE_BATCH + 1, "sending")
    rows.sql("UPDATE notifications SET silent_claim = NULL")
    [behind] = rows.write(1, "queued")
    [message] = rows.tick()
    assert message.ids == [behind], "it does not stand behind those that are asked"
    assert rows.tick() == []
    waits = "SELECT min(due_at) > now() + interval '2 seconds', count(*) FROM notifications WHERE silent_claim = claims"
    assert rows.sql(f"{waits} AND status = 'sending'") == [(True, len(ids))]
    with engine.begin() as connection:
        renew(connection, [(ids[0], 1), (ids[1], 2)], 60)
    renewed = "SELECT id FROM notifications WHERE silent_claim IS NULL AND due_at > now() + interval '50 seconds'"
    assert rows.sql(renewed) == [(ids[0],)], "the other one is held under another claim"
    rows.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending'")
    taken = [message.ids for message in rows.tick(room=2)]
    assert len(taken) == 2
    assert [ids[0]] not in taken, "it is asked anew"


def test_a_clock_that_waited_for_a_lock_takes_nothing_back(engine: Engine, rows: Rows) -> None:
    ids = rows.write(MANY, "queued")
    rows.sql("UPDATE notifications SET status = 'sending', silent_claim = NULL")
    with engine.begin() as connection, ThreadPoolExecutor() as others:
        connection.execute(text("LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"))
        clocks = [others.submit(rows.tick) for _ in range(2)]
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST('notifications' AS regclass)"
        wait_for(lambda: rows.sql(blocked) == [(2,)])
        connection.commit()
    assert [clock.result() for clock in clocks] == [[], []]
    assert rows.sql("SELECT count(*) FROM notifications WHERE status = 'sending' AND due_at > now()") == [(len(ids),)]


def test_a_send_that_ended_is_held_against_nobody(engine: Engine, rows: Rows) -> None:
    ids = rows.write(2, "sending", lost=MAX_WORKER_LOSSES - 1)
    failed = [Result(row_id, Outcome.UNSENT, "smtp", datetime.now(UTC), 5.0) for row_id in ids]
    record(engine, [Record(each, 1, 1, 1) for each in failed], finished=Status.SENT, emit_events=False)
    assert len(rows.tick()) == 1
    assert rows.found() == [("queued", MAX_WORKER_LOSSES - 1, 2)]
    assert rows.sql("SELECT DISTINCT attempts, tries FROM notifications") == [(1, 1)]


def test_what_is_taken_back_goes_alone(rows: Rows) -> None:
    suspects = rows.write(3, "sending")
    others = rows.write(MANY, "queued")
    messages = [message.ids for message in rows.tick()]
    assert sorted(messages[0]) == others
    assert sorted(messages[1:]) == [[row_id] for row_id in suspects]


def test_what_dies_together_is_buried_one_at_a_time_and_the_innocent_are_not(rows: Rows) -> None:
    rows.write(3, "sending", lost=MAX_WORKER_LOSSES - 2)
    buried: list[UUID] = []
    for number in range(3):
        [message] = rows.tick()
        assert rows.tick() == [], "only one of them is under way"
        [row_id] = message.ids
        if number == 1:
            rows.sql("UPDATE notifications SET status = 'sent', due_at = NULL WHERE id = :id", id=row_id)
        else:
            rows.claim(message.ids)
            buried.append(row_id)
    assert rows.tick() == []
    dead = "SELECT notification_id FROM dead_letters WHERE reason = 'worker_lost' ORDER BY 1"
    assert rows.sql(dead) == [(row_id,) for row_id in sorted(buried)]
    assert rows.found() == [("failed", MAX_WORKER_LOSSES, 2), ("sent", MAX_WORKER_LOSSES - 1, 1)]


def test_one_crash_buries_one_row_at_most(rows: Rows) -> None:
    rows.write(ROOM, "queued")
    dead = [0]
    for _ in range(4 * MAX_WORKER_LOSSES):
        rows.claim([row_id for message in rows.tick() for row_id in message.ids])
        dead += [sum(count for status, _, count in rows.found() if status == "failed")]
    assert dead[MAX_WORKER_LOSSES] == 0
    assert dead[-1] == ROOM, "all of them kill their workers"
    assert all(later - earlier <= 1 for earlier, later in pairwise(dead))


def write_events(rows: Rows, count: int, begun: int = 0) -> list[UUID]:
    """Write events that have been due for a minute."""
    ids = [new_id() for _ in range(count)]
    statement = """
        INSERT INTO events (id, event_type, source, payload, critical, priority, status, handovers, created_at, due_at)
        SELECT id, 'x', 'test', '{}', false, 'normal', 'accepted', :begun, now(), now() - interval '1 minute'
        FROM unnest(CAST(:ids AS uuid[])) AS made(id)
    """
    rows.sql(statement, ids=ids, begun=begun)
    return ids


def counted(rows: Rows) -> list[tuple[Any, ...]]:
    """Return status and begun fan-outs of events, and how many have them."""
    return rows.sql("SELECT status, handovers, count(*) FROM events GROUP BY 1, 2 ORDER BY 1, 2")


def test_events_outlive_an_absence_of_workers(engine: Engine, rows: Rows) -> None:
    ids = write_events(rows, MANY)
    for _ in range(3 * MAX_BEGUN):
        [message] = hand_over(engine, FAN_OUT, ROOM, 0, None)
        assert sorted(message.ids) == ids
        assert message.due is not None
    assert counted(rows) == [("accepted", 0, MANY)]


def test_only_a_fan_out_that_began_and_did_not_end_is_counted(engine: Engine, rows: Rows) -> None:
    [event_id] = write_events(rows, 1)
    for number in range(MAX_BEGUN):
        [message] = hand_over(engine, FAN_OUT, ROOM, 0, None)
        assert (message.ids, message.failures) == ([event_id], number)
        assert fan_out.begin(engine, message.ids, message.failures, 0) == [event_id]
        assert fan_out.begin(engine, message.ids, message.failures, 0) == [], "the message was doubled"
        if number == 1:
            fan_out.withdraw(engine, [event_id])
            assert fan_out.begin(engine, message.ids, message.failures, 0) == [event_id]
    assert hand_over(engine, FAN_OUT, ROOM, 0, None) == []
    letters = rows.sql("SELECT event_id, error FROM dead_letters WHERE reason = 'fan_out_failed'")
    assert letters == [(event_id, "its worker died again and again")]


def test_what_is_being_fanned_out_is_not_begun_once_more(engine: Engine, rows: Rows) -> None:
    ids = write_events(rows, 2)
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM events WHERE id = :id FOR UPDATE"), {"id": ids[0]})
        assert fan_out.begin(engine, ids, 0, 60) == ids[1:]


def test_an_event_that_kills_its_workers_takes_no_other_with_it(engine: Engine, rows: Rows) -> None:
    write_events(rows, 2, begun=MAX_BEGUN - 1)
    [killer] = hand_over(engine, FAN_OUT, ROOM, 60, None)
    assert hand_over(engine, FAN_OUT, ROOM, 60, None) == [], "only one of them is under way"
    assert fan_out.begin(engine, killer.ids, killer.failures, 0) == killer.ids
    [other] = hand_over(engine, FAN_OUT, ROOM, 60, None)
    assert other.ids != killer.ids
    assert counted(rows) == [("accepted", MAX_BEGUN - 1, 1), ("failed", MAX_BEGUN, 1)]
