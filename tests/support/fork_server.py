"""A process that has the product loaded, and forks one that runs manage.py whenever a test asks for it.

Four fifths of a worker's start are imports, and the tests start hundreds of processes. Such a process is a real one,
with a session, environment, signals and end of its own; it only finds its modules loaded. `manage.py up`, an API of
several processes and those whose environment sets up their interpreter start as users start them.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import psutil

from deploy.child_process import Child
from tests.support.paths import ROOT

#: None of them reads the environment as it is loaded, and none starts a thread.
_LOADED: Final = (
    *("celery.apps.beat", "celery.apps.worker", "celery.bin.worker", "celery.concurrency.thread"),
    *("celery.worker.components", "celery.worker.consumer", "kombu.transport.redis", "psycopg2", "pycurl", "redis"),
    *("jinja2", "msgspec", "orjson", "prometheus_client", "requests", "rich.progress", "rich.table", "structlog"),
    *("sqlalchemy.dialects.postgresql.psycopg2", "config.logs", "config.providers", "config.wiring"),
    *("deploy.commands.cli", "deploy.commands.group", "deploy.terminal", "notifier.delivery.batch", "notifier.models"),
    *("notifier.events.fan_out", "notifier.notifications.claims", "notifier.planning.plans"),
    *("notifier.providers.registry", "notifier.storage.retention", "notifier.observability.metrics"),
    *("api.app", "api.serving.server"),
)
#: A process whose environment differs in these from ours needs an interpreter of its own.
_INTERPRETER: Final = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
_UNBUFFERED: Final = "PYTHONUNBUFFERED"
_PATH: Final = "PYTHONPATH"
#: The answer to the number of a process, once it has been looked up: until then even one that ended keeps its number.
_SEEN: Final = b"."
#: Commands that end in another program, or keep children of their own.
_OWN_START: Final = frozenset({"flower", "up", "listen"})
#: glibc reads these variables when a process starts; mallopt takes the same by number.
_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_ARENA_MAX": -8}


class Forked:
    """A process of the fork server, with what tests and `Child` need of a `subprocess.Popen`."""

    def __init__(self, pid: int, end: int) -> None:
        self.pid = pid
        self.process = psutil.Process(pid)
        self.returncode: int | None = None
        self._end = end
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code. Raises subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("manage.py", timeout or 0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
                said = os.read(self._end, 16)
                os.close(self._end)
                self.returncode = int(said) if said else -signal.SIGKILL
            return self.returncode


class ForkServer:
    """The server, started at the first request. One at a time asks it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def takes(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Return whether it can run a command: one of this manage.py, in an interpreter like ours."""
        if command[:2] != [sys.executable, str(ROOT / "manage.py")] or set(command[2:3]) & _OWN_START:
            return False
        if "--processes" in command:
            return False
        return _interpreter_of(environment) == _interpreter_of(os.environ)

    def fork(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], cwd: Path, out: int, err: int
    ) -> Forked:
        """Have manage.py run with these arguments, writing to the descriptors `out` and `err`."""
        asked = {"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
        end, writing = os.pipe()
        with self._lock:
            server = self._started()
            body = json.dumps(asked).encode()
            socket.send_fds(server, [len(body).to_bytes(4)], [out, err, writing])
            server.sendall(body)
            os.close(writing)
            forked = Forked(int.from_bytes(_exactly(server, 4)), end)
            server.sendall(_SEEN)
            return forked

    def _started(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair()
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            theirs.close()
            self._socket = ours
            atexit.register(self._end)
        return self._socket

    def _end(self) -> None:
        assert self._socket is not None
        assert self._server is not None
        self._socket.close()
        self._server.wait()


def _interpreter_of(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_INTERPRETER) and name not in {_UNBUFFERED, _PATH}
    }


def _exactly(stream: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = stream.recv(size - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def _serve(stream: socket.socket) -> None:
    """Fork as asked, until nobody is left to ask; the children's ends are told through their pipes."""
    for module in _LOADED:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a thread would be lost in what is forked"
    gc.collect()
    gc.freeze()  # the pages of what is loaded stay shared
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pipes: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([stream, ended], [], [])
        if ended in ready:
            os.read(ended, 512)
            _tell_ends(pipes)
        if stream not in ready:
            continue
        size, descriptors, _, _ = socket.recv_fds(stream, 4, 3)
        if not size:
            return
        asked = json.loads(_exactly(stream, int.from_bytes(size)))
        begun, begin = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for descriptor in (begun, begin, ended, wake, *pipes.values()):
                os.close(descriptor)
            stream.close()
            _end_as(_run(asked, descriptors))
        os.close(begin)
        os.read(begun, 1)  # it ends once the child leads its group, by which a test may kill it at once
        os.close(begun)
        pipes[pid] = descriptors.pop()
        for descriptor in descriptors:
            os.close(descriptor)
        stream.sendall(pid.to_bytes(4))
        _exactly(stream, len(_SEEN))


def _tell_ends(pipes: dict[int, int]) -> None:
    for pid in list(pipes):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with contextlib.suppress(BrokenPipeError):
                os.write(pipes[pid], str(os.waitstatus_to_exitcode(status)).encode())
            os.close(pipes.pop(pid))


def _run(asked: dict[str, Any], descriptors: list[int]) -> int:
    """Be a process that has just been started with these arguments; returns the exit code."""
    try:
        _become(asked, descriptors)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end_as(code: int) -> NoReturn:
    """End as an interpreter does, but leave the memory to the kernel: to take down all that is loaded takes 0.3 s."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the end of an interpreter does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _become(asked: dict[str, Any], descriptors: list[int]) -> None:
    """Be a process that has just been started with these arguments. Returns where manage.py does not exit."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    out, err, end = descriptors
    os.close(end)  # it tells the end by being closed: nobody but the server may hold it
    os.dup2(out, 1)
    os.dup2(err, 2)
    for descriptor in (out, err):
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    buffering = 1 if os.environ.get(_UNBUFFERED) else -1
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.execv = _go_on_as
    # Behind the script's own folder, as an interpreter has it.
    sys.path[1:1] = [each for each in os.environ.get(_PATH, "").split(os.pathsep) if each and each not in sys.path]
    sys.argv = [str(ROOT / "manage.py"), *asked["arguments"]]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _go_on_as(program: str, command: Sequence[str]) -> NoReturn:
    """Do what `python -m MODULE` would, in this process, as its environment says by now."""
    _, _, module, *arguments = command
    for name, parameter in _MALLOC.items():
        if name in os.environ:
            ctypes.CDLL(None).mallopt(parameter, int(os.environ[name]))
    sys.argv = [program, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit


class ForkedChild(Child):
    """A child that the fork server starts, where it can."""

    def _spawn(self, **credentials: Any) -> None:
        environment = self.environment if self.environment is not None else os.environ
        if credentials or not FORK_SERVER.takes(self.command, environment):
            super()._spawn(**credentials)
            return
        with self._open_log() as log:
            forked = FORK_SERVER.fork(
                self.command[2:],
                environment=environment,
                cwd=self.cwd or Path.cwd(),
                out=log.fileno(),
                err=log.fileno(),
            )
        self._hold(forked.process, forked)  # type: ignore[arg-type]  # it has what Child needs of a Popen


#: The one of this process.
FORK_SERVER: Final = ForkServer()

if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
