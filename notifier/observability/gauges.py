"""Gauges read from Postgres for the exporter: one round trip a read, however many queues there are.

The counts walk the indexes of live rows and the dead letters, so they take longer the more of those there are; the
exporter waits in proportion (deploy/exporter.py). Ages are by the database's clock.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Engine, text

from notifier.observability.heartbeats import CANARY, CLOCK, GONE_AFTER, STUCK, STUCK_FOR, WORKER
from notifier.observability.metrics import NONE
from notifier.vocabulary.queues import DELIVERY, FAN_OUT

_READ: Final = text(f"""
    SELECT
        (SELECT CAST(json_object_agg(queue, late) AS text) FROM (
            SELECT queue, coalesce(greatest(extract(epoch FROM now() - CASE WHEN queue = '{FAN_OUT}'
                THEN (SELECT min(due_at) FROM events WHERE due_at IS NOT NULL)
                ELSE (SELECT min(due_at) FROM notifications n WHERE n.queue = wanted.queue AND due_at IS NOT NULL)
            END), 0), 0) AS late FROM unnest(CAST(:queues AS text[])) AS wanted(queue)) oldest) AS lateness,
        (SELECT CAST(json_agg(json_build_array(channel, status, rows)) AS text) FROM (
            SELECT coalesce(channel, '{NONE}') AS channel, status, count(*) AS rows FROM notifications
            WHERE due_at IS NOT NULL GROUP BY 1, 2) live) AS live,
        (SELECT count(*) FROM events WHERE due_at IS NOT NULL) AS events,
        (SELECT CAST(json_agg(json_build_array(channel, reason, letters)) AS text) FROM (
            SELECT coalesce(channel, '{NONE}') AS channel, reason, count(*) AS letters FROM dead_letters
            WHERE requeued_at IS NULL GROUP BY 1, 2) standing) AS letters,
        (SELECT CAST(json_agg(json_build_array(channel, name,
            CASE WHEN open_until IS NULL THEN 0 WHEN open_until <= now() THEN 1 ELSE 2 END)) AS text)
            FROM providers) AS breakers,
        (SELECT CAST(json_agg(json_build_array(kind, name, queues, providers, extract(epoch FROM now() - seen_at)))
            AS text) FROM heartbeats) AS heartbeats,
        (SELECT count(*) FROM holds) AS holds
""")


@dataclass(frozen=True, slots=True)
class SystemSnapshot:
    """The contents of Postgres at one moment."""

    #: Queue → seconds for which the row that is due first has been due; 0 where none is.
    lateness: dict[str, float]
    #: (channel, status) → notifications that are not finished.
    live: dict[tuple[str, str], int]
    #: Events that wait for their fan-out.
    events: int
    #: (channel, reason) → dead letters that were not requeued.
    letters: dict[tuple[str, str], int]
    #: (channel, provider) → 0 closed, 1 half open, 2 open, of those that had trouble.
    breakers: dict[tuple[str, str], int]
    #: (channel, provider) of all that workers can send by.
    providers: frozenset[tuple[str, str]]
    #: The queues of each worker that was seen lately.
    workers: list[frozenset[str]]
    #: Seconds since a clock ticked last; None where that was never, or is long ago.
    tick_age: float | None
    #: Queue → seconds since its canary arrived last.
    canaries: dict[str, float]
    holds: int
    #: The workers that were found to take no messages, lately.
    stuck: frozenset[str] = frozenset()


def read(engine: Engine) -> SystemSnapshot:
    """Read all gauges. Raises the database's errors."""
    with engine.connect() as connection:
        found = connection.execute(_READ, {"queues": [*DELIVERY, FAN_OUT]}).one()
    heartbeats: list[Any] = orjson.loads(found.heartbeats or "[]")
    return SystemSnapshot(
        lateness=orjson.loads(found.lateness),
        live=_pairs(found.live),
        events=found.events,
        letters=_pairs(found.letters),
        breakers=_pairs(found.breakers),
        providers=frozenset(
            (channel, name)
            for kind, _, _, known, age in heartbeats
            if kind == WORKER and age < GONE_AFTER
            for channel, _, name in (each.partition(":") for each in known)
        ),
        workers=[frozenset(queues) for kind, _, queues, _, age in heartbeats if kind == WORKER and age < GONE_AFTER],
        tick_age=min((age for kind, _, _, _, age in heartbeats if kind == CLOCK), default=None),
        canaries={name.partition(":")[2]: age for kind, name, _, _, age in heartbeats if kind == CANARY},
        holds=found.holds,
        stuck=frozenset(
            name.partition(":")[2] for kind, name, _, _, age in heartbeats if kind == STUCK and age < STUCK_FOR
        ),
    )


def _pairs(document: str | None) -> dict[tuple[str, str], int]:
    return {(first, second): number for first, second, number in orjson.loads(document or "[]")}
