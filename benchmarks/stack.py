"""The embedded stack that benchmarks run against, and servers beside it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis
import requests
from sqlalchemy import Engine, create_engine, make_url

from config.settings import running_stack
from deploy.child_process import Child, wait_until
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from deploy.ports import free_port
from notifier import migrations

ROOT = Path(__file__).resolve().parents[1]
THREADS = "64"


def answers(url: str) -> bool:
    """Whether a server answers at an address, if only that there is nothing."""
    try:
        return requests.get(url, timeout=2).status_code < 500
    except requests.RequestException:
        return False


@contextlib.contextmanager
def bench_folder(kept: Path | None = None) -> Iterator[Path]:
    """A temporary folder, or one that stays, through which Postgres comes to its own, being another user than root."""
    if kept is not None:
        kept.mkdir(mode=0o711, parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextlib.contextmanager
def granian(folder: Path, interface: str, target: str, **environment: str) -> Iterator[str]:
    """An application on a fast HTTP server; gives its address."""
    # As many connections are served at once; further ones wait for others to close.
    command = ["granian", "--interface", interface, "--no-ws", "--backlog", "8192", target]
    with _running(folder, target, command, **environment) as url:
        yield url


@contextlib.contextmanager
def ceiling(folder: Path) -> Iterator[str]:
    """A view that does nothing, on the same HTTP server as the API; gives its address."""
    with _running(folder, "ceiling", ["benchmarks.ceiling"]) as url:
        yield url


@contextlib.contextmanager
def _running(folder: Path, name: str, command: list[str], **environment: str) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    child = Child(
        name,
        [sys.executable, "-m", *command, "--port", str(port)],
        log=folder / f"{name}.log",
        environment={**os.environ, **environment},
        cwd=ROOT,
        ready=lambda: answers(f"{url}/x"),
    )
    child.start()
    try:
        yield url
    finally:
        child.stop()


@contextlib.contextmanager
def stack(folder: Path, *options: str, **settings: str) -> Iterator[str]:
    """The embedded stack, with further options of `up` and settings of its own; gives the API's address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "manage.py",
        "up",
        "--no-flower",
        "--port",
        str(port),
        "--data-dir",
        str(folder / "data"),
        *options,
    ]
    with (folder / "up.log").open("wb") as log:
        environment = {**os.environ, **settings}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        if not wait_until(lambda: answers(f"{url}/ready"), 60):
            raise SystemExit((folder / "up.log").read_text())
        yield url
    finally:
        process.terminate()
        process.wait(60)


def settings_of(folder: Path) -> dict[str, str]:
    """Return the settings of a running stack, by which further processes join it: it writes them down last of all."""
    where = {"NOTIFIER_DATA_DIR": str(folder / "data")}
    wait_until(lambda: bool(running_stack(where)), 60)
    return running_stack(where)


@contextlib.contextmanager
def superuser(folder: Path) -> Iterator[Engine]:
    """An engine of a superuser of a running stack's Postgres, who may vacuum."""
    url = make_url(settings_of(folder)["NOTIFIER_ADMIN_DATABASE_URL"])
    engine = create_engine(url.set(drivername="postgresql+psycopg2"))
    try:
        yield engine
    finally:
        engine.dispose()


def pids_of(folder: Path) -> dict[str, int]:
    """Return the processes of a running stack by their names: `api`, `worker-fresh`, `worker-fresh-2` and so on."""
    return {child["name"]: child["pid"] for child in json.loads((folder / "data" / "children.json").read_text())}


@contextlib.contextmanager
def servers() -> Iterator[tuple[Engine, redis.Redis]]:
    """A migrated Postgres and a Valkey alone."""
    with bench_folder() as folder:
        postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder / "valkey")
        postgres.start()
        valkey.start()
        try:
            postgres.create_database("bench")
            engine = create_engine(make_url(postgres.url("bench")).set(drivername="postgresql+psycopg2"))
            migrations.upgrade(engine)
            yield engine, redis.Redis.from_url(valkey.url)
            engine.dispose()
        finally:
            valkey.stop()
            postgres.stop()
