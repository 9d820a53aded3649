"""The needs of a load, as benchmarks.capacity reckons them: tables for people, and a document for programs."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Final

from rich.table import Table

from benchmarks.capacity_costs import Costs
from benchmarks.capacity_model import Needs, one_machine

_TITLES: Final = {
    "api": "API",
    "fresh": "worker fresh",
    "retry": "worker retry",
    "clock": "worker clock",
    "beat": "beat",
    "exporter": "exporter",
    "postgres": "Postgres",
}
#: How more of a part is had.
_MORE: Final = {
    "api": "one more `manage.py api` behind the proxy",
    "fresh": "one more `manage.py worker fresh`",
    "retry": "one more `manage.py worker retry`",
    "postgres": "a larger machine for Postgres, then a second instance",
}
_THREADS: Final = "NOTIFIER_WORKER_CONCURRENCY"
#: Cores of the single machine that is always told of.
_SINGLE: Final = 2.0


def as_document(needs: Needs, costs: Costs) -> dict[str, Any]:
    """Return all that a load needs as JSON can have it: what is infinite is null."""
    document = {**dataclasses.asdict(needs), "one_machine_of_2_cores": one_machine(_SINGLE, needs.ask, costs)}
    finite: dict[str, Any] = _finite(document)
    return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def bytes_in_words(size: float) -> str:
    """Return a size in the largest unit of which there is one: `2.6 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def table(needs: Needs, costs: Costs) -> Table:
    """Return the tables, one below the other."""
    grid = Table.grid(padding=(1, 0))
    for each in (_processes(needs), _servers(needs), _machines(needs), _first(needs, costs)):
        grid.add_row(each)
    return grid


def _processes(needs: Needs) -> Table:
    ask = needs.ask
    channels = ", ".join(f"{name} {share:.0%}" for name, share in ask.channels.items())
    title = (
        f"{ask.per_day:,.0f} a day and {ask.peak:,.0f}/s at the peak: {channels}; answers after {ask.provider_ms:g} ms,"
        f" {ask.retries:g} retries each, {ask.payload_bytes:g} bytes of payload, {ask.batch} events a POST"
    )
    rows = Table("processes", title=title, title_justify="left")
    for column in (
        "count",
        "cores at the peak",
        "filled by waiting",
        "MB each",
        "MB in all",
        "sessions each",
        "full at",
    ):
        rows.add_column(column, justify="right")
    for part in needs.parts:
        rows.add_row(
            _TITLES[part.name],
            str(part.count),
            f"{part.cores:.2f}",
            f"{part.in_flight:.1f}" if part.in_flight else "",
            f"{part.memory:,.0f}",
            f"{part.memory * part.count:,.0f}",
            str(part.sessions),
            f"{part.holds:,.0f}/s" if math.isfinite(part.holds) else "",
        )
    return rows


def _servers(needs: Needs) -> Table:
    rows = Table("servers", "", title_justify="left")
    for name, value in _server_lines(needs):
        rows.add_row(name, value)
    return rows


def _server_lines(needs: Needs) -> Iterator[tuple[str, str]]:
    found, ask = needs.database, needs.ask
    size = f"of {found.machine_cores}" if found.machine_cores else f"and {found.instances} instances of the largest"
    yield "Postgres: cores", f"{found.cores:.1f} at the peak, {size}; full at {found.holds:,.0f}/s"
    yield (
        "Postgres: memory",
        f"{bytes_in_words(found.memory)}, with {bytes_in_words(found.hot)} of a day's indexes and keys",
    )
    kept = f"{bytes_in_words(found.data)} in {ask.retention_days:g} days"
    yield "Postgres: disk", f"{kept}; get {bytes_in_words(found.disk)}"
    log = f"{bytes_in_words(found.wal_day)} a day, {bytes_in_words(found.wal_peak)}/s at the peak"
    yield "Postgres: WAL", log
    yield "Postgres: writes", f"{bytes_in_words(found.written_peak)}/s at the peak, with WAL and checkpoints"
    bound = f"up to {found.most_sessions} may be opened, {ask.max_connections} are allowed"
    yield "Postgres: sessions", f"some {found.sessions} at full load; {bound}"
    yield "PgBouncer", "needed, or a larger max_connections" if needs.needs_pgbouncer else "not needed"
    waiting = f"{needs.backlog:,.0f} rows after {ask.backlog_minutes:g} minutes"
    gone = (
        f"{needs.drain_minutes:,.0f} minutes"
        if math.isfinite(needs.drain_minutes)
        else "never, at no more than the peak"
    )
    yield "backlog", f"{waiting}; gone again after {gone}"
    yield "Redis", f"{bytes_in_words(needs.redis_bytes)} with that backlog, {needs.redis_cores:.2f} cores"
    yield "network", f"{bytes_in_words(needs.network_peak)}/s at the peak, all ways together"


def _machines(needs: Needs) -> Table:
    rows = Table("machines", title_justify="left")
    for column in ("for processes", "GB each", "Postgres", "Redis", "in all"):
        rows.add_column(column, justify="right")
    database = needs.database
    # A standby for each instance; a second Redis, since losing it costs seconds, is Sentinel's wish.
    standby = 1 + (needs.ask.spare > 0)
    servers = database.instances * standby
    size = f"{servers} × {database.machine_cores or 'the largest'} cores"
    redis = f"{standby} × 1 core"
    for nodes in needs.nodes:
        count = nodes.count + servers + standby
        rows.add_row(f"of {nodes.cores} cores", f"{nodes.count}", f"{nodes.memory / 1000:.1f}", size, redis, str(count))
    return rows


def _first(needs: Needs, costs: Costs) -> Table:
    rows = Table("what to add first", "full at", "more of it", title_justify="left")
    waiting = {part.name for part in needs.parts if part.in_flight > part.cores}
    for name, rate in needs.full_at:
        more = f"{_MORE[name]}, or more {_THREADS}: it waits for answers" if name in waiting else _MORE[name]
        rows.add_row(_TITLES[name], f"{rate:,.0f}/s", more)
    alone = one_machine(_SINGLE, needs.ask, costs)
    rows.caption = f"One machine of 2 cores with everything on it holds {alone:,.0f}/s of this load."
    return rows
