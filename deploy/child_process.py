"""A child process: starts it, checks it and ends it. The supervisor and the embedded servers build on it.

Every child leads a session of its own. So Ctrl-C in the terminal reaches the supervisor alone, and whatever a
child has started itself (the API's processes, a Celery pool) can be killed with it, by its group.

Children are not tied to their parent's life by PR_SET_PDEATHSIG: it is bound to the thread that forked, is lost
where the user changes (Postgres under root), needs code between fork and exec, which is unsafe beside threads,
and exists on Linux only. A parent that is killed outright leaves them behind; the next start adopts or stops
them, from what is on record in the data folder.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import psutil

#: Seconds between two looks while something is about to happen.
POLL: Final = 0.02
#: Seconds that a killed process has to vanish. The kernel may hold one in a system call for longer.
KILL_TIMEOUT: Final = 5.0
#: A log larger than this is put aside when its process starts; one older log is kept.
_LARGEST_LOG: Final = 10 * 1024 * 1024
_LAST_LINES: Final = 20
#: A child writes files for its owner alone.
_UMASK: Final = 0o077


class StartError(Exception):
    """A part of the stack could not be started. The message says which, and why."""


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, so that a reader or a crash finds it whole or not at all.

    Raises OSError, and then the file is as it was.
    """
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def ensure_private(file: Path, text: str) -> None:
    """Write a private file unless it says that already: a full disk is then no reason to fail. Raises OSError."""
    with contextlib.suppress(OSError, ValueError):
        if file.read_text() == text:
            return
    write_private(file, text)


def is_running(process: psutil.Process) -> bool:
    """Return whether it is still the same process, and not a zombie (which nobody may ever reap in a container)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(true: Callable[[], bool], timeout: float) -> bool:
    """Wait for a condition; return False if it does not come true in time."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


class Child:
    """One process: its command, its log, and how to know that it is ready."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Callable[[], bool] | None = None,
        sign: Path | None = None,
        stop_timeout: float = 10.0,
    ) -> None:
        """`sign`: a file that it touches again and again, as long as it is well."""
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self.environment = environment
        self.cwd = cwd
        self.stop_timeout = stop_timeout
        self.stop_signal = signal.SIGTERM
        self.sign = sign
        self._ready = ready
        self._process: psutil.Process | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        self._log_begins = 0

    def progress(self, seconds: float) -> str:
        """Return the line that announces its start."""
        return f"{self.name} … {seconds:.1f} s" if self._ready else f"{self.name} started"

    @property
    def pid(self) -> int | None:
        """Return the id of the process that runs, or ran last."""
        return self._process.pid if self._process else None

    def launch(self) -> None:
        """Start the process and return at once. Raises StartError."""
        self._spawn()

    def _spawn(self, **credentials: Any) -> None:  # noqa: ANN401 -- Popen's user and group
        try:
            with self._open_log() as log:
                popen = subprocess.Popen(  # noqa: S603 -- our own command, no shell
                    self.command,
                    cwd=self.cwd,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=_UMASK,
                    **credentials,
                )
            self._hold(psutil.Process(popen.pid), popen)
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"{self.name} cannot be started: {error}") from error

    def _open_log(self) -> BinaryIO:
        """Open its log; on a full disk open nothing instead, since running matters more than logging."""
        try:
            self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
                self.log.replace(self.log.with_name(f"{self.log.name}.1"))
            log = os.fdopen(os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
        except OSError:
            self._log_begins = sys.maxsize
            return Path(os.devnull).open("ab")
        self._log_begins = log.tell()
        return log

    def _hold(self, process: psutil.Process, popen: subprocess.Popen[bytes] | None = None) -> None:
        # One that was adopted is not our child: its exit code goes to another.
        self._process, self._popen, self._group = process, popen, process.pid

    def alive(self) -> bool:
        """Return whether the process runs."""
        if self._popen is not None:
            return self._popen.poll() is None
        return self._process is not None and is_running(self._process)

    def is_ready(self) -> bool:
        """Return whether it is ready; without a check of its own, whether it runs."""
        return self._ready() if self._ready else self.alive()

    @property
    def exit_code(self) -> int | None:
        """Return its exit code, negative for a signal; None if it runs or was not our child."""
        return self._popen.poll() if self._popen else None

    def how_it_ended(self) -> str:
        """Say how it ended, such as `ended with code 1`."""
        code = self.exit_code
        if code is None:
            return "ended"
        return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def output(self) -> str:
        """Return the last lines that this run of the process wrote."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(self._log_begins)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-_LAST_LINES:])
        return ""

    def start(self, timeout: float = 60.0) -> None:
        """Start the process and wait until it is ready. Raises StartError, and then nothing is left running."""
        if self.alive():
            return
        self.launch()
        if not wait_until(lambda: not self.alive() or self.is_ready(), timeout):
            self.stop()
            raise StartError(f"{self.name} was not ready within {timeout:g} s; its log: {self.log}")
        if not self.alive():
            raise self.start_error()

    def start_error(self) -> StartError:
        """Return the error of a process that ended too early or badly, with the end of its output."""
        return StartError(f"{self.name} {self.how_it_ended()}; its log: {self.log}\n{self.output()}")

    def stop(self) -> None:
        """Ask the process to end, kill it where it does not, and wait until it is gone."""
        self.terminate()
        if not wait_until(lambda: not self.alive(), self.stop_timeout):
            self.kill()
            wait_until(lambda: not self.alive(), KILL_TIMEOUT)
        self.sweep()

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process and self.alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(self.stop_signal)

    def kill(self) -> None:
        """End the process at once, with everything in its group."""
        if self._group is not None:
            # macOS answers EPERM for a group of zombies.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)

    def sweep(self) -> None:
        """Kill what an ended process left behind in its group.

        To be done soon after its end, and it is done once. The number of a group that has members is not given
        to another process; one without members is free, but numbers are handed out in turn.
        """
        if not self.alive():
            Child.kill(self)
            self._group = None

    def record(self) -> dict[str, Any] | None:
        """Return the record by which a later supervisor recognises the process; None if it is gone."""
        if not self._process or not self.alive():
            return None
        try:
            started = self._process.create_time()
        except psutil.NoSuchProcess:
            return None
        return {
            "name": self.name,
            "pid": self._process.pid,
            "started": started,
            "argv": self.command,
            "stop_signal": int(self.stop_signal),
        }
