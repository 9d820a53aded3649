"""The batch sender's buffer: when a batch is ripe, how much may wait, and that each event comes out once."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_client import Limits
from notifier_client.batches import Prepared, prepare
from notifier_client.buffer import Buffer


def event(number: int, size: int = 4) -> Prepared:
    return Prepared(str(number).encode().ljust(size))


def numbers(batch: Any) -> list[int]:
    return [int(entry.event.body) for entry in batch]


def filled(limits: Limits, *events: Prepared) -> Buffer:
    buffer = Buffer(limits)
    for each in events:
        assert buffer.put(each, 0)
    return buffer


def test_a_batch_is_ripe_by_its_events() -> None:
    buffer = filled(Limits(max_events=2, max_seconds=3_600), *map(event, range(5)))
    assert numbers(buffer.take()) == [0, 1]
    buffer.settle()
    assert numbers(buffer.take()) == [2, 3]


def test_a_batch_is_ripe_by_its_bytes_and_an_event_that_is_too_large_goes_alone() -> None:
    buffer = filled(Limits(max_bytes=10, max_seconds=3_600), event(0), event(1, 50), event(2), event(3), event(4))
    found = []
    for _ in range(3):
        found.append(numbers(buffer.take()))
        buffer.settle()
    assert found == [[0], [1], [2, 3]]


def test_a_batch_is_ripe_by_its_age_when_flushed_and_when_closed() -> None:
    assert numbers(filled(Limits(max_seconds=0), event(1)).take()) == [1]
    closed = filled(Limits(max_seconds=3_600), event(1))
    closed.close()
    assert numbers(closed.take()) == [1]
    closed.settle()
    assert closed.take() == []
    flushed = filled(Limits(max_seconds=3_600), event(1))
    assert not flushed.flush(0)
    assert numbers(flushed.take()) == [1]
    flushed.settle()
    assert flushed.flush(0)


def test_a_flush_waits_for_what_failed_and_not_for_what_came_later() -> None:
    buffer = filled(Limits(max_seconds=3_600), event(1), event(2))
    assert not buffer.flush(0)
    first, second = buffer.take()
    buffer.settle([first])
    assert buffer.put(event(3), 0)
    assert not buffer.flush(0)
    assert numbers(buffer.take()) == [1, 3]
    buffer.settle()
    assert buffer.flush(0)
    assert int(second.event.body) == 2


def test_events_in_flight_take_room_until_they_are_settled() -> None:
    buffer = filled(Limits(max_events=2, capacity=2), event(1), event(2))
    assert not buffer.put(event(3), 0)
    batch = buffer.take()
    assert not buffer.put(event(3), 0)
    buffer.settle(batch[1:])
    assert buffer.put(event(3), 0)
    assert not buffer.put(event(4), 0)
    assert len(buffer) == 2


def test_bytes_take_room_too_but_a_large_event_finds_some_in_an_empty_buffer() -> None:
    buffer = filled(Limits(capacity_bytes=10, max_seconds=3_600), event(1, 50))
    assert not buffer.put(event(2), 0)
    assert [each.body.strip() for each in buffer.drain()] == [b"1"]
    assert buffer.put(event(2), 0)
    assert buffer.put(event(3), 0)
    assert not buffer.put(event(4), 0)


def test_whoever_waits_for_room_gets_it_and_is_told_when_there_will_be_none() -> None:
    buffer = filled(Limits(max_events=1, capacity=1), event(1))
    taken: list[bool] = []
    waiting = threading.Thread(target=lambda: taken.append(buffer.put(event(2), None)))
    waiting.start()
    buffer.take()
    buffer.settle()
    waiting.join(20)
    refused = threading.Thread(target=lambda: taken.append(buffer.put(event(3), None)))
    refused.start()
    buffer.stop()
    refused.join(20)
    assert taken == [True, False]
    assert buffer.take() == []
    assert len(buffer.drain()) == 1


@given(
    sizes=st.lists(st.integers(1, 30), max_size=40),
    limits=st.builds(Limits, max_events=st.integers(1, 7), max_bytes=st.integers(1, 60), max_seconds=st.just(0)),
    failing=st.lists(st.booleans(), max_size=40),
)
def test_every_event_comes_out_once_in_its_order(sizes: list[int], limits: Limits, failing: list[bool]) -> None:
    buffer = filled(limits, *(event(number, size + 2) for number, size in enumerate(sizes)))
    buffer.close()
    fails: Iterator[bool] = iter(failing)
    found: list[int] = []
    while batch := buffer.take():
        assert len(batch) <= limits.max_events
        assert len(batch) == 1 or sum(each.size for each in batch) <= limits.max_bytes
        fail = next(fails, False)
        found += [] if fail else numbers(batch)
        buffer.settle(batch if fail else ())
    assert found == list(range(len(sizes)))
    assert not buffer.drain()


@pytest.mark.parametrize("name", ["max_events", "max_bytes", "capacity", "capacity_bytes"])
def test_limits_that_nothing_could_pass_are_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match="must be positive"):
        Limits(**wrong)


def test_an_event_is_encoded_when_it_is_added_with_a_key_that_stays() -> None:
    original: Any = {"event_type": "a", "payload": {"name": "Zoë"}}
    taken = prepare(original)
    original["payload"]["name"] = "changed"
    assert taken.event["payload"] == {"name": "Zoë"}
    assert taken.event["idempotency_key"] == taken.event["idempotency_key"]
    assert "idempotency_key" not in original
    assert prepare({"event_type": "a", "idempotency_key": "mine"}).event["idempotency_key"] == "mine"


@pytest.mark.parametrize("payload", [{"n": float("nan")}, {"n": "\ud800"}, {"n": object()}])
def test_what_is_no_json_is_refused_at_once(payload: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        prepare({"event_type": "a", "payload": payload})
