"""How many processes, cores and bytes a load takes, from rates and unit costs. Pure.

CPU is what each notification costs, times the rate at the peak, over the part of a core that may be busy. Workers also
need a place for each request in flight, which is the rate times the time that an answer takes (Little's law). Whatever
comes in whole pieces is rounded up, and has one piece more, so that one may fail at the peak.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks.capacity_costs import CHANNELS, PROCESSES, Costs

#: Requests that one thread has in flight; chat has so many in its whole process (see notifier/providers).
SLOTS: Final[Mapping[str, int]] = {"webhook": 64, "email": 8, "sms": 32, "push": 32, "chat": 8}
#: Connections to Postgres that one process may have (config/wiring.py).
MOST_SESSIONS: Final = 25
#: Sessions that Postgres keeps for superusers, and that migrations and commands take for a while.
RESERVED: Final = 20
#: Messages that a queue holds, the ids in one, and the queues of a channel (config/queues.py, vocabulary/queues.py).
MESSAGES: Final = 64
IDS: Final = 500
QUEUES: Final = 5
#: Queues that channels share: events, the clock, slow webhooks.
SHARED_QUEUES: Final = 3
#: Sizes of machines that Postgres may get, and of those for processes.
POSTGRES_CORES: Final = (2, 4, 8, 16, 32, 64)
NODES: Final = (2, 4, 8)
_DAY: Final = 86_400
#: A peak that is the average may come out a little less than it.
_ROUNDING: Final = 1e-9
_KEYS_DAYS: Final = 1.05
_MAX_WAL: Final = 2_000_000_000
#: The part of a disk that may be full, and MB that Postgres takes for itself beside its cache.
_DISK_FULL: Final = 0.7
_POSTGRES_BASE_MB: Final = 1_000


class BadInput(ValueError):
    """A load that cannot be. The message says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A load, in notifications; each event makes one."""

    per_day: float
    #: A second.
    peak: float
    retention_days: float = 30
    payload_bytes: float = 200
    #: Attempts after the first, for each notification.
    retries: float = 0.05
    channels: Mapping[str, float] = field(default_factory=lambda: {"webhook": 1.0})
    #: How long a provider or receiver takes to answer.
    provider_ms: float = 200
    #: Events a POST.
    batch: int = 1
    #: The part of a core that may be busy at the peak.
    busy: float = 0.6
    #: How long the peak comes in while nothing goes out.
    backlog_minutes: float = 10
    #: Threads of a worker (NOTIFIER_WORKER_CONCURRENCY).
    threads: int = 4
    max_connections: int = 200
    #: Pieces more than the peak needs.
    spare: int = 1

    def __post_init__(self) -> None:
        for name in ("per_day", "peak", "retention_days", "provider_ms", "backlog_minutes"):
            _positive(name, getattr(self, name))
        for name in ("payload_bytes", "retries", "spare"):
            _positive(name, getattr(self, name), least=0)
        for name in ("batch", "threads"):
            _positive(name, getattr(self, name), least=1)
        _positive("max_connections", self.max_connections, least=RESERVED + MOST_SESSIONS)
        if not 0 < self.busy <= 1:
            raise BadInput(f"--busy is {self.busy:g}: it is a part of a core, above 0 and up to 1")
        if self.peak < self.average * (1 - _ROUNDING):
            raise BadInput(
                f"--peak is {self.peak:g} a second, less than the {self.average:,.1f} that --per-day comes to"
            )
        if unknown := self.channels.keys() - set(CHANNELS):
            raise BadInput(f"--channels names {sorted(unknown)[0]!r}: there are {', '.join(CHANNELS)}")
        if not math.isclose(total := sum(self.channels.values()), 1, abs_tol=0.001):
            raise BadInput(f"--channels come to {total:g}: the shares of all come to 1")
        if any(share < 0 for share in self.channels.values()):
            raise BadInput("--channels has a share below 0")

    @property
    def average(self) -> float:
        """Return the notifications a second over a day."""
        return self.per_day / _DAY


def _positive(name: str, value: float, least: float | None = None) -> None:
    option = f"--{name.replace('_', '-')}"
    if not math.isfinite(value):
        raise BadInput(f"{option} is not a number")
    if least is None and value <= 0:
        raise BadInput(f"{option} is {value:g}: it is above 0")
    if least is not None and value < least:
        raise BadInput(f"{option} is {value:g}: it is {least:g} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The processes of one kind."""

    name: str
    count: int
    #: Cores that they use at the peak, and processes that requests in flight fill.
    cores: float
    in_flight: float
    #: MB of each, and its sessions in Postgres as they were counted.
    memory: float
    sessions: int
    #: Notifications a second at which all of them are full.
    holds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Postgres."""

    #: Cores that it uses at the peak, and those of its machine; None where no machine has so many.
    cores: float
    machine_cores: int | None
    #: How many instances the largest machine makes of it.
    instances: int
    holds: float
    #: Bytes of rows and keys, of the disk to get, of log a day; bytes a second at the peak.
    data: float
    disk: float
    wal_day: float
    wal_peak: float
    written_peak: float
    #: Bytes of what is read and written at random all day, and of memory.
    hot: float
    memory: float
    #: Sessions as they were counted, and the most that all processes may open.
    sessions: int
    most_sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Machines for all processes but Postgres and Redis."""

    cores: int
    count: int
    #: MB that each needs.
    memory: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The parts, servers and machines that a load takes."""

    ask: Ask
    parts: tuple[Part, ...]
    database: Database
    redis_bytes: float
    redis_cores: float
    network_peak: float
    backlog: float
    drain_minutes: float
    needs_pgbouncer: bool
    nodes: tuple[Nodes, ...]
    #: Each part with the notifications a second at which it is full; the first to be full comes first.
    full_at: tuple[tuple[str, float], ...]


def needs_of(ask: Ask, costs: Costs) -> Needs:
    """Return what a load takes. Raises BadInput where a channel was not measured."""
    if unmeasured := {name for name, share in ask.channels.items() if share} - costs.channel.keys():
        raise BadInput(f"--channels has {sorted(unmeasured)[0]}, which was not measured")
    parts = tuple(_part(name, ask, costs) for name in ("api", "fresh", "retry", "clock", "beat", "exporter"))
    database = _database(ask, costs, parts)
    backlog = ask.peak * ask.backlog_minutes * 60
    full = [(part.name, part.holds) for part in parts if math.isfinite(part.holds)] + [("postgres", database.holds)]
    return Needs(
        ask=ask,
        parts=parts,
        database=database,
        redis_bytes=redis_bytes(backlog, ask, costs),
        redis_cores=ask.peak * _cpu("redis", ask, costs) / 1000,
        network_peak=ask.peak * (costs.network.at(ask.payload_bytes) + costs.network_post / ask.batch),
        backlog=backlog,
        # It is worked off at the pace of the peak, while the average comes in.
        drain_minutes=backlog / (ask.peak - ask.average) / 60 if ask.peak > ask.average else math.inf,
        needs_pgbouncer=database.most_sessions > ask.max_connections - RESERVED,
        nodes=tuple(_nodes(cores, ask, parts) for cores in NODES),
        full_at=tuple(sorted(full, key=lambda each: each[1])),
    )


def _cpu(process: str, ask: Ask, costs: Costs) -> float:
    """Return the milliseconds of CPU of a notification and its retries in a process."""
    first = costs.cpu(process, batch=ask.batch, payload=ask.payload_bytes, channels=ask.channels)
    return first + ask.retries * costs.retry[process]


def _places(ask: Ask, costs: Costs) -> float:
    """Return the worker processes that one notification a second fills with requests in flight (Little's law)."""
    threads = sum(share * ask.provider_ms / 1000 / SLOTS[channel] for channel, share in ask.channels.items())
    return threads / costs.efficiency / ask.threads


def _part(name: str, ask: Ask, costs: Costs) -> Part:
    ms = _cpu(name, ask, costs)
    places = _places(ask, costs) * {"fresh": 1.0, "retry": ask.retries}.get(name, 0.0)
    cores = ask.peak * ms / 1000 + costs.idle[name] / 1000
    in_flight = ask.peak * places
    # Python runs on one core of a process. A clock and a beat are one, whatever the load; two of each run.
    needed = 1 if name in {"clock", "beat", "exporter"} else max(1, math.ceil(cores / ask.busy), math.ceil(in_flight))
    count = needed + (0 if name == "exporter" else ask.spare)
    limits = [1000 / ms if ms else math.inf, 1 / places if places else math.inf]
    grows = name in {"api", "fresh", "retry"}
    return Part(
        name=name,
        count=count,
        cores=cores,
        in_flight=in_flight,
        memory=costs.memory[name],
        sessions=costs.sessions[name],
        holds=count * min(limits) if grows else math.inf,
    )


def _database(ask: Ask, costs: Costs, parts: tuple[Part, ...]) -> Database:
    ms = _cpu("postgres", ask, costs)
    cores = ask.peak * ms / 1000
    wanted = cores / ask.busy
    machine = next((size for size in POSTGRES_CORES if size >= wanted), None)
    instances = max(1, math.ceil(wanted / POSTGRES_CORES[-1]))
    payload, keys = ask.payload_bytes, ask.per_day * costs.key_bytes
    row = costs.rows.at(payload) + ask.retries * costs.attempt_bytes
    data = ask.per_day * row * (ask.retention_days + 1) + keys * _KEYS_DAYS
    wal = costs.wal.at(payload) + ask.retries * costs.attempt_wal
    hot = ask.per_day * costs.indexes.at(payload) + keys
    # Beat asks Redis alone.
    asking = [part for part in parts if part.sessions]
    sessions = sum(part.count * part.sessions for part in asking)
    return Database(
        cores=cores,
        machine_cores=machine,
        instances=instances,
        holds=(machine or instances * POSTGRES_CORES[-1]) * 1000 / ms,
        data=data,
        disk=(data + _MAX_WAL) / _DISK_FULL,
        wal_day=ask.per_day * wal,
        wal_peak=ask.peak * wal,
        written_peak=ask.peak * (costs.written.at(payload) + ask.retries * costs.attempt_wal),
        hot=hot,
        memory=hot + (sessions * costs.backend + _POSTGRES_BASE_MB) * 1_000_000,
        sessions=sessions,
        most_sessions=sum(part.count * MOST_SESSIONS for part in asking),
    )


def redis_bytes(backlog: float, ask: Ask, costs: Costs) -> float:
    """Return the memory that Redis takes while so many rows wait; the rest of them waits in Postgres."""
    queues = sum(share > 0 for share in ask.channels.values()) * QUEUES + SHARED_QUEUES
    messages = min(math.ceil(backlog), queues * MESSAGES)
    ids = min(math.ceil(backlog), queues * MESSAGES * IDS)
    return costs.redis_idle + messages * costs.hint + ids * costs.hint_id


def _nodes(cores: int, ask: Ask, parts: tuple[Part, ...]) -> Nodes:
    used = sum(part.cores for part in parts) / ask.busy
    # Two at least: a clock and a beat are on each.
    count = max(1, math.ceil(used / cores)) + ask.spare
    memory = sum(part.count * part.memory for part in parts)
    return Nodes(cores=cores, count=count, memory=math.ceil(memory / max(1, count - ask.spare)))


def one_machine(cores: float, ask: Ask, costs: Costs, *, beside: float = 0.0) -> float:
    """Return the notifications a second that one machine carries with all processes, Postgres and Redis on it.

    `beside`: milliseconds of CPU that something else there uses for each of them.
    """
    each = sum(_cpu(name, ask, costs) for name in PROCESSES) + beside
    idle = sum(costs.idle.values()) / 1000
    return max(0.0, cores * ask.busy - idle) * 1000 / each
