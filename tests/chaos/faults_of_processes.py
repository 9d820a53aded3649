"""Faults of our own processes: killed, stopped, restarted in turn, away."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from tests.chaos.faults import NotHere, Spell, fault, full
from tests.chaos.receivers import Arrival
from tests.chaos.system import signal_group, until
from tests.support.running import wait_for

#: Seconds for a beat or the API to start, which sign nowhere: they are no time of the fault's.
_START: Final = 10.0
#: A text that only fan-out sends to Postgres.
_FAN_OUT: Final = b"UPDATE events SET status = 'processed'"
#: A text that only intake sends.
_INTAKE: Final = b"INSERT INTO idempotency_keys"


def _kill(spell: Spell, name: str) -> None:
    """Kill one of the supervisor's children, and wait until it was started again."""
    pid = spell.system.pid(name)
    spell.note_kill()
    signal_group(pid, signal.SIGKILL)
    _back(spell, name, pid)


def _back(spell: Spell, name: str, before: int) -> None:
    """Wait until a process runs under another number, and until it has signed that it works where it is a worker.

    So the fault is over when the process is there again, however long a busy machine takes to start it.
    """
    began = time.time()
    wait_for(lambda: spell.system.processes().get(name) and spell.system.pid(name) != before, 60, f"{name} again")
    if name.startswith("worker-"):
        signed = "SELECT count(*) FROM heartbeats WHERE name LIKE :name AND seen_at > to_timestamp(:began)"
        node = f"{name.removeprefix('worker-')}-{spell.system.port}@%"
        assert until(lambda: spell.system.sql(signed, name=node, began=began)[0][0] > 0, 60), f"{name} does not sign"


@fault("kill-worker", seconds=0, short=0, doubles=True, resumes=_START)
def kill_worker(spell: Spell) -> None:
    """SIGKILL of the worker that sends, wherever it is."""
    _kill(spell, "worker-fresh")


@fault("kill-worker-sending", seconds=0, doubles=True, resumes=_START)
def kill_worker_sending(spell: Spell) -> None:
    """SIGKILL of the worker the moment a receiver has answered: sent, and not recorded."""
    pid = spell.system.pid("worker-fresh")
    done = threading.Event()

    def then(_: Arrival) -> None:
        if not done.is_set():
            spell.note_kill()
            signal_group(pid, signal.SIGKILL)
            done.set()

    spell.system.arrivals.then = then
    done.wait(20)
    spell.system.arrivals.then = None
    _back(spell, "worker-fresh", pid)


@fault("kill-worker-retry", seconds=0, doubles=True, resumes=_START)
def kill_retry(spell: Spell) -> None:
    """SIGKILL of the worker that retries."""
    _kill(spell, "worker-retry")


@fault("kill-clock", seconds=0, doubles=True, resumes=_START)
def kill_clock(spell: Spell) -> None:
    """SIGKILL of the worker that does the clock's work."""
    _kill(spell, "worker-clock")


@fault("kill-api", seconds=0, short=0, resumes=_START)
def kill_api(spell: Spell) -> None:
    """SIGKILL of the API the moment it has sent a group to Postgres."""
    _kill_when_sent(spell, "api", _INTAKE)


@fault("kill-fan-out", seconds=0, doubles=True, resumes=_START)
def kill_fan_out(spell: Spell) -> None:
    """SIGKILL of the worker in the middle of a fan-out."""
    _kill_when_sent(spell, "worker-fresh", _FAN_OUT)


def _kill_when_sent(spell: Spell, name: str, statement: bytes) -> None:
    pid = spell.system.pid(name)
    done = threading.Event()

    def act() -> None:
        spell.note_kill()
        signal_group(pid, signal.SIGKILL)
        done.set()

    spell.system.to_postgres.when_sent(statement, act)
    if not done.wait(15):  # in a mix Postgres may be away
        act()
    _back(spell, name, pid)


@fault("kill-beats", seconds=0)
def kill_beats(spell: Spell) -> None:
    """SIGKILL of both beats."""
    pid = spell.system.pid("beat")
    for each in (pid, spell.system.pid("beat-2")):
        signal_group(each, signal.SIGKILL)
    wait_for(lambda: not spell.system.second_beat.alive(), 10, "a dead beat")
    spell.system.second_beat.launch()
    _back(spell, "beat", pid)


@fault("kill-supervisor", seconds=3, short=3, doubles=True, mixes=False)
def kill_supervisor(spell: Spell) -> None:
    """SIGKILL of the supervisor alone, which is started again some seconds later."""
    # The next one ends what this one left, as a SIGTERM does and, after some seconds, a SIGKILL.
    spell.note_kill()
    os.kill(spell.system.up.pid or 0, signal.SIGKILL)
    wait_for(lambda: not spell.system.up.alive(), 10, "a dead supervisor")
    spell.wait()
    spell.system.up.launch()
    spell.system.wait_until_ready()


