"""The cost of one notification: the figures of benchmarks/capacity_costs.json as benchmarks.capacity takes them.

Pure: it reads a document that benchmarks.capacity_measure wrote, and measures nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: The processes that work for notifications.
PROCESSES: Final = ("api", "fresh", "retry", "clock", "beat", "exporter", "postgres", "redis")
CHANNELS: Final = ("webhook", "email", "sms", "push", "chat")
#: Channels that were not measured, and the one whose costs they are given: both call vendors' HTTP APIs by libcurl.
_LIKE: Final[Mapping[str, str]] = {"push": "sms"}
_BATCH: Final = 500
_KILOBYTE: Final = 1024

#: Milliseconds of CPU by process.
Cpu = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A figure that was measured at some sizes of payload; between them it lies on straight lines."""

    points: tuple[tuple[float, float], ...]

    def at(self, size: float) -> float:
        """Return the figure at a size: never less than at the smallest, and beyond the largest on the last line."""
        (x, y), *rest = self.points
        for place, (next_x, next_y) in enumerate(rest):
            if size <= next_x or place == len(rest) - 1:
                slope = max(0.0, (next_y - y) / (next_x - x))
                return y + slope * max(0.0, size - x)
            x, y = next_x, next_y
        return y


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost of one notification with one attempt and a short payload, and what is added to it."""

    #: CPU where each POST has one event, and where it has 500.
    single: Cpu
    batch: Cpu
    #: CPU that a channel costs more than a webhook.
    channel: Mapping[str, Cpu]
    #: CPU for each further kB of payload, and for each attempt after the first.
    kilobyte: Cpu
    retry: Cpu
    #: CPU a second while nothing happens.
    idle: Cpu
    #: CPU of the measuring itself, which shared the machine: of the client and the receiver.
    measuring: float
    #: Bytes by the bytes of payload: rows with their indexes (but for keys), indexes of a day alone, log, writes to
    #: disk, and what crosses the network.
    rows: Line
    indexes: Line
    wal: Line
    written: Line
    network: Line
    #: Bytes that a POST of its own adds to what crosses the network.
    network_post: float
    key_bytes: float
    attempt_bytes: float
    attempt_wal: float
    #: MB of one process, and of one session of Postgres; sessions that one process holds at full load.
    memory: Mapping[str, float]
    backend: float
    sessions: Mapping[str, int]
    #: Bytes of Redis while nothing waits, of a message beside its ids, and of an id.
    redis_idle: float
    hint: float
    hint_id: float
    #: Which part of a worker's requests in flight is used while it has enough to do.
    efficiency: float

    def cpu(self, process: str, *, batch: int, payload: float, channels: Mapping[str, float]) -> float:
        """Return the milliseconds of CPU of one notification in a process; `channels`: the share of each."""
        # A POST of n events costs one request and n events; one of more than were measured costs no less.
        request = max(0.0, self.single[process] - self.batch[process]) * _BATCH / (_BATCH - 1)
        event = self.single[process] - request
        more = sum(share * self.channel[channel].get(process, 0.0) for channel, share in channels.items())
        return max(0.0, request / min(batch, _BATCH) + event + more) + self.kilobyte[process] * payload / _KILOBYTE


def costs_of(document: Mapping[str, Any]) -> Costs:
    """Read the document. Raises KeyError where a stage or a figure is missing."""
    stages = document["stages"]
    loads, rows, retries, hints = (stages[name] for name in ("loads", "rows", "retries", "hints"))
    single, batch = loads["single"], loads["batch"]
    by_size = sorted(rows.values(), key=lambda each: each["payload_bytes"])
    small, large = by_size[0], by_size[-1]
    kilobytes = (large["payload_bytes"] - small["payload_bytes"]) / _KILOBYTE
    return Costs(
        single=single["cpu_ms"],
        batch=batch["cpu_ms"],
        channel=_channels(stages, batch["cpu_ms"]),
        kilobyte={name: value / kilobytes for name, value in _more(large["cpu_ms"], small["cpu_ms"]).items()},
        retry=_more(retries["cpu_ms"], small["cpu_ms"]),
        idle=loads["idle"]["cpu_ms_a_second"],
        measuring=single["client_cpu_ms"] + single["receiver_cpu_ms"],
        rows=_line(by_size, _all),
        indexes=_line(by_size, lambda each: sum(_row(each, ("indexes",)))),
        wal=_line(by_size, lambda each: each["wal_bytes"]),
        written=_line(by_size, lambda each: each["written_bytes"]),
        network=_line(by_size, lambda each: each["network_bytes"]["all"]),
        network_post=max(0.0, single["network_bytes"]["all"] - batch["network_bytes"]["all"]),
        key_bytes=sum(small["tables"]["idempotency_keys"].values()),
        attempt_bytes=max(_attempt(small), _all(retries) - _all(small)),
        attempt_wal=max(0.0, retries["wal_bytes"] - small["wal_bytes"]),
        memory=_memory(stages),
        backend=max(each["backend_mb"] for each in (single, batch, *by_size)),
        sessions=_sessions(single, batch, retries),
        redis_idle=hints["idle_bytes"],
        hint_id=(hints["bytes_of_500"] - hints["bytes_of_one"]) / (_BATCH - 1),
        hint=hints["bytes_of_one"],
        efficiency=stages["slots"]["efficiency"],
    )


def _channels(stages: Mapping[str, Any], webhook: Cpu) -> dict[str, Cpu]:
    """Return what each channel costs more than a webhook; it may be less."""
    found: dict[str, Cpu] = {"webhook": {}}
    for channel in CHANNELS:
        stage = stages.get(_LIKE.get(channel, channel))
        if stage and channel not in found:
            found[channel] = {name: stage["cpu_ms"][name] - webhook[name] for name in PROCESSES}
    return found


def _more(costs: Cpu, than: Cpu) -> dict[str, float]:
    return {name: max(0.0, costs[name] - than[name]) for name in PROCESSES}


def _row(stage: Mapping[str, Any], parts: Sequence[str]) -> list[float]:
    """Return the bytes of parts of a notification's rows; keys have a lifetime of their own."""
    return [sizes[part] for table, sizes in stage["tables"].items() if table != "idempotency_keys" for part in parts]


def _attempt(stage: Mapping[str, Any]) -> float:
    return float(sum(stage["tables"]["attempts"].values()))


def _all(stage: Mapping[str, Any]) -> float:
    """Return the bytes of a notification's rows; those of a second attempt make its own row grow, too."""
    return sum(_row(stage, ("table", "indexes", "toast")))


def _line(stages: Sequence[Mapping[str, Any]], figure: Any) -> Line:
    return Line(tuple((float(stage["payload_bytes"]), float(figure(stage))) for stage in stages))


def _memory(stages: Mapping[str, Any]) -> dict[str, float]:
    """Return the most of each process that was seen in any stage: all that it sees, as if it shared nothing."""
    looks = [look["memory_mb"] for stage in stages.values() for look in (stage, *stage.values()) if _has(look)]
    return {name: max(look[name]["rss"] for look in looks if name in look) for name in PROCESSES}


def _sessions(*loads: Mapping[str, Any]) -> dict[str, int]:
    most = {name: max(load["sessions"][name] for load in loads) for name in PROCESSES}
    return {**most, "exporter": max(1, most["exporter"])}  # it asks when it is scraped, which nobody did


def _has(look: Any) -> bool:
    return isinstance(look, Mapping) and "memory_mb" in look
