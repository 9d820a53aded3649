"""The supervisor: starts processes in order, watches them, restarts crashed ones, and stops all at the end.

Each child is on record in a file. A supervisor that is killed outright leaves its children behind, and the next
one ends exactly those: see `stop_left_over`.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

import psutil

from deploy.child_process import KILL_TIMEOUT, POLL, Child, StartError, is_running, wait_until, write_private

#: Seconds between two looks at the children.
_INTERVAL: Final = 0.1
#: Seconds that count at the most between two looks.
_LONGEST_LOOK: Final = 1.0
#: Seconds of rest after an error of our own.
_PAUSE_BROKEN: Final = 1.0
#: Seconds until what could not be written is tried again.
_WRITE_AGAIN: Final = 1.0
#: psutil adds the boot time, which wobbles with the clock, to what the kernel knows exactly.
_START_TIME_TOLERANCE: Final = 1.0
#: Seconds that processes left by an earlier run have to stop by themselves.
_LEFT_OVER_TIMEOUT: Final = 10.0


class Stopped(Exception):
    """A signal asked the supervisor to stop."""


@dataclass(eq=False)
class _Watched:
    child: Child
    launched: float = field(default_factory=time.monotonic)
    crashes: int = 0
    again_at: float | None = None
    #: When its sign was touched last by the file's clock, and for how many seconds of ours it has not been since.
    touched: float | None = None
    silent_for: float = 0.0
    #: Whether it has touched its sign at all since it was launched: before, it may be waiting for Postgres.
    has_signed: bool = False

    def begin(self) -> None:
        """Note what its sign is before it is launched."""
        self.launched, self.again_at = time.monotonic(), None
        self.touched, self.silent_for, self.has_signed = _touched(self.child.sign), 0.0, False

    def look_at_sign(self, passed: float) -> None:
        """Note whether its sign was touched, `passed` seconds after the last look."""
        touched = _touched(self.child.sign)
        if touched == self.touched:
            self.silent_for += passed
        else:
            self.touched, self.silent_for, self.has_signed = touched, 0.0, True


def _touched(file: Path | None) -> float | None:
    try:
        return file.stat().st_mtime if file else None
    except OSError:
        return None


class Supervisor:
    """Starts children stage by stage, restarts those that crash, and stops the stages in reverse.

    The children of one stage start and stop side by side; a stage begins when the one before is ready. Used as
    a context manager in the main thread: it then answers SIGINT, SIGTERM and SIGHUP, and stops everything on
    the way out.
    """

    def __init__(
        self,
        records: Path,
        say: Callable[[str], None],
        *,
        pause: float = 1.0,
        longest_pause: float = 30.0,
        healthy_after: float = 60.0,
        silent_after: float = 60.0,
    ) -> None:
        """`silent_after`: seconds after which a child that no longer touches its sign is killed, and started again."""
        self._records = records
        self._say = say
        self._pause = pause
        self._longest_pause = longest_pause
        self._healthy_after = healthy_after
        self._silent_after = silent_after
        self._looked_at = time.monotonic()
        self._stages: list[list[_Watched]] = []
        self._signals = 0
        self._handlers: dict[signal.Signals, Any] = {}
        #: Files that could not be written yet, and those of which that was said.
        self._unwritten: dict[Path, str] = {}
        self._told_of: set[Path] = set()
        self._write_again_at = 0.0

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started by nohup: it is to survive its terminal
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Counted and no more: the handler may interrupt anything.
        self._signals += 1

    def start(self, *children: Child, remind: float = 60.0) -> None:
        """Start children side by side and wait until all are ready, however long that takes.

        After a crash a database may have much to recover, and a machine that is busy is no reason to stop what runs:
        one that is not ready is told of every `remind` seconds. Earlier children are watched meanwhile.
        Raises StartError where one ends, Stopped where a signal came; leaving the context stops what runs by then.
        """
        begun = time.monotonic()
        stage: list[_Watched] = []
        self._stages.append(stage)
        for child in children:
            watched = _Watched(child)
            watched.begin()
            child.launch()
            stage.append(watched)
            self._write_records()
        waiting, told = list(stage), begun
        while waiting:
            self._raise_if_stopped()
            for watched in list(waiting):
                if not watched.child.alive():
                    raise watched.child.start_error()
                if watched.child.is_ready():
                    self._say(watched.child.progress(time.monotonic() - begun))
                    waiting.remove(watched)
            if waiting and time.monotonic() - told > remind:
                told = time.monotonic()
                child = waiting[0].child
                self._say(
                    f"{child.name} is not ready after {told - begun:.0f} s, and is waited for; its log: {child.log}"
                )
            self._look_after_all(besides=waiting)
            time.sleep(POLL)

    def run(self, child: Child) -> None:
        """Run a child to its end. Raises StartError where it fails, Stopped where a signal came."""
        begun = time.monotonic()
        child.launch()
        stage = [_Watched(child)]
        self._stages.append(stage)
        self._write_records()
        while child.alive():
            self._raise_if_stopped()
            self._look_after_all(besides=stage)
            time.sleep(POLL)
        self._stages.pop()
        self._write_records()
        if child.exit_code != 0:
            raise child.start_error()
        self._say(f"{child.name} … {time.monotonic() - begun:.1f} s")

    def watch(self, seconds: float | None = None) -> None:
        """Restart crashed children, for some seconds or until a signal raises Stopped."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            self._raise_if_stopped()
            self._look_after_all()
            time.sleep(_INTERVAL)

    def _look_after_all(self, besides: Sequence[_Watched] = ()) -> None:
        """Check each child except some. Raises nothing: an error with one child does not affect the others."""
        # Where we were stopped ourselves, or could not run, our children may have been, too.
        passed = min(time.monotonic() - self._looked_at, _LONGEST_LOOK)
        self._looked_at = time.monotonic()
        for watched in [each for stage in self._stages for each in stage if each not in besides]:
            try:
                self._look_after(watched, passed)
            except Exception as error:
                self._say(f"{watched.child.name} cannot be looked after ({type(error).__name__}: {error})")
                time.sleep(_PAUSE_BROKEN)
        if self._unwritten and time.monotonic() >= self._write_again_at:
            self._write_all()

    def _raise_if_stopped(self) -> None:
        if self._signals:
            raise Stopped

    def _look_after(self, watched: _Watched, passed: float) -> None:
        child, now = watched.child, time.monotonic()
        if watched.again_at is None:
            if child.alive():
                self._end_if_silent(watched, passed)
                return
            child.sweep()  # what it started would stand beside what its successor starts
            if now - watched.launched >= self._healthy_after:
                watched.crashes = 0
            self._put_off(watched, child.how_it_ended())
        elif now >= watched.again_at:
            watched.begin()
            try:
                child.launch()
            except (StartError, OSError, psutil.Error) as error:
                self._put_off(watched, f"did not start again ({error})")
            self._write_records()

    def _end_if_silent(self, watched: _Watched, passed: float) -> None:
        """Kill a child that runs but gives no sign of life, so that it is restarted."""
        watched.look_at_sign(passed)
        if watched.has_signed and watched.silent_for >= self._silent_after:
            self._say(f"{watched.child.name} has given no sign of life for {watched.silent_for:.0f} s and is killed")
            watched.has_signed = False
            watched.child.kill()

    def _put_off(self, watched: _Watched, why: str) -> None:
        pause = min(self._pause * 2**watched.crashes, self._longest_pause)
        watched.crashes += 1
        watched.again_at = time.monotonic() + pause
        self._say(f"{watched.child.name} {why}; again in {pause:g} s; its log: {watched.child.log}")

    def stop(self) -> None:
        """Stop everything, the last stage first. A second signal kills what is left at once."""
        self._unwritten.clear()
        while self._stages:
            self._stop_stage([watched.child for watched in self._stages.pop()])
        self._write_records()

    def _stop_stage(self, children: Sequence[Child]) -> None:
        begun = time.monotonic()
        killed: set[Child] = set()
        for child in children:
            child.terminate()
        while running := [child for child in children if child.alive()]:
            waited = time.monotonic() - begun
            for child in running:
                if child not in killed and (self._signals > 1 or waited > child.stop_timeout):
                    self._say(f"{child.name} has not stopped after {waited:.0f} s and is killed")
                    child.kill()
                    killed.add(child)
            if killed.issuperset(running) and waited > max(c.stop_timeout for c in running) + KILL_TIMEOUT:
                self._say(f"{running[0].name} (pid {running[0].pid}) cannot be killed")
                break
            time.sleep(POLL)
        for child in children:
            child.sweep()

    def _write_records(self) -> None:
        records = [watched.child.record() for stage in self._stages for watched in stage]
        self.write(self._records, json.dumps([record for record in records if record], indent=1))

    def write(self, file: Path, text: str) -> None:
        """Write a private file, as soon as that is possible: at once, or while `watch` runs. Raises nothing.

        A full disk is no reason to stop what runs.
        """
        self._unwritten[file] = text
        self._write_all()

    def _write_all(self) -> None:
        for file, text in list(self._unwritten.items()):
            try:
                write_private(file, text)
            except OSError as error:
                if file not in self._told_of:
                    self._say(f"{file} cannot be written ({error.strerror}), which is tried again")
                self._told_of.add(file)
            else:
                del self._unwritten[file]
                self._told_of.discard(file)
        self._write_again_at = time.monotonic() + _WRITE_AGAIN


