"""Stacks with several API processes and workers, and how quickly workers empty a backlog, for `benchmarks.growth`."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import requests

from benchmarks.client import post
from benchmarks.stack import ROOT, answers, bench_folder, granian, pids_of, settings_of, stack
from benchmarks.waits import Waits
from config.settings import STACK_FILE
from deploy.child_process import Child, wait_until
from deploy.ports import free_port

_START: Final = 120.0
_DRAIN: Final = 300.0
#: Numbers of the backlog begin here.
_BACKLOG: Final = 10_000_000
#: How a backlog is posted.
BATCHES: Final[dict[str, Any]] = {"seconds": 600, "connections": 4, "batch": 500}


@contextlib.contextmanager
def stack_of(workers: int | None = None, kept: Path | None = None) -> Iterator[tuple[Path, str, str]]:
    """A stack with so many fresh workers, all ready, and a receiver; gives the folder and both addresses.

    None: as many as a stack has, and a temporary folder.
    """
    options = () if workers is None else ("--workers", str(workers))
    with (
        bench_folder(kept) as folder,
        granian(folder, "rsgi", "benchmarks.receiver:app") as receiver,
        stack(folder, *options) as url,
    ):
        # Each touches its sign once it takes messages. The stack writes down its settings after all else.
        signs = [folder / "data" / name for name in (*(f"{each}.alive" for each in fresh_workers(folder)), STACK_FILE)]
        if not wait_until(lambda: all(sign.exists() for sign in signs), _START):
            raise SystemExit((folder / "up.log").read_text())
        yield folder, url, receiver


def fresh_workers(folder: Path) -> dict[str, int]:
    """Return the process ids of a stack's fresh workers, by their names."""
    return {name: pid for name, pid in pids_of(folder).items() if name.startswith("worker-fresh")}


@contextlib.contextmanager
def further_apis(folder: Path, number: int) -> Iterator[list[tuple[str, int]]]:
    """Further API processes of a stack; gives their addresses and process ids."""
    environment = {**os.environ, **settings_of(folder), "NOTIFIER_DATA_DIR": os.devnull}
    found = []
    with contextlib.ExitStack() as running:
        for _ in range(number):
            port = free_port()
            url, name = f"http://127.0.0.1:{port}", f"api-{port}"
            command = [sys.executable, "manage.py", "api", "--port", str(port)]
            ready, log = partial(answers, f"{url}/ready"), folder / f"{name}.log"
            child = Child(name, command, log=log, environment=environment, cwd=ROOT, ready=ready)
            running.callback(child.stop)
            child.start()
            found.append((url, child.pid or 0))
        yield found


def count(receiver: str) -> int:
    """Return how many different events have come."""
    return int(requests.get(receiver, timeout=60).json()["count"])


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stop processes for the length of a context."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def drained(workers: int, rows: int) -> dict[str, Any]:
    """How so many workers empty one backlog, which was posted while none of them ran."""
    with stack_of(workers) as (folder, url, receiver):
        hook, batches = f"{receiver}/hook", f"{url}/api/v1/events/batch"
        warm = post(batches, hook, most=500 * workers, **BATCHES).accepted
        wait_until(lambda: count(receiver) >= warm, _DRAIN)
        waits = Waits(settings_of(folder)["NOTIFIER_ADMIN_DATABASE_URL"])
        # Stopped for less than the minute after which their supervisor takes them for dead.
        with stopped(list(fresh_workers(folder).values())):
            accepted = post(batches, hook, most=rows, first=_BACKLOG, **BATCHES).accepted
            psutil.cpu_percent()
        began = time.time()
        with waits:
            wait_until(lambda: count(receiver) >= warm + accepted, _DRAIN)
        busy = psutil.cpu_percent() / 100
        answer = requests.get(f"{receiver}/all", timeout=60).json()
        took = sorted(at - began for number, at in answer["arrived"].items() if int(number) >= _BACKLOG)
        return {
            "delivered": len(took) / took[-1],
            "first_after": took[0],
            "last_after": took[-1],
            "lost": accepted - len(took),
            "duplicates": answer["requests"] - answer["count"],
            "machine_busy": busy,
            "waits": waits.found(),
        }
