"""Ingest alone, with and without its database: python -m benchmarks.ingest [--rounds 3] [--seconds 8] [--json].

No worker runs. The yardstick is the same API answering without its database (benchmarks.no_database): the ratio says
what share of the most that the application can accept is left once every event is committed to Postgres.
"""

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil
import redis
from rich.table import Table
from sqlalchemy import Engine

from benchmarks.client import post
from benchmarks.output import show
from benchmarks.processor_time import seconds_of
from benchmarks.stack import ROOT, answers, bench_folder, servers
from deploy.child_process import Child
from deploy.ports import free_port
from notifier.security.webhook_signatures import new_secret

_WARM_SECONDS: Final = 2.0
#: Nothing is sent there.
_RECIPIENT: Final = "http://127.0.0.1:9/hook"
#: Nothing listens there, so that an API that asks its database all the same would fail.
_NO_DATABASE: Final = "postgresql://nobody@127.0.0.1:9/none"
_TITLES: Final = {"ours": "with Postgres", "no_database": "without its database"}


@dataclass(frozen=True)
class _Api:
    url: str
    process: psutil.Process


@contextlib.contextmanager
def _api(folder: Path, name: str, command: list[str], environment: Mapping[str, str]) -> Iterator[_Api]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    child = Child(
        name,
        [sys.executable, *command, "--port", str(port)],
        log=folder / f"{name}.log",
        environment=environment,
        cwd=ROOT,
        ready=lambda: answers(f"{url}/x"),
    )
    try:
        child.start()
        yield _Api(url, psutil.Process(child.pid))
    finally:
        child.stop()


def _environment(engine: Engine, valkey: redis.Redis) -> dict[str, str]:
    """Return the environment of an API on these servers, with the defaults that `manage.py up` has."""
    where = valkey.get_connection_kwargs()
    return {
        **os.environ,
        "DATABASE_URL": engine.url.set(drivername="postgresql").render_as_string(hide_password=False),
        "REDIS_URL": f"redis://:{quote(where['password'])}@{where['host']}:{where['port']}/0",
        "NOTIFIER_AUTH": "off",
        "NOTIFIER_WEBHOOK_SECRET": new_secret(),
        "NOTIFIER_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        "NOTIFIER_DATA_DIR": os.devnull,
    }


@contextlib.contextmanager
def _both(folder: Path) -> Iterator[dict[str, _Api]]:
    with servers() as (engine, valkey):
        ours_has = _environment(engine, valkey)
        with _api(folder, "ours", ["manage.py", "api"], ours_has) as ours:
            # The environment of its process: `manage.py api` has added malloc's bounds.
            same = {**ours.process.environ(), "DATABASE_URL": _NO_DATABASE}
            with _api(folder, "no_database", ["-m", "benchmarks.no_database"], same) as bare:
                yield {"ours": ours, "no_database": bare}


def _load(api: _Api, seconds: float, connections: int) -> dict[str, float]:
    """Post single events, and return what they cost."""
    client, before = time.process_time(), seconds_of(api.process)
    load = post(f"{api.url}/api/v1/events", _RECIPIENT, seconds=seconds, connections=connections)
    used, client = seconds_of(api.process) - before, time.process_time() - client
    if not load.accepted:
        raise SystemExit(f"Nothing was accepted: {dict(load.codes)}")
    took = sorted(load.took)
    return {
        "accepted": load.rate,
        "cpu_ms": used / load.accepted * 1000,
        "core": used / load.seconds,
        "client_core": client / load.seconds,
        **{f"p{share}": took[min(len(took) - 1, len(took) * share // 100)] * 1000 for share in (50, 99)},
        "refused": sum(count for code, count in load.codes.items() if code != 202),
    }


def measure(rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Every figure of one run: medians of rounds in which both take turns, and the rounds."""
    with bench_folder() as folder, _both(folder) as apis:
        for api in apis.values():
            _load(api, _WARM_SECONDS, connections)
        each: list[dict[str, dict[str, float]]] = []
        for number in range(rounds):
            print(f"Round {number + 1} of {rounds}", file=sys.stderr)
            order = list(apis) if number % 2 == 0 else list(reversed(apis))
            each.append({name: _load(apis[name], seconds, connections) for name in order})
    middle = {
        name: {key: statistics.median(one[name][key] for one in each) for key in each[0][name]} for name in _TITLES
    }
    return {
        **middle,
        "ratio": middle["ours"]["accepted"] / middle["no_database"]["accepted"],
        "cpu_ratio": middle["no_database"]["cpu_ms"] / middle["ours"]["cpu_ms"],
        "rounds": [{**one, "ratio": one["ours"]["accepted"] / one["no_database"]["accepted"]} for one in each],
    }


def _table(figures: dict[str, Any]) -> Table:
    title = f"Ingest: × {figures['ratio']:.2f} of the API without its database"
    table = Table("", title=title, title_justify="left")
    for column in ("accepted/s", "API's CPU ms each", "API's core", "client's core", "p50 ms", "p99 ms", "refused"):
        table.add_column(column, justify="right")
    for name, words in _TITLES.items():
        each = figures[name]
        cores = (f"{each[key]:.0%}" for key in ("core", "client_core"))
        late = (f"{each[key]:.1f}" for key in ("p50", "p99"))
        table.add_row(words, f"{each['accepted']:,.0f}", f"{each['cpu_ms']:.3f}", *cores, *late, f"{each['refused']:g}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each load")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.rounds, options.seconds, options.connections)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