@fault("kill-everything", seconds=0, doubles=True, mixes=False, resumes=_START)
def kill_everything(spell: Spell) -> None:
    """SIGKILL of the supervisor and all that it started, as a host does that goes down."""
    processes = spell.system.processes()
    spell.note_kill()
    os.kill(spell.system.up.pid or 0, signal.SIGKILL)
    for name, process in processes.items():
        if name not in {"postgres", "valkey"}:
            signal_group(process.pid, signal.SIGKILL)
    wait_for(lambda: not spell.system.up.alive() and not spell.system.second_beat.alive(), 10, "dead processes")
    spell.system.up.launch()
    spell.system.second_beat.launch()
    spell.system.wait_until_ready()


@fault("stop-worker", seconds=25, doubles=True, mixes=False)
def stop_worker(spell: Spell) -> None:
    """SIGSTOP of the worker that sends, for longer than its leases last."""
    _stopped(spell, "worker-fresh")


@fault("stop-clock", seconds=20, mixes=False)
def stop_clock(spell: Spell) -> None:
    """SIGSTOP of the clock's worker."""
    _stopped(spell, "worker-clock")


@fault("stop-api", seconds=6, mixes=False)
def stop_api(spell: Spell) -> None:
    """SIGSTOP of the API for less than callers wait."""
    _stopped(spell, "api")


def _stopped(spell: Spell, name: str) -> None:
    pid = spell.system.pid(name)
    spell.note_kill()
    signal_group(pid, signal.SIGSTOP)
    spell.wait()
    signal_group(pid, signal.SIGCONT)


@fault("workers-away", seconds=600, doubles=True, resumes=20.0, mixes=False)
def workers_away(spell: Spell) -> None:
    """No worker at all for ten minutes, as in a deploy that hangs: nobody starts them again."""
    up = spell.system.up.pid or 0
    spell.note_kill()
    os.kill(up, signal.SIGSTOP)
    for name in ("worker-fresh", "worker-retry"):
        signal_group(spell.system.pid(name), signal.SIGKILL)
    spell.wait()
    os.kill(up, signal.SIGCONT)


@fault("rolling-restart", seconds=0, resumes=_START, mixes=False)
def rolling_restart(spell: Spell) -> None:
    """SIGTERM of each process in turn, each when the one before is back."""
    for name in ("worker-fresh", "worker-retry", "worker-clock", "beat", "api"):
        pid = spell.system.pid(name)
        os.kill(pid, signal.SIGTERM)
        _back(spell, name, pid)
        spell.wait(3)


@fault("disk-full", seconds=10, disk="data", doubles=True, resumes=_START)
def disk_full(spell: Spell) -> None:
    """The disk that the supervisor and all processes write their logs to is full, and a worker is killed meanwhile."""
    with full(spell.system.data):
        pid = spell.system.pid("worker-fresh")
        spell.note_kill()
        signal_group(pid, signal.SIGKILL)
        spell.wait()
    _back(spell, "worker-fresh", pid)


_SKEW: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long shift(void) { const char *s = getenv("SKEW"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    if (!r && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += shift();
    return r;
}
time_t time(time_t *out) {
    struct timespec t; clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
"""


@fault("skewed-clocks", seconds=20, mixes=False)
def skewed_clocks(spell: Spell) -> None:
    """A second machine whose clock is 30 s ahead, then one that is 30 s behind, with workers and a beat of its own."""
    library = _skew_library(spell.system.folder)
    for skew in ("30", "-30"):
        settings = {"LD_PRELOAD": str(library), "SKEW": skew}
        children = [
            spell.system.beside(
                f"skewed-{role}{skew}", "worker", role, "--name", f"skewed-{role}{skew}", settings=settings
            )
            for role in ("fresh", "clock")
        ]
        children.append(spell.system.beside(f"skewed-beat{skew}", "beat", settings=settings))
        for child in children:
            child.launch()
        spell.wait(spell.seconds / 2)
        for child in children:
            assert child.alive(), child.output()
        for child in children:
            child.stop()


def _skew_library(folder: Path) -> Path:
    """A library that shifts the wall clock of the processes that load it. Raises NotHere without a C compiler."""
    if not shutil.which("cc"):
        raise NotHere("there is no C compiler (cc)")
    library = folder / "skew.so"
    if not library.exists():
        (folder / "skew.c").write_text(_SKEW)
        command = ["cc", "-shared", "-fPIC", "-o", str(library), str(folder / "skew.c"), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
    return library
