"""Would preferences and idempotency keys in Redis pay? python -m benchmarks.caching [--users 100000].

The gate reads what it must know of a batch (suppressions, opt-outs, preferences, time zones, holds) with one query.
Measured here: that query, against reading the same from Redis with every entry cached and no invalidation paid for,
and the claim that comes before either.

Intake writes idempotency keys in the statement that writes the events. Measured here: a group with keys against one
without, and what SET NX for each key in one round trip would cost instead, which a lost Redis forgets.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, Engine, text

from api.plain_events import plain_fields
from benchmarks.stack import servers
from notifier.content.templates import EMPTY
from notifier.delivery.gate_inputs import read
from notifier.events.intake import Intake
from notifier.notifications.claims import claim
from notifier.observability.request_context import RequestContext
from notifier.planning.drafts import Draft, draft_event
from notifier.planning.plans import Planner
from notifier.planning.subscribers import SubscriberIndex
from notifier.vocabulary.states import Channel

PREFERENCES = {
    "channels": {"sms": False},
    "categories": {"order_updates": {"email": True, "*": False}, "news": {"*": False}},
    "quiet_hours": [{"channels": ["push"], "start": "22:00", "end": "07:00", "timezone": None}],
}
ROUNDS = 60
_USERS = text("""
    INSERT INTO users (id, user_id, email, push_tokens, timezone, attributes, preferences, created_at, updated_at)
    SELECT gen_random_uuid(), 'u_' || n, 'u' || n || '@example.com', '{}', 'Europe/Berlin', '{}',
        CAST(:preferences AS jsonb), now(), now() FROM generate_series(1, :users) n
""")
_SUPPRESSIONS = text("""
    INSERT INTO suppressions (id, channel, address, folded, reason, created_at)
    SELECT gen_random_uuid(), 'email', a, a, 'hard_bounce', now()
    FROM (SELECT 'gone' || n || '@example.com' AS a FROM generate_series(1, :users / 20) n) addresses
""")
_ROWS = text("""
    INSERT INTO notifications (id, origin_id, source, user_id, recipient, channel, category, critical, priority, queue,
        status, due_at, created_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'bench', 'u_' || u, 'u' || u || '@example.com', 'email',
        'order_updates', false, 'normal', 'email', 'queued', now(), now()
    FROM (SELECT (n * 7919) % :users + 1 AS u FROM generate_series(1, :rows) n) picked
""")


def _claimed(connection: Connection, ids: list[Any]) -> tuple[float, float]:
    """Seconds that a claim takes, and the facts about it; rolled back, so that every round finds the same."""
    began = time.perf_counter()
    rows = claim(connection, ids, 0, 30)
    claimed = time.perf_counter()
    read(connection, Channel.EMAIL, rows)
    known = time.perf_counter()
    connection.rollback()
    return claimed - began, known - claimed


def _cached(client: redis.Redis, users: list[str], addresses: list[str]) -> float:
    """Seconds that the same facts take from Redis, in one round trip."""
    began = time.perf_counter()
    pipe = client.pipeline(transaction=False)
    pipe.mget([f"preferences:{user}" for user in users])
    pipe.smismember("suppressed:email", addresses)
    pipe.smembers("holds")
    found = pipe.execute()
    for document in found[0]:
        orjson.loads(document)
    return time.perf_counter() - began


def _facts_table(engine: Engine, client: redis.Redis, users: int) -> Table:
    """Milliseconds a batch, by its size."""
    table = Table("rows a batch", title=f"The gate's facts, {users:,} users: ms a batch, medians of {ROUNDS}")
    for column in ("the claim", "facts, from Postgres", "the same, from Redis", "Redis / Postgres"):
        table.add_column(column, justify="right")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, user_id, recipient FROM notifications LIMIT 500")).all()
        connection.rollback()
        for size in (1, 20, 500):
            ids, users_of = [row.id for row in rows[:size]], [row.user_id for row in rows[:size]]
            addresses = [row.recipient for row in rows[:size]]
            times = [(*_claimed(connection, ids), _cached(client, users_of, addresses)) for _ in range(ROUNDS)]
            claimed, facts, cached = (statistics.median(each) * 1000 for each in zip(*times, strict=True))
            table.add_row(str(size), *(f"{each:.2f}" for each in (claimed, facts, cached, cached / facts)))
    return table


class _NoHints:
    def hint(self, hints: Sequence[tuple[str, UUID]], causes: Sequence[RequestContext]) -> None:
        """Nobody is told: only the writing is measured."""


def _drafts(size: int, *, keyed: bool) -> list[Draft]:
    fields = plain_fields({"event_type": "bench", "recipient": "+4915112345678", "channel": "sms"})
    assert fields is not None
    del fields["payload"]
    planner = Planner(lambda _: 5.0, frozenset(Channel))
    keys = [uuid4().hex if keyed else None for _ in range(size)]
    return [
        draft_event(
            "bench",
            {**fields, "idempotency_key": key},
            b'{"n":1}',
            b"fingerprint",
            planner,
            EMPTY,
            SubscriberIndex(1, ()),
        )
        for key in keys
    ]


def _accepted(intake: Intake, drafts: list[Draft]) -> float:
    began = time.perf_counter()
    intake.accept(drafts, 30)
    return time.perf_counter() - began


def _set_if_new(client: redis.Redis, size: int) -> float:
    began = time.perf_counter()
    pipe = client.pipeline(transaction=False)
    for _ in range(size):
        pipe.set(f"key:bench:{uuid4().hex}", b"fingerprint", nx=True, ex=86_400)
    pipe.execute()
    return time.perf_counter() - began


def _keys_table(engine: Engine, client: redis.Redis) -> Table:
    """Milliseconds a group, by its size."""
    table = Table("events a group", title=f"Idempotency keys: ms a group, medians of {ROUNDS}")
    for column in ("without keys", "with keys", "keys cost", "SET NX would cost", "Redis / Postgres"):
        table.add_column(column, justify="right")
    intake = Intake(engine, _NoHints(), idempotency_ttl=timedelta(hours=24))
    for size in (1, 20, 500):
        times = [
            (
                _accepted(intake, _drafts(size, keyed=False)),
                _accepted(intake, _drafts(size, keyed=True)),
                _set_if_new(client, size),
            )
            for _ in range(ROUNDS)
        ]
        bare, keyed, redis_keys = (statistics.median(each) * 1000 for each in zip(*times, strict=True))
        cost = keyed - bare
        table.add_row(str(size), *(f"{each:.2f}" for each in (bare, keyed, cost, redis_keys, redis_keys / cost)))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with servers() as (engine, client):
        _fill(engine, client, options.users)
        console.print(_facts_table(engine, client, options.users))
        console.print(_keys_table(engine, client))


def _fill(engine: Engine, client: redis.Redis, users: int) -> None:
    with engine.begin() as connection:
        connection.execute(_USERS, {"users": users, "preferences": orjson.dumps(PREFERENCES).decode()})
        connection.execute(_SUPPRESSIONS, {"users": users})
        connection.execute(_ROWS, {"users": users, "rows": 20_000})
        connection.execute(text("ANALYZE"))
    document = orjson.dumps({**PREFERENCES, "zone": "Europe/Berlin"})
    client.mset({f"preferences:u_{n}": document for n in range(1, users + 1)})
    client.sadd("suppressed:email", *(f"gone{n}@example.com" for n in range(users // 20)))


if __name__ == "__main__":
    main()
