"""Watches a system while it is broken: how long answers to GET take, what processes use, which were started again."""

import contextlib
import threading
import time
from typing import Any, Final, Self

import psutil
import requests

from tests.chaos.load import PATIENCE
from tests.chaos.system import System

_INTERVAL: Final = 0.5


class Watch:
    """A context in which two threads look, every half second."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._stop = threading.Event()
        #: Seconds of the longest answer to GET /ready and /health.
        self.longest = 0.0
        #: Process → peak of its memory in MiB, and of its descriptors.
        self.peaks: dict[str, tuple[float, int]] = {}
        #: (Unix time, process, MiB, descriptors, connections to Postgres).
        self.samples: list[tuple[float, str, float, int, int]] = []
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._ask, self._measure)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def _ask(self) -> None:
        while not self._stop.wait(_INTERVAL):
            for path in ("/ready", "/health"):
                began = time.monotonic()
                with contextlib.suppress(requests.RequestException):  # the API may have been killed: callers tell
                    try:
                        requests.get(self._system.url(path), timeout=PATIENCE)
                    finally:
                        self.longest = max(self.longest, time.monotonic() - began)

    def _measure(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._system.count_respawns()
            for name, process in self._system.processes().items():
                with contextlib.suppress(psutil.Error, OSError):
                    memory, descriptors = process.memory_info().rss / 2**20, process.num_fds()
                    most, widest = self.peaks.get(name, (0.0, 0))
                    self.peaks[name] = max(most, memory), max(widest, descriptors)
                    pairs = self._system.to_postgres.connections
                    self.samples.append((time.time(), name, memory, descriptors, pairs))
