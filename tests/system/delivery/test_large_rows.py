"""Memory and open files of a worker are bounded, whatever the rows and however many wait."""

from collections.abc import Callable
from uuid import UUID

import psutil
import pytest
from sqlalchemy import Engine, text

from deploy.child_process import Child
from notifier.delivery import load_sizes
from notifier.delivery.load_sizes import in_parts_of
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Status
from tests.support.batches import Vendor, delivery_by, no_detaching, queued, states
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

#: Bytes of a large row's text, and how many of them one message names: far more than a thread may read at once.
LARGE, ROWS = 100_000, 400
#: Connections that one thread of a worker has open at the most: as many webhooks it sends at once.
AT_ONCE = 64


def process_of(child: Child) -> psutil.Process:
    assert child.pid
    return psutil.Process(child.pid)


def queue_webhooks(system: Running, url: str, count: int, size: int) -> None:
    """Have so many webhooks wait whose text has `size` bytes, and the clock find them at once."""
    system.sql(
        """
        INSERT INTO notifications (id, source, recipient, channel, content, critical, priority, queue, status, due_at,
            created_at)
        SELECT uuidv7(), 'test', :url, 'webhook', json_build_object('body', repeat('x', :size)), false, 'normal',
            'webhook', 'queued', now(), now()
        FROM generate_series(1, :count)
        """,
        **{"url": url, "count": count, "size": size},
    )


def test_large_rows_do_not_fill_a_workers_memory(start_system: Callable[..., Running], http: HttpReceiver) -> None:
    # A receiver of 40 MB takes its time on a busy machine, and what is answered too late comes again.
    system = start_system(NOTIFIER_WEBHOOK_TIMEOUT="30")
    worker = process_of(system.fresh)
    system.finished(system.event(channel="webhook", recipient=http.url("/first")))  # it has started by then
    before = worker.memory_info().rss
    queue_webhooks(system, http.url("/large"), ROWS, LARGE)
    most = before

    def all_sent() -> bool:
        nonlocal most
        most = max(most, worker.memory_info().rss)
        return len(http.times("/large")) == ROWS

    wait_for(all_sent, 60, "all large rows to be sent")
    assert set(http.times("/large").values()) == {1}
    # All of them at once would be 40 MB, several times over.
    assert (most - before) / 1e6 < 80


def test_descriptors_do_not_grow_with_what_waits(breakable: Running, http: HttpReceiver) -> None:
    worker, threads = process_of(breakable.fresh), 4
    # One that has just been started is connected to nothing.
    breakable.finished(breakable.event(channel="webhook", recipient=http.url("/first")))
    before = worker.num_fds()
    for round_ in (1, 2, 3):
        queue_webhooks(breakable, http.url("/many"), 1000, 100)
        wait_for(lambda n=round_: len(http.times("/many")) == n * 1000, 60, "a thousand webhooks")
        # Beside those of webhooks: to Postgres, and an epoll for each thread.
        assert worker.num_fds() - before <= threads * AT_ONCE + 20 + 2 * threads


@pytest.fixture
def events(engine: Engine) -> Callable[[int, int], list[UUID]]:
    """Makes accepted events with payloads of a size."""

    def make(count: int, size: int) -> list[UUID]:
        ids = [new_id() for _ in range(count)]
        with engine.begin() as connection:
            connection.execute(
                text("""
                    INSERT INTO events (id, source, event_type, payload, status, due_at, created_at, priority, critical)
                    SELECT id, 'test', 'x', json_build_object('body', repeat('x', :size)), 'accepted', now(), now(),
                        'normal', false
                    FROM unnest(CAST(:ids AS uuid[])) AS made(id)
                """),
                {"ids": ids, "size": size},
            )
        return ids

    return make


def test_events_are_read_in_parts(engine: Engine, events: Callable[[int, int], list[UUID]]) -> None:
    large, small = events(50, 1_000_000), events(500, 1000)
    parts = load_sizes.of_events(engine, large)
    assert [row_id for part in parts for row_id in part] == large
    assert {len(part) for part in parts} == {4, 2}
    assert load_sizes.of_events(engine, small) == [small]
    assert load_sizes.of_events(engine, []) == []


def test_a_batch_that_takes_longer_than_its_window_leaves_the_rest_to_others(engine: Engine) -> None:
    ids = queued(engine, *[f"+155501{n:02}" for n in range(40)], body="x" * 500_000)
    vendor = Vendor("a")
    with engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET due_at = now() + interval '1 hour'"))
    delivery_by(engine, vendor, window=0.0).deliver(ids, 0, no_detaching)
    # Nothing may begin in a window that is over: the first part was given back, the others were never claimed.
    assert {status for status, _ in states(engine, ids)} == {Status.QUEUED}
    query = text("SELECT claims, count(*) FROM notifications WHERE due_at <= now() GROUP BY 1 ORDER BY 1")
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(query)] == [(0, 32), (1, 8)]
    delivery_by(engine, vendor).deliver(ids, 0, no_detaching)
    assert {status for status, _ in states(engine, ids)} == {Status.SENT}
    assert sorted(vendor.got) == sorted(ids)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], []),
        ([0, 0, 0], [3]),
        ([10], [1]),
        ([11], [1]),
        ([5, 5, 1], [2, 1]),
        ([11, 1, 1], [1, 2]),
        ([1, 11, 1], [1, 1, 1]),
        ([20, 20], [1, 1]),
    ],
)
def test_parts_hold_no_more_than_they_may_but_a_single_row(sizes: list[int], parts: list[int]) -> None:
    ids = [new_id() for _ in sizes]
    made = in_parts_of(ids, dict(zip(ids, sizes, strict=True)), 10)
    assert [len(part) for part in made] == parts
    assert [row_id for part in made for row_id in part] == ids
