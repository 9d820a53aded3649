"""Who listens, as a process remembers it."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from notifier.planning.subscribers import Subscriber, SubscriberIndex
from notifier.vocabulary.event_types import matches
from notifier.vocabulary.ids import new_id


def test_callers_who_invent_types_take_no_memory_to_speak_of() -> None:
    everybody = tuple(Subscriber(new_id(), "https://example.com", ("*",), None, True) for _ in range(10_000))
    index = SubscriberIndex(1, everybody)
    tracemalloc.start()
    try:
        for number in range(400):
            assert len(index.of(f"type.{number}")) == 10_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16_000_000  # all 400 would be 32 MB


_NAMES = st.text("ab.", min_size=0, max_size=5)
_PATTERNS = st.builds(lambda name, star: name + star, _NAMES, st.sampled_from(["", "*"]))


@given(st.lists(st.lists(_PATTERNS, min_size=1, max_size=4), max_size=6), _NAMES)
def test_those_are_found_whose_patterns_match(patterns: list[list[str]], event_type: str) -> None:
    everybody = [Subscriber(new_id(), "https://example.com", tuple(each), None, True) for each in patterns]
    expected = tuple(each for each in everybody if any(matches(pattern, event_type) for pattern in each.event_types))
    index = SubscriberIndex(1, everybody)
    assert index.is_heard(event_type) is bool(expected)
    assert index.of(event_type) == expected
    assert index.is_heard(event_type) is bool(expected)
