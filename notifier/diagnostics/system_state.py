"""The state of the whole system at one moment: queues, providers, endpoints, holds and processes.

It is read with few statements whose work is bounded, however much waits: pages may ask for it every few seconds.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.models import Hold
from notifier.notifications import holds
from notifier.observability import heartbeats
from notifier.observability.heartbeats import CLOCK, STUCK, WORKER
from notifier.providers.breakers import BreakerStatus, breaker_statuses
from notifier.providers.circuit import State, state_at
from notifier.storage.personal_data import class_of
from notifier.vocabulary.queues import DELIVERY, FAN_OUT, channel_of, handover_queue
from notifier.vocabulary.states import ALL_CHANNELS, EventStatus, Status

#: The depth of a queue is counted up to this many rows, and so many endpoints are listed.
MOST_ROWS: Final = 100_000
MOST_ENDPOINTS: Final = 100


@dataclass(frozen=True, slots=True)
class QueueState:
    """The rows of a queue that are due or handed over to workers, and who serves it."""

    name: str
    #: None for the queue of events that wait for their fan-out.
    channel: str | None
    depth: int
    #: There are more rows than `depth` says: it is counted no further.
    more: bool
    #: Seconds since the row that is due first became due; None where nothing is due.
    oldest_due_seconds: float | None
    #: Attempts of the last minutes; None where they were not counted lately, and for events.
    attempts_per_minute: float | None
    workers: list[str]
    held: bool


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """A provider that workers can send by, or that had trouble."""

    channel: str
    name: str
    #: Whether a worker that was seen lately can send by it.
    in_use: bool
    state: State
    failures: int
    failing_since: datetime | None
    failed_at: datetime | None
    #: The class of its last failure, such as `timeout` or `http 503`, without the vendor's words.
    error: str | None
    open_until: datetime | None
    next_slot: datetime | None
    line_until: datetime | None


@dataclass(frozen=True, slots=True)
class EndpointState:
    """A webhook's endpoint that fails, or that keeps callers waiting."""

    id: UUID
    #: It is a subscription's, whose id this is; else that of a URL which webhooks are addressed to.
    is_subscription: bool
    state: State
    failures: int
    failing_since: datetime | None
    open_until: datetime | None
    slow_until: datetime | None


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A worker process, or the clock's ticks, which a beat sends and the clock's worker does."""

    name: str
    kind: str
    queues: list[str]
    seen_seconds: float


@dataclass(frozen=True, slots=True)
class SystemState:
    """All of it."""

    at: datetime
    queues: list[QueueState]
    providers: list[ProviderStatus]
    endpoints: list[EndpointState]
    more_endpoints: bool
    holds: Sequence[Hold]
    processes: list[ProcessState]


# Rows that are handed over have a lease, of some minutes at the most. In the order of the index, so that a crowd of
# rows that are due later is not walked through.
_QUEUES: Final = text(f"""
    SELECT wanted.queue, found.read, found.depth, found.late
    FROM unnest(CAST(:queues AS text[])) AS wanted(queue) CROSS JOIN LATERAL (
        SELECT count(*) AS read, extract(epoch FROM now() - min(due_at)) AS late,
            count(*) FILTER (WHERE due_at <= now() OR status IN ('{Status.QUEUED}', '{Status.SENDING}',
                '{EventStatus.ACCEPTED}')) AS depth
        FROM (
            (SELECT due_at, status FROM notifications n
            WHERE wanted.queue <> '{FAN_OUT}' AND n.queue = wanted.queue AND due_at IS NOT NULL
                AND due_at < now() + interval '1 hour'
            ORDER BY due_at LIMIT {MOST_ROWS + 1})
            UNION ALL
            (SELECT due_at, status FROM events
            WHERE wanted.queue = '{FAN_OUT}' AND due_at IS NOT NULL AND due_at < now() + interval '1 hour'
            ORDER BY due_at LIMIT {MOST_ROWS + 1})
        ) AS rows
    ) AS found
