"""The points of each curve of benchmarks.curves: one thing changes, the rest stays as it is."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track
from sqlalchemy import create_engine, make_url, text

from benchmarks.filled_days import fill_day
from benchmarks.main_path import measure_load
from benchmarks.stack import ROOT, settings_of
from deploy.child_process import Child

_BATCH_SIZES: Final = (1, 5, 20, 100, 500)
_CONNECTIONS: Final = (1, 4, 16, 64, 256)
_WORKERS: Final = (1, 2, 4)
#: Connections that post batches, and those that post single events beside rows.
_FEW: Final = 4
USUAL: Final = 64
#: Events a POST where workers are to be busy.
_LARGE: Final = 100
#: Rows behind are spread over so many days up to today. Of so many notifications one is not finished.
_DAYS: Final = 10
_LIVE: Final = 1000

Point = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A running stack, its receiver, and how much is posted for one point: what ends first."""

    folder: Path
    url: str
    receiver: str
    seconds: float
    events: int
    rows: int

    def point(self, *, batch: int = 1, connections: int = _FEW) -> Point:
        """Post one load, and return its figures."""
        url = f"{self.url}/api/v1/events{'/batch' if batch > 1 else ''}"
        how = {"seconds": self.seconds, "connections": connections, "batch": batch, "most": self.events}
        load = measure_load(url, self.receiver, **how)
        names = ("p50", "p99", "lost", "duplicates", "refused")
        return {"accepted": load["ingest"], "delivered": load["end_to_end"], **{name: load[name] for name in names}}

    def environment(self) -> dict[str, str]:
        """Return the environment that the processes of the stack have."""
        return {**os.environ, **settings_of(self.folder)}


def _batch_sizes(bench: Bench) -> Iterator[tuple[int, Point]]:
    for batch in _BATCH_SIZES:
        yield batch, bench.point(batch=batch)


def _connections(bench: Bench) -> Iterator[tuple[int, Point]]:
    for connections in _CONNECTIONS:
        yield connections, bench.point(connections=connections)


def _workers(bench: Bench) -> Iterator[tuple[int, Point]]:
    environment, started = bench.environment(), 1
    with contextlib.ExitStack() as running:
        for workers in _WORKERS:
            while started < workers:
                started += 1
                running.enter_context(_worker(bench.folder, f"bench-{started}", environment))
            yield workers, bench.point(batch=_LARGE)


@contextlib.contextmanager
def _worker(folder: Path, name: str, environment: dict[str, str]) -> Iterator[None]:
    """Run one more worker `fresh`, which takes messages by then."""
    sign = folder / f"{name}.alive"
    command = [sys.executable, "manage.py", "worker", "fresh", "--name", name, "--sign-file", str(sign)]
    log = folder / f"{name}.log"
    child = Child(name, command, log=log, environment=environment, cwd=ROOT, ready=sign.exists)
    try:
        child.start()
        yield
    finally:
        child.stop()


def _rows_behind(bench: Bench) -> Iterator[tuple[int, Point]]:
    # Vacuuming is the owner's, or a superuser's.
    url = make_url(bench.environment()["NOTIFIER_ADMIN_DATABASE_URL"])
    engine = create_engine(url.set(drivername="postgresql+psycopg2"))
    a_day, filled = bench.rows // _DAYS, 0
    try:
        for days in (0, 1, _DAYS):
            more = range(filled, days)
            for place in track(more, f"{len(more) * a_day:,} rows", console=Console(stderr=True), disable=not more):
                with engine.begin() as connection:
                    fill_day(connection, datetime.now(UTC).date() - timedelta(days=place), a_day, _LIVE)
            filled = days
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))  # as autovacuum has long done in a system that has so many
            yield days * a_day, bench.point(connections=USUAL)
    finally:
        engine.dispose()


#: By its name; each yields what is changed and the figures.
CURVES: Final[dict[str, Callable[[Bench], Iterator[tuple[int, Point]]]]] = {
    "batch_size": _batch_sizes,
    "connections": _connections,
    "workers": _workers,
    "rows_behind": _rows_behind,
}
