"""Who listens, as a process remembers it."""

import tracemalloc

from notifier.ids import new_id
from notifier.listeners import Directory, Listener


def test_callers_who_invent_types_take_no_memory_to_speak_of() -> None:
    everybody = tuple(Listener(new_id(), "https://example.com", ("*",), None, True) for _ in range(10_000))
    directory = Directory(1, everybody)
    tracemalloc.start()
    try:
        for number in range(400):
            assert len(directory.of(f"type.{number}")) == 10_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16_000_000  # all 400 would be 32 MB
