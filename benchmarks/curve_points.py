"""The points of each curve of benchmarks.curves: one thing changes, the rest stays as it is."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track

from benchmarks.filled_days import fill_day, vacuum
from benchmarks.main_path import measure_load
from benchmarks.many_workers import stack_of
from benchmarks.stack import superuser

_BATCH_SIZES: Final = (1, 5, 20, 100, 500)
_CONNECTIONS: Final = (1, 4, 16, 64, 256)
_WORKERS: Final = (1, 2, 4)
#: Connections that post batches, and those that post single events beside rows.
_FEW: Final = 4
_USUAL: Final = 64
_WARM_SECONDS: Final = 2.0
#: Events a POST where workers are to be busy.
_LARGE: Final = 100
#: Rows behind are spread over so many days up to today. Of so many notifications one is not finished.
_DAYS: Final = 10
_LIVE: Final = 1000

Point = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is posted for one point, what ends first, and the most events that lie behind."""

    seconds: float
    events: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A running stack and its receiver."""

    folder: Path
    url: str
    receiver: str
    sizes: Sizes

    def point(self, *, batch: int = 1, connections: int = _FEW) -> Point:
        """Post one load, and return its figures."""
        url = f"{self.url}/api/v1/events{'/batch' if batch > 1 else ''}"
        how = {"connections": connections, "batch": batch, "seconds": self.sizes.seconds, "most": self.sizes.events}
        load = measure_load(url, self.receiver, **how)
        names = ("p50", "p99", "lost", "duplicates", "refused")
        return {"accepted": load["ingest"], "delivered": load["end_to_end"], **{name: load[name] for name in names}}


@contextlib.contextmanager
def _bench(sizes: Sizes, workers: int | None = None) -> Iterator[Bench]:
    """A stack that is warm."""
    with stack_of(workers) as (folder, url, receiver):
        measure_load(f"{url}/api/v1/events", receiver, seconds=_WARM_SECONDS, connections=_USUAL)
        yield Bench(folder=folder, url=url, receiver=receiver, sizes=sizes)


def _batch_sizes(sizes: Sizes) -> Iterator[tuple[int, Point]]:
    with _bench(sizes) as bench:
        for batch in _BATCH_SIZES:
            yield batch, bench.point(batch=batch)


def _connections(sizes: Sizes) -> Iterator[tuple[int, Point]]:
    with _bench(sizes) as bench:
        for connections in _CONNECTIONS:
            yield connections, bench.point(connections=connections)


def _workers(sizes: Sizes) -> Iterator[tuple[int, Point]]:
    for workers in _WORKERS:
        with _bench(sizes, workers) as bench:
            yield workers, bench.point(batch=_LARGE)


def _rows_behind(sizes: Sizes) -> Iterator[tuple[int, Point]]:
    with _bench(sizes) as bench, superuser(bench.folder) as engine:
        a_day, filled = sizes.rows // _DAYS, 0
        for days in (0, 1, _DAYS):
            more = range(filled, days)
            for place in track(more, f"{len(more) * a_day:,} rows", console=Console(stderr=True), disable=not more):
                fill_day(engine, datetime.now(UTC).date() - timedelta(days=place), a_day, _LIVE)
            filled = days
            vacuum(engine)
            yield days * a_day, bench.point(connections=_USUAL)


#: By its name; each yields what is changed and the figures.
CURVES: Final[dict[str, Callable[[Sizes], Iterator[tuple[int, Point]]]]] = {
    "batch_size": _batch_sizes,
    "connections": _connections,
    "workers": _workers,
    "rows_behind": _rows_behind,
}
