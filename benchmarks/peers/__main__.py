"""`python -m benchmarks.peers`: ours beside small programs of other shapes, in one run on one machine."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.main_path import measure_load
from benchmarks.output import show
from benchmarks.processor_time import descendants, seconds_of_descendants
from benchmarks.stack import ROOT, answers, granian, stack
from deploy.child_process import Child
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from deploy.ports import free_port

_NODE: Final = Path(__file__).parent / "bullmq"
_RATE: Final = 100
_WARM_SECONDS: Final = 2.0


@contextlib.contextmanager
def _running(*children: Child) -> Iterator[None]:
    with contextlib.ExitStack() as running:
        for child in children:
            running.callback(child.stop)
            child.start()
        yield


def _child(name: str, command: list[str], folder: Path, environment: dict[str, str], url: str | None = None) -> Child:
    ready = (lambda: answers(f"{url}/x")) if url else None
    return Child(name, command, log=folder / f"{name}.log", environment=environment, cwd=ROOT, ready=ready)


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[dict[str, str]]:
    """A Postgres and a Valkey as our own stack has them; gives an environment with their URLs."""
    postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder / "valkey")
    with contextlib.ExitStack() as running:
        for server in (postgres, valkey):
            running.callback(server.stop)
            server.start()
        postgres.create_database("peer")
        yield {**os.environ, "DATABASE_URL": postgres.url("peer"), "REDIS_URL": valkey.url}


@contextlib.contextmanager
def _textbook(folder: Path) -> Iterator[str]:
    port = free_port()
    url, module = f"http://127.0.0.1:{port}", "benchmarks.peers.textbook"
    with _servers(folder) as environment:
        subprocess.run([sys.executable, "-m", module], env=environment, cwd=ROOT, check=True)
        web = ["granian", "--interface", "wsgi", "--no-ws", "--workers", "2", "--blocking-threads", "8"]
        serve = [sys.executable, "-m", *web, "--port", str(port), f"{module}:web"]
        celery = [sys.executable, "-m", "celery", "--app", f"{module}:queue", "worker", "--concurrency", "4"]
        with _running(_child("worker", celery, folder, environment), _child("web", serve, folder, environment, url)):
            yield url


@contextlib.contextmanager
def _bullmq(folder: Path) -> Iterator[str]:
    port = free_port()
    url, code = f"http://127.0.0.1:{port}", folder / "bullmq"
    shutil.copytree(_NODE, code, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=code, check=True)
    with _servers(folder) as environment:
        serve = ["node", str(code / "server.js"), str(port)]
        worker = ["node", str(code / "worker.js")]
        with _running(_child("web", serve, folder, environment, url), _child("worker", worker, folder, environment)):
            yield url


_PEERS: Final[dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]]] = {
    "ours": stack,
    "bullmq": _bullmq,
    "textbook": _textbook,
}


def measure(name: str, seconds: float, connections: int) -> dict[str, Any]:
    """Every figure of one peer."""
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as made:
        folder = Path(made)
        folder.chmod(0o711)
        with granian(folder, "rsgi", "benchmarks.receiver:app") as receiver:
            besides = descendants()
            with _PEERS[name](folder) as url:
                events = f"{url}/api/v1/events"
                measure_load(events, receiver, seconds=_WARM_SECONDS, connections=connections)
                before = seconds_of_descendants(besides)
                full = measure_load(events, receiver, seconds=seconds, connections=connections)
                between = seconds_of_descendants(besides)
                calm = measure_load(events, receiver, seconds=seconds, connections=connections, rate=_RATE)
                after = seconds_of_descendants(besides)
    return {
        "full": {**full, "cpu_ms": (between - before) / full["arrived"] * 1000},
        "calm": {**calm, "cpu_ms": (after - between) / calm["arrived"] * 1000},
    }


def _table(figures: dict[str, dict[str, Any]]) -> Table:
    table = Table("")
    columns = (
        "accepted/s",
        "delivered/s",
        "ours ×",
        "CPU ms each",
        "p99 ms",
        "at 100/s: p50 ms",
        "p99 ms",
        "CPU ms each",
    )
    for column in (*columns, "lost"):
        table.add_column(column, justify="right")
    ours = figures.get("ours", {}).get("full", {}).get("end_to_end")
    for name, each in figures.items():
        full, calm = each["full"], each["calm"]
        table.add_row(
            name,
            *(f"{full['ingest']:,.0f}", f"{full['end_to_end']:,.0f}"),
            f"{ours / full['end_to_end']:.2f}" if ours else "",
            *(f"{full['cpu_ms']:.2f}", f"{full['p99']:,.0f}"),
            *(f"{calm['p50']:.1f}", f"{calm['p99']:.1f}", f"{calm['cpu_ms']:.2f}", str(full["lost"] + calm["lost"])),
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[[], *_PEERS], help="which [all that can run here]")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    names = options.name or [each for each in _PEERS if each != "bullmq" or shutil.which("npm")]
    figures = {name: measure(name, options.seconds, options.connections) for name in names}
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
