"""Heartbeats: workers and the clock sign a table, which `/ready` and `manage.py status` read."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from notifier.models import Heartbeat

CLOCK: Final = "clock"
WORKER: Final = "worker"
#: A message that was seen to come through its queue (tasks/canary.py).
CANARY: Final = "canary"
#: A worker that found that it takes no messages any more (tasks/watchdog.py).
STUCK: Final = "stuck"
#: Seconds for which a stuck worker is reported.
STUCK_FOR: Final = 300.0
#: Seconds between a worker's signs of life.
INTERVAL: Final = 5.0
#: Seconds after which it counts as gone.
GONE_AFTER: Final = 20.0

_SIGN: Final = text("""
    INSERT INTO heartbeats (name, kind, queues, providers, seen_at) VALUES (:name, :kind, :queues, :providers, now())
    ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, queues = excluded.queues, providers = excluded.providers,
        seen_at = excluded.seen_at
""")
_FORGET: Final = text("DELETE FROM heartbeats WHERE name = :name OR seen_at < now() - interval '1 hour'")


def canary(queue: str) -> str:
    """Return the name under which a queue's canary signs."""
    return f"{CANARY}:{queue}"


def sign(
    engine: Engine,
    name: str,
    kind: str,
    queues: Sequence[str] = (),
    providers: Collection[tuple[str, str]] = (),
) -> None:
    """Say that `name` is alive, which queues it serves, and which providers (channel, name) it can send by."""
    known = [f"{channel}:{provider}" for channel, provider in providers]
    with engine.begin() as connection:
        connection.execute(_SIGN, {"name": name, "kind": kind, "queues": list(queues), "providers": known})


def sign_off(engine: Engine, name: str) -> None:
    """Record that `name` has stopped; also forget processes that have not been seen for an hour."""
    with engine.begin() as connection:
        connection.execute(_FORGET, {"name": name})


def sign_stuck(engine: Engine, name: str) -> None:
    """Say that the worker `name` takes no messages any more, in place of its sign of life."""
    with engine.begin() as connection:
        connection.execute(_SIGN, {"name": f"{STUCK}:{name}", "kind": STUCK, "queues": [], "providers": []})
        connection.execute(_FORGET, {"name": name})


def stuck(engine: Engine, within: float = STUCK_FOR) -> list[tuple[str, float]]:
    """Return the workers that were stuck in the last `within` seconds, by name, each with the seconds since."""
    age = func.extract("epoch", func.now() - Heartbeat.seen_at)
    query = select(Heartbeat.name, age).where(age < within, Heartbeat.kind == STUCK).order_by(Heartbeat.name)
    with engine.connect() as connection:
        return [(name.partition(":")[2], float(seconds)) for name, seconds in connection.execute(query)]


def alive(engine: Engine) -> list[tuple[Heartbeat, float]]:
    """Return the workers and clocks seen in the last GONE_AFTER seconds, by name, each with the seconds since."""
    age = func.extract("epoch", func.now() - Heartbeat.seen_at)
    query = select(Heartbeat, age).where(age < GONE_AFTER, Heartbeat.kind.in_((WORKER, CLOCK)))
    with Session(engine) as session:
        rows = session.execute(query.order_by(Heartbeat.name))
        return [(heartbeat, float(seconds)) for heartbeat, seconds in rows]
