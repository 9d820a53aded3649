"""Freed memory goes back to the kernel."""

import psutil

from notifier.runtime.memory import give_back

MIB = 2**20


def test_freed_memory_goes_back() -> None:
    # Blocks that malloc takes from its heap, each with one behind it that stays.
    process = psutil.Process()
    blocks, kept = [], []
    for _ in range(1000):
        blocks.append(bytearray(100_000))
        kept.append(bytearray(5_000))
    blocks.clear()
    before = process.memory_info().rss
    give_back()
    assert before - process.memory_info().rss > 50 * MIB
    assert len(kept) == 1000
