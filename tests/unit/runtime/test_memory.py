"""Freed memory goes back to the kernel, and what stays is no work for the garbage collector."""

import subprocess
import sys

import psutil
import pytest

from notifier.runtime.memory import give_back
from tests.support.paths import ROOT

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


_SETTLED = """
import gc, weakref
from notifier.runtime.memory import settle
class Node: pass
stays = [Node() for _ in range(1000)]
settle()
frozen = gc.get_freeze_count()
settle()
assert gc.get_freeze_count() == frozen > 1000
cycle = Node(); cycle.itself = cycle; gone = weakref.ref(cycle); del cycle
gc.collect()
assert gone() is None
"""


def test_what_stays_is_passed_over_and_garbage_is_still_found() -> None:
    subprocess.run([sys.executable, "-c", _SETTLED], check=True, timeout=60)


@pytest.mark.parametrize("starts", ["deploy.commands.cli import cli", "api.serving.__main__ import main"])
def test_a_process_that_starts_does_not_search_its_modules_for_garbage(starts: str) -> None:
    # Either ends at once with its help, having begun as it always does; then come most of the product's modules.
    program = f"import gc, sys; sys.argv = ['x', '--help']\nfrom {starts} as start\ntry: start()\n"
    program += "except SystemExit: pass\nbefore = gc.get_stats()[2]['collections']\n"
    program += "import api.app, tasks.clock\nassert gc.get_stats()[2]['collections'] == before\n"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT, stdout=subprocess.DEVNULL)