""")
_BY_INDEX: Final = text("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
_ENDPOINTS: Final = text(f"""
    SELECT e.id, s.id IS NOT NULL AS is_subscription, e.failures, e.failing_since, e.open_until, e.slow_until
    FROM endpoints e LEFT JOIN subscriptions s ON s.id = e.id
    WHERE e.failing_since IS NOT NULL OR e.slow_until > now()
    ORDER BY e.open_until IS NULL, e.failures DESC, e.id LIMIT {MOST_ENDPOINTS + 1}
""")


def read(engine: Engine, attempts_per_minute: Mapping[str, float] | None) -> SystemState:
    """Read the state. `attempts_per_minute`: of each queue that had any lately; None where that is not known."""
    alive, held = heartbeats.alive(engine), holds.listed(engine)
    processes = [ProcessState(each.name, each.kind, sorted(each.queues), age) for each, age in alive]
    processes += [ProcessState(name, STUCK, [], age) for name, age in heartbeats.stuck(engine)]
    known = {each for heartbeat, _ in alive if heartbeat.kind == WORKER for each in heartbeat.providers}
    endpoints = _endpoints(engine)
    return SystemState(
        at=datetime.now(UTC),
        queues=_queues(engine, processes, {hold.target for hold in held}, attempts_per_minute),
        providers=_providers(engine, known),
        endpoints=endpoints[:MOST_ENDPOINTS],
        more_endpoints=len(endpoints) > MOST_ENDPOINTS,
        holds=held,
        processes=sorted(processes, key=lambda each: (each.kind == CLOCK, each.name)),
    )


def _queues(
    engine: Engine, processes: Sequence[ProcessState], held: Collection[str], rates: Mapping[str, float] | None
) -> list[QueueState]:
    with engine.begin() as connection:
        connection.execute(_BY_INDEX)
        rows = connection.execute(_QUEUES, {"queues": [FAN_OUT, *DELIVERY]}).all()
    return [_queue(row, processes, held, rates) for row in rows]


def _queue(
    row: Any,  # noqa: ANN401 -- a row of _QUEUES
    processes: Sequence[ProcessState],
    held: Collection[str],
    rates: Mapping[str, float] | None,
) -> QueueState:
    channel = None if row.queue == FAN_OUT else channel_of(row.queue).value
    served = {row.queue, handover_queue(row.queue)}
    late = None if row.late is None or row.late < 0 else round(float(row.late), 3)
    return QueueState(
        name=row.queue,
        channel=channel,
        depth=min(row.depth, MOST_ROWS),
        more=row.read > MOST_ROWS,
        oldest_due_seconds=late,
        attempts_per_minute=None if rates is None or channel is None else rates.get(row.queue, 0.0),
        workers=[each.name for each in processes if served <= set(each.queues)],
        held=channel is not None and bool({ALL_CHANNELS, channel} & set(held)),
    )


def _providers(engine: Engine, known: Collection[str]) -> list[ProviderStatus]:
    """Return the providers of workers (`channel:name`), and those of which a breaker or a line is known."""
    statuses = {(each.channel, each.name): each for each in breaker_statuses(engine)}
    used = {(channel, name) for channel, _, name in (each.partition(":") for each in known)}
    return [_provider(key, statuses.get(key), in_use=key in used) for key in sorted(used | statuses.keys())]


def _provider(key: tuple[str, str], status: BreakerStatus | None, *, in_use: bool) -> ProviderStatus:
    if status is None:
        return ProviderStatus(*key, in_use, State.CLOSED, 0, *[None] * 6)
    return ProviderStatus(
        *key,
        in_use,
        status.state,
        status.failures,
        status.failing_since,
        status.failed_at,
        class_of(status.error),
        status.open_until,
        status.next_slot,
        status.line_until,
    )


def _endpoints(engine: Engine) -> list[EndpointState]:
    with engine.connect() as connection:
        return [_endpoint(row) for row in connection.execute(_ENDPOINTS)]


def _endpoint(row: Any) -> EndpointState:  # noqa: ANN401 -- a row of _ENDPOINTS
    state = state_at(datetime.now(UTC), row.open_until)
    return EndpointState(
        row.id, row.is_subscription, state, row.failures, row.failing_since, row.open_until, row.slow_until
    )
