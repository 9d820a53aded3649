"""HTTP servers behind one interface, compared: python -m benchmarks.servers [--seconds 3] [--rounds 3] [NAME…].

Each serves the bare view of benchmarks.ceiling with 64 threads. Servers that are not installed are left out.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final

import psutil
import requests
from rich.console import Console
from rich.table import Table

from benchmarks.client import post
from benchmarks.stack import ROOT, THREADS
from deploy.child_process import wait_until
from deploy.ports import free_port

_VIEW: Final = "benchmarks.ceiling:app"
_PATH: Final = "/api/v1/events"
#: Each one's module, and its arguments but for the port.
SERVERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "ours": ("benchmarks.ceiling", ("--port={port}",)),
    "granian": (
        "granian",
        *(("--interface", "wsgi", "--http", "1", "--no-ws", "--blocking-threads", THREADS, "--port={port}", _VIEW),),
    ),
    "gunicorn": ("gunicorn", ("--worker-class", "gthread", "--threads", THREADS, "--bind=127.0.0.1:{port}", _VIEW)),
    "waitress": ("waitress", ("--threads", THREADS, "--listen=127.0.0.1:{port}", _VIEW)),
    "uvicorn": ("uvicorn", ("--port={port}", "--no-access-log", "--log-level=error", "benchmarks.uvicorn_app:app")),
}


@dataclass
class Figures:
    """The measurements of one server."""

    rates: list[float] = field(default_factory=list)
    #: Microseconds of its processes' CPU for each request.
    cpu: list[float] = field(default_factory=list)
    #: Seconds until others were answered while 100 bodies were unfinished; infinite where they were not.
    held_up: float = 0.0
    #: MB that it took in of one endless body, and how much it grew by that.
    taken: float = 0.0
    grown: float = 0.0


@contextlib.contextmanager
def serving(name: str) -> Iterator[tuple[psutil.Process, int]]:
    """One server; gives its first process and its port."""
    module, arguments = SERVERS[name]
    port = free_port()
    command = [sys.executable, "-m", module, *(each.format(port=port) for each in arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not wait_until(lambda: _answer(port) < 60, 30):
            raise SystemExit(f"{name} does not answer")
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()


def _answer(port: int) -> float:
    """Return how long an answer takes to a request of its own connection."""
    began = time.monotonic()
    try:
        requests.post(f"http://127.0.0.1:{port}{_PATH}", json={"event_type": "x"}, timeout=5)
    except requests.RequestException:
        return float("inf")
    return time.monotonic() - began


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu(process: psutil.Process) -> float:
    return sum(each.cpu_times().user + each.cpu_times().system for each in _tree(process))


def _rss(process: psutil.Process) -> float:
    return sum(each.memory_info().rss for each in _tree(process)) / 1e6


def _head(port: int, framing: str) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", port), 3)
    raw.sendall(f"POST {_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode())
    return raw


def measure_speed(name: str, seconds: float, connections: int, into: Figures) -> None:
    """Measure requests a second, and their CPU."""
    with serving(name) as (process, port):
        url = f"http://127.0.0.1:{port}{_PATH}"
        post(url, "http://127.0.0.1:9/x", seconds=1, connections=connections)
        before = _cpu(process)
        load = post(url, "http://127.0.0.1:9/x", seconds=seconds, connections=connections)
        into.cpu.append((_cpu(process) - before) / max(1, load.accepted) * 1e6)
        into.rates.append(load.rate)


def measure_safety(name: str, into: Figures) -> None:
    """Measure what unfinished bodies and an endless one do."""
    with serving(name) as (process, port):
        before = _rss(process)
        with contextlib.suppress(OSError), contextlib.closing(_head(port, "Transfer-Encoding: chunked")) as raw:
            piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
            while into.taken < 100:
                raw.sendall(piece)
                into.taken += len(piece) / 1e6
        into.grown = _rss(process) - before
    with serving(name) as (process, port), contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(contextlib.closing(_head(port, "Content-Length: 1000")))
        time.sleep(1)  # until threads have begun to wait for them
        into.held_up = _answer(port)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SERVERS))
    options = parser.parse_args()
    names = [name for name in options.names or SERVERS if find_spec(SERVERS[name][0].partition(".")[0])]
    figures = {name: Figures() for name in names}
    for _ in range(options.rounds):  # in turns: others may use the machine
        for name in names:
            measure_speed(name, options.seconds, options.connections, figures[name])
    for name in names:
        measure_safety(name, figures[name])
    table = Table("", title="64 threads, a view that does nothing", title_justify="left")
    for column in ("requests/s", "CPU µs", "others, 100 unfinished bodies", "endless body: taken MB", "grown MB"):
        table.add_column(column, justify="right")
    for name, found in figures.items():
        table.add_row(
            name,
            f"{statistics.median(found.rates):,.0f}",
            f"{statistics.median(found.cpu):,.0f}",
            f"{found.held_up * 1000:,.0f} ms" if found.held_up < 60 else "no answer",
            f"{found.taken:,.1f}",
            f"{found.grown:,.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
