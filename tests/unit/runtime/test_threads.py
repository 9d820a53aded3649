"""Threads that a process cannot do without."""

import subprocess
import sys

import pytest

from notifier.runtime.threads import EXIT_CODE, start_lasting

#: A process whose thread fails, and cannot even tell of it.
WITHOUT_MEMORY = """
import threading

import structlog
from notifier.runtime.threads import start_lasting

class NoLogger:
    def msg(self, *_, **__):
        raise MemoryError
    error = msg

def fail():
    raise MemoryError

structlog.configure(processors=[], logger_factory=lambda *_: NoLogger())
start_lasting("failing", fail)
threading.Event().wait(20)
"""


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_work_is_begun_again_whatever_it_raises(error: type[BaseException]) -> None:
    begun = []

    def work() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise error

    thread = start_lasting("failing", work, pause=0)
    thread.join(10)
    assert not thread.is_alive()
    assert len(begun) == 3


def test_a_process_whose_thread_cannot_go_on_ends() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], timeout=30, check=False)
    assert done.returncode == EXIT_CODE
