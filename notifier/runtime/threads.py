"""Supervised threads: a thread that the process needs is restarted when its work raises, or the process ends.

A thread that dies does so silently: the process looks healthy and does only half of its work. A process that ends is
started again, by `manage.py up` or the container.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from notifier.runtime.isolation import kind_of

log = structlog.get_logger()

#: Seconds until work that failed is begun again.
PAUSE: Final = 1.0
#: The exit code of a process that one of its threads has ended: EX_SOFTWARE of sysexits.h.
EXIT_CODE: Final = 70


def start_lasting(name: str, work: Callable[[], None], *, pause: float = PAUSE) -> threading.Thread:
    """Start a daemon thread that does `work` until it returns, and begins it again `pause` seconds after it raises.

    Where not even that is possible (no memory for it), the process ends at once with EXIT_CODE.
    """
    thread = threading.Thread(target=_run, args=(name, work, pause), name=name, daemon=True)
    thread.start()
    return thread


def _run(name: str, work: Callable[[], None], pause: float) -> None:
    is_done = False
    try:
        while not is_done:
            try:
                work()
                is_done = True
            except BaseException as error:
                log.exception("thread_failed", thread=name, error=kind_of(error))
                time.sleep(pause)
    finally:
        if not is_done:
            end_process()


def end_process() -> None:
    """End this process at once, whatever its threads are at. Rows in their hands come back by their leases."""
    os._exit(EXIT_CODE)
