"""Several processes on one listening socket: each that ends is started again, until all are told to end."""

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

#: The exit code of a process that cannot start: another would fare no better.
CANNOT_START: Final = 78
#: Seconds for requests under way when all are told to end: a bit longer than a process gives itself.
_GRACE: Final = 13.0
#: One that did not live longer is started again only after a pause.
_SHORT_LIFE: Final = 5.0
_PAUSE: Final = 1.0
_TICK: Final = 0.1


class _Processes:
    def __init__(self, serve: Callable[[int], None]) -> None:
        self._serve = serve
        #: Its reading end is at its end once this process is gone, however that came about.
        self._pipe = os.pipe()
        self.started: dict[int, float] = {}

    def start(self) -> None:
        """Start one more."""
        pid = os.fork()
        if pid:
            self.started[pid] = time.monotonic()
            return
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.close(self._pipe[1])
            self._serve(self._pipe[0])
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            os._exit(code)

    def ended(self) -> dict[int, int]:
        """Collect those that have ended: the exit code of each."""
        codes = {}
        for pid in list(self.started):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
        return codes

    def tell(self, number: signal.Signals) -> None:
        """Send all of them a signal."""
        for pid in self.started:
            os.kill(pid, number)


def serve_with(count: int, listener: socket.socket, serve: Callable[[int], None]) -> int:
    """Have so many processes serve until SIGTERM or SIGINT. Returns an exit code.

    `serve` is called in each, with a file descriptor that is at its end once this process is gone.
    """
    told = False

    def stop(*_: object) -> None:
        nonlocal told
        told = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    processes = _Processes(serve)
    code, pause_until = 0, 0.0
    while not told and code != CANNOT_START:
        while len(processes.started) < count and time.monotonic() >= pause_until:
            processes.start()
        time.sleep(_TICK)
        for pid, code in processes.ended().items():
            if time.monotonic() - processes.started.pop(pid) < _SHORT_LIFE:
                pause_until = time.monotonic() + _PAUSE
            if code == CANNOT_START:
                break
    listener.close()
    processes.tell(signal.SIGTERM)
    until = time.monotonic() + _GRACE
    while processes.started and time.monotonic() < until:
        for pid in processes.ended():
            del processes.started[pid]
        time.sleep(_TICK / 2)
    processes.tell(signal.SIGKILL)
    return 1 if code == CANNOT_START else 0