def stop_left_over(records: Path, say: Callable[[str], None], *, keep: frozenset[str] = frozenset()) -> None:
    """End the processes that a killed supervisor left behind, except those named by `keep`, which are adopted."""
    try:
        recorded = [record for record in json.loads(records.read_text()) if record["name"] not in keep]
    except (OSError, ValueError, KeyError, TypeError):
        return
    sessions = [(record, found) for record in recorded if (found := _session_of(record))]
    for record, session in sessions:
        say(f"{record['name']} (pid {record['pid']}) was left by a run that was killed: it is stopped")
        _send(session[:1], signal.Signals(record["stop_signal"]))
    leaders = [session[0] for record, session in sessions if session[0].pid == record["pid"]]
    wait_until(lambda: not any(map(is_running, leaders)), _LEFT_OVER_TIMEOUT)
    remaining = [process for record, session in sessions for process in (*session, *_session_of(record))]
    _send(remaining, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, remaining)), KILL_TIMEOUT)


def _session_of(record: Mapping[str, Any]) -> list[psutil.Process]:
    """Return the processes of a recorded child's session, the leader first; none if its id was reused.

    The leader is known by its number and its start time, and by leading a session at all. Its command line may
    have changed since (a command may replace itself by another), so that is on record for people only. Where
    the leader is gone its number stays taken as long as its session has members.
    """
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == record["pid"] and is_running(process):
                members.append(process)
    members.sort(key=lambda process: (process.pid != record["pid"], process.create_time()))
    if not members or members[0].create_time() < record["started"] - _START_TIME_TOLERANCE:
        return []
    leads = members[0].pid == record["pid"]
    if leads and members[0].create_time() > record["started"] + _START_TIME_TOLERANCE:
        return []
    return members


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
