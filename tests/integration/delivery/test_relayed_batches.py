"""A batch through several providers to its rows: what is recorded, whatever the providers do."""

from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event

import pytest
from sqlalchemy import Engine, text

from notifier.delivery.batch_failed import BatchFailed
from notifier.notifications.attempts import AbandonedClaim, Record, record, record_worker_losses
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.runtime.isolation import BaseExceptionRaised
from notifier.vocabulary.states import Status
from tests.support.batches import FAULTY, Vendor, delivery_by, no_detaching, queued, states
from tests.support.running import wait_for


def test_what_one_provider_took_is_recorded_where_another_breaks(engine: Engine) -> None:
    ids = queued(engine, *[f"+1555010{n}" for n in range(8)], FAULTY, "+15550109")
    with pytest.raises(ZeroDivisionError):
        delivery_by(engine, Vendor("a", is_down=True), Vendor("b")).deliver(ids, 0, no_detaching)
    begun = [status for status, _ in states(engine, ids[:8])]
    assert begun.count(Status.SENT) >= 4, "else they are sent once more"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, CancelledError, MemoryError])
def test_what_was_sent_is_recorded_whatever_a_provider_raises(engine: Engine, error: type[BaseException]) -> None:
    ids = queued(engine, *[f"+1555010{n}" for n in range(8)], FAULTY, "+15550109")
    vendor = Vendor("a")
    vendor.error = error
    with pytest.raises(MemoryError if error is MemoryError else BaseExceptionRaised):
        delivery_by(engine, vendor).deliver(ids, 0, no_detaching)
    found = [status for status, _ in states(engine, ids)]
    assert found == [*[Status.SENT] * 8, Status.SENDING, Status.QUEUED]


def test_while_all_fail_each_call_leaves_one_attempt(engine: Engine) -> None:
    vendors = Vendor("a", is_down=True), Vendor("b", is_down=True), Vendor("c", is_down=True)
    ids = queued(engine, *[f"+155501{n:02}" for n in range(90)])
    with pytest.raises(BatchFailed) as failed:
        delivery_by(engine, *vendors).deliver(ids, 0, no_detaching)
    found = states(engine, ids)
    calls = [sum(each in vendor.got for vendor in vendors) for each in ids]
    assert [numbers for _, numbers in found] == [list(range(1, count + 1)) for count in calls]
    tried = {row.id for row in failed.value.rows}
    assert [status for status, _ in found] == [Status.SENDING if each in tried else Status.QUEUED for each in ids]


def test_a_worker_that_was_thought_lost_counts_its_calls_on(engine: Engine) -> None:
    [row_id] = queued(engine, "+15550100")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE notifications SET status = 'sending', claims = 1 WHERE id = :id"), {"id": row_id}
        )
        record_worker_losses(connection, [AbandonedClaim(row_id, 1, 0)])
    first = Result(row_id, Outcome.UNSENT, "a", datetime.now(UTC), 1.0, fault=Fault.PROVIDER, handed_on=True)
    second = Result(row_id, Outcome.ACCEPTED, "b", datetime.now(UTC), 1.0)
    records = [Record(first, 1, 1, 1, 0), Record(second, 1, 2, 1, 1)]
    record(engine, records, finished=Status.SENT, emit_events=False)
    assert states(engine, [row_id]) == [(Status.SENT, [1, 2])]


class Slow(Vendor):
    """A provider that takes every message at once, and says so of the last one when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.timeout = 0.2
        self.turns = 0
        self.answered = Event()

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        waiting = [message.id for message in messages]
        while waiting:
            self.turns += 1
            if len(waiting) > 1 or self.answered.wait(0.01):
                row_id = waiting.pop()
                self.got.append(row_id)
                yield [Result(row_id, Outcome.ACCEPTED, self.name, datetime.now(UTC), 1.0)]
            else:
                yield []


def test_what_cannot_be_recorded_is_read_on_and_keeps_its_lease(engine: Engine) -> None:
    ids = queued(engine, "+15550101", "+15550102")
    vendor = Slow("slow")
    delivery = delivery_by(engine, vendor, window=0.5)

    def end_of_lease() -> tuple[int, datetime | None]:
        query = text("SELECT count(*), min(due_at) FROM notifications WHERE status = 'sending'")
        with engine.connect() as connection:
            row = connection.execute(query).one()
        return row[0], row[1]

    with ThreadPoolExecutor() as others, engine.begin() as connection:
        connection.execute(text("LOCK TABLE attempts"))
        sending = others.submit(delivery.deliver, ids, 0, no_detaching)
        wait_for(lambda: vendor.got)
        held, first = end_of_lease()
        turns = vendor.turns
        wait_for(lambda: vendor.turns > turns + 100, what="answers to be read while none can be recorded")
        vendor.answered.set()
        wait_for(lambda: end_of_lease() > (held, first), what="the lease to be renewed")
        connection.rollback()
        sending.result(20)
    assert held == 2
    assert states(engine, ids) == [("sent", [1]), ("sent", [1])]
    assert sorted(vendor.got) == sorted(ids)
