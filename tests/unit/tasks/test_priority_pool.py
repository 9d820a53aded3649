"""The pool of threads that a worker has on RabbitMQ: the most urgent task that waits is begun first."""

import threading
from collections.abc import Iterator

import pytest

from tasks.pool import PriorityPool
from tests.support.running import wait_for


@pytest.fixture
def pool() -> Iterator[PriorityPool]:
    """One with a single thread, whose tasks wait for one another."""
    made = PriorityPool(limit=1)
    made.start()
    yield made
    made.stop()


def test_high_is_begun_before_normal_before_low_and_equals_in_turn(pool: PriorityPool) -> None:
    go_on, done = threading.Event(), []

    def trace(name: str, *_: object) -> tuple[int, None, float]:
        if name == "first":
            go_on.wait(20)
        done.append(name)
        return 0, None, 0.0

    def begin(name: str, queue: str) -> None:
        # As the worker calls it: name, id, and the message's own data.
        pool.apply_async(trace, (name, "id", {"delivery_info": {"routing_key": queue}}), callback=lambda _: None)

    begin("first", "webhook.low")
    for name, queue in [
        ("low", "webhook.low"),
        ("normal", "email"),
        ("fan out", "fan_out"),
        ("high", "sms.high"),
        ("canary", "canary.fresh@here"),
        ("high again", "email.high"),
    ]:
        begin(name, queue)
    go_on.set()
    wait_for(lambda: len(done) == 7)
    assert done == ["first", "canary", "high", "high again", "normal", "fan out", "low"]
