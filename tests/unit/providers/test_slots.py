"""The slot rule that endpoints and providers share: how many may go now, and when the others."""

import math
from collections import Counter, deque
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.providers.slots import EARLY_AFTER_WAITING, WINDOW, Grant, Line, free_slots, grant

RATES = st.sampled_from([0.01, 0.1, 0.5, 0.9, 1, 1.5, 2, 5, 14, 40, 200, 1000]) | st.floats(0.001, 5000)
EARLY = st.sampled_from([0.0, 1.0])
COUNTS = st.integers(0, 50)
NO_LINE = Line(0.0, 0.0)


@pytest.mark.parametrize(
    ("next_slot", "rate", "early", "free"),
    [
        (0, 5, 0, 5),
        (0, 1, 0, 1),
        (0, 0.01, 0, 1),  # a slot is longer than the window, but it has begun
        (0.5, 5, 0, 2),
        (0.5, 0.5, 0, 0),
        (0.5, 0.5, 1, 1),  # it begins within a second
        (0.9, 5, 0, 0),
        (0.9, 5, 1, 1),
        (1.1, 0.5, 1, 0),
        (10, 5, 0, 0),  # never less than none
        (10, 5, 1, 0),
    ],
)
def test_how_many_slots_are_free(next_slot: float, rate: float, early: float, free: int) -> None:
    assert free_slots(next_slot, rate, early=early) == free


def test_the_others_wait_one_behind_the_other() -> None:
    assert grant(NO_LINE, 5, waited=0, fresh=8, fresh_early=0) == Grant(5, 1.0, 1.0)
    assert grant(Line(0.0, 4.0), 5, waited=2, fresh=8, fresh_early=0) == Grant(2, 0.4, 4.2)
    assert grant(Line(0.0, 4.0), 5, waited=0, fresh=8, fresh_early=0) == Grant(0, 0.0, 4.2), "others were there first"
    assert grant(Line(0.0, 0.0), 0.5, waited=0, fresh=2, fresh_early=0) == Grant(1, 2.0, 2.0)


def test_who_has_waited_goes_in_the_second_of_its_slot_and_a_fresh_message_as_its_limit_says() -> None:
    soon = Line(0.4, 0.0)
    assert grant(soon, 1, waited=1, fresh=0, fresh_early=0).free == 1
    assert grant(soon, 1, waited=0, fresh=1, fresh_early=0) == Grant(0, 0.4, 0.4)
    assert grant(soon, 1, waited=0, fresh=1, fresh_early=1).free == 1
    assert grant(soon, 1, waited=1, fresh=1, fresh_early=0) == Grant(1, 1.4, 1.4)


@given(st.floats(0, 1e6), st.floats(0, 1e6), RATES, COUNTS, COUNTS, EARLY)
@example(10.0, 0.0, 5.0, 0, 100, 0.0)  # the rate was 0.1 until now
def test_nobody_gets_more_than_is_there_or_than_it_wants(
    next_slot: float, last_place: float, rate: float, waited: int, fresh: int, early: float
) -> None:
    granted = grant(Line(next_slot, last_place), rate, waited=waited, fresh=fresh, fresh_early=early)
    assert 0 <= granted.free <= waited + (0 if last_place else fresh)
    assert granted.free <= math.floor(WINDOW * rate) + 1
    assert granted.next_slot <= max(WINDOW, EARLY_AFTER_WAITING + 1 / rate) * 1.000001
    assert granted.next_place >= granted.next_slot
    assert not last_place or granted.next_place > last_place


@settings(deadline=None)
@given(RATES, st.lists(st.tuples(st.floats(0, 5), COUNTS, COUNTS), max_size=60), EARLY)
def test_in_any_time_no_more_go_than_the_rate_and_one_window(
    rate: float, batches: list[tuple[float, int, int]], early: float
) -> None:
    slot, now, went = 0.0, 0.0, []
    for pause, waited, fresh in batches:
        now += pause
        granted = grant(Line(max(slot - now, 0.0), 0.0), rate, waited=waited, fresh=fresh, fresh_early=early)
        slot = now + granted.next_slot
        went.append((now, granted.free))
    for first, (begin, _) in enumerate(went):
        total = 0
        for end, free in went[first:]:
            total += free
            assert total <= rate * (end - begin) + max(rate, EARLY_AFTER_WAITING * rate + 1) + 0.001


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), COUNTS), max_size=60), RATES)
def test_fresh_messages_that_may_not_be_early_never_exceed_the_rate_at_once(
    batches: list[tuple[float, int]], rate: float
) -> None:
    slot, now = 0.0, 0.0
    for pause, fresh in batches:
        now += pause
        granted = grant(Line(max(slot - now, 0.0), 0.0), rate, waited=0, fresh=fresh, fresh_early=0)
        slot = now + granted.next_slot
        assert granted.next_slot <= max(WINDOW, 1 / rate) * 1.000001


@settings(deadline=None)
@given(st.sampled_from([0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 5.0]), st.integers(2, 40), st.integers(0, 2**32), EARLY)
def test_a_backlog_goes_in_order_and_each_message_is_looked_at_twice(
    rate: float, messages: int, seed: int, early: float
) -> None:
    """The clock releases what is due once a second, some milliseconds sooner or later, in one batch."""
    random, now, slot, last_place = Random(seed), 0.0, 0.0, 0.0
    due: deque[tuple[float, int]] = deque((0.0, message) for message in range(messages))
    looks, order = Counter[int](), []
    while due:
        ready = [message for at, message in due if at <= now]
        due = deque(each for each in due if each[0] > now)
        looks.update(ready)
        waited = [message for message in ready if looks[message] > 1]
        granted = grant(
            Line(max(slot - now, 0.0), max(last_place - now, 0.0)),
            rate,
            waited=len(waited),
            fresh=len(ready) - len(waited),
            fresh_early=early,
        )
        slot = now + granted.next_slot
        order += ready[: granted.free]
        for place, message in enumerate(ready[granted.free :]):
            last_place = now + granted.next_place + place / rate
            due.append((last_place, message))
        now += 1 + random.uniform(-0.05, 0.05)
    assert sum(looks.values()) <= 2.5 * messages + 2
    assert now <= messages / rate * 1.4 + 3, "few slots go unused"
