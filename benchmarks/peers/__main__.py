"""`python -m benchmarks.peers`: ours beside small programs of other shapes, in one run on one machine."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.main_path import measure_load
from benchmarks.output import show
from benchmarks.processor_time import descendants, seconds_of_descendants
from benchmarks.stack import ROOT, answers, bench_folder, granian, stack
from deploy.child_process import Child
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from deploy.ports import free_port

_NODE: Final = Path(__file__).parent / "bullmq"
_RATE: Final = 100
_WARM_SECONDS: Final = 2.0
#: Events in batches of 500, and those of the bare limit.
_BATCHED: Final = 40_000


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
#: The peer that is no service.
_LIMIT: Final = "limit"


def measure(name: str, seconds: float, connections: int) -> dict[str, Any]:
    """Every figure of one peer, by the kinds of load that it takes: `full`, `calm` and `batch`."""
    with bench_folder() as folder, granian(folder, "rsgi", "benchmarks.receiver:app") as receiver:
        if name == _LIMIT:
            return {"batch": _measure_limit(folder, receiver)}
        besides = descendants()
        with _PEERS[name](folder) as url:
            events = f"{url}/api/v1/events"
            loads: dict[str, tuple[str, dict[str, Any]]] = {
                "full": (events, {"seconds": seconds, "connections": connections}),
                "calm": (events, {"seconds": seconds, "connections": connections, "rate": _RATE}),
            }
            if name == "ours":
                whole = {"seconds": 60, "connections": 4, "batch": 500, "most": _BATCHED}
                loads["batch"] = (f"{events}/batch", whole)
            measure_load(events, receiver, seconds=_WARM_SECONDS, connections=connections)
            return {kind: _measured(besides, target, receiver, how) for kind, (target, how) in loads.items()}


def _measured(besides: frozenset[int], url: str, receiver: str, how: dict[str, Any]) -> dict[str, Any]:
    before = seconds_of_descendants(besides)
    figures = measure_load(url, receiver, **how)
    return {**figures, "cpu_ms": (seconds_of_descendants(besides) - before) / figures["arrived"] * 1000}


def _measure_limit(folder: Path, receiver: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.peers.limit", f"{receiver}/hook", str(_BATCHED)]
    with _servers(folder) as environment:
        done = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    printed = json.loads(done.stdout)
    return {"ingest": printed["accepted"], "end_to_end": printed["delivered"]}


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
        "lost",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for name, each in figures.items():
        if "full" in each:
            calm = each["calm"]
            at_100 = (f"{calm['p50']:.1f}", f"{calm['p99']:.1f}", f"{calm['cpu_ms']:.2f}", str(calm["lost"]))
            table.add_row(name, *_rates(figures, name, "full"), *at_100)
        if "batch" in each:
            table.add_row(f"{name}, 500 at once", *_rates(figures, name, "batch"))
    return table


def _rates(figures: dict[str, dict[str, Any]], name: str, kind: str) -> Iterator[str]:
    load = figures[name][kind]
    ours = figures.get("ours", {}).get(kind, {}).get("end_to_end")
    yield from (f"{load['ingest']:,.0f}", f"{load['end_to_end']:,.0f}")
    yield f"{ours / load['end_to_end']:.2f}" if ours else ""
    yield from (f"{load[key]:,.{digits}f}" if key in load else "" for key, digits in (("cpu_ms", 2), ("p99", 0)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[[], *_PEERS, _LIMIT], help="which [all that can run here]")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    names = options.name or [each for each in (*_PEERS, _LIMIT) if each != "bullmq" or shutil.which("npm")]
    figures = {name: measure(name, options.seconds, options.connections) for name in names}
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
