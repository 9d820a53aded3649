"""The cost of breakers of providers: python -m benchmarks.breakers.

Ours are read with what the gate must know of a batch anyway, and written where something fails. Measured here: that
query with and without them, and what the same batch would cost with pybreaker, whose storage in Redis is asked at every
call.
"""

import statistics
import sys
import time

import pybreaker
import redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

from benchmarks.stack import servers
from notifier.delivery import gate_inputs
from notifier.providers.breakers import HEALTH_IN_SQL, health_from
from notifier.vocabulary.states import Channel

ROUNDS = 200
SIZES = (1, 20, 500)

_TWO_SICK = text("""
    INSERT INTO providers (channel, name, failures, failed_at, error, open_until, open_for)
    SELECT 'email', name, 5, now(), 'http 503', now() + interval '1 hour', 60 FROM unnest(ARRAY['smtp', 'ses']) name
""")
_WITHOUT = text(str(gate_inputs._FACTS).replace(f"({HEALTH_IN_SQL}) AS health,", ""))


def _read(connection: Connection, size: int, *, breakers: bool) -> float:
    """Seconds that the gate's query takes for so many addresses."""
    addresses = [f"u{n}@example.com" for n in range(size)]
    values = {"channel": Channel.EMAIL.value, "users": [], "addresses": addresses, "hashes": [], "endpoints": []}
    began = time.perf_counter()
    found = connection.execute(gate_inputs._FACTS if breakers else _WITHOUT, values).one()
    if breakers:
        health_from(found.health)
    return time.perf_counter() - began


def _call(breaker: pybreaker.CircuitBreaker, size: int) -> float:
    """Seconds that so many calls take which succeed at once."""
    began = time.perf_counter()
    for _ in range(size):
        breaker.call(lambda: None)
    return time.perf_counter() - began


def _median(times: list[float]) -> float:
    return statistics.median(times) * 1000


def _table(connection: Connection, client: redis.Redis) -> Table:
    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client)
    breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=5, state_storage=storage)
    table = Table("messages a batch", title=f"ms a batch, medians of {ROUNDS}", title_justify="left")
    for column in ("the gate's query", "with breakers", "they cost", "pybreaker in Redis", "pybreaker / ours"):
        table.add_column(column, justify="right")
    for size in SIZES:
        for _ in range(20):  # plans and connections are warm
            _read(connection, size, breakers=True)
            _read(connection, size, breakers=False)
        # In turns, so that what the machine does besides hits both alike.
        pairs = [
            (_read(connection, size, breakers=False), _read(connection, size, breakers=True)) for _ in range(ROUNDS)
        ]
        without, with_them = (_median(list(each)) for each in zip(*pairs, strict=True))
        theirs = _median([_call(breaker, size) for _ in range(max(3, ROUNDS // size))])
        cost = max(with_them - without, 0.001)
        table.add_row(
            str(size), *(f"{each:.3f}" for each in (without, with_them, cost, theirs)), f"{theirs / cost:.0f}"
        )
    return table


def main() -> None:
    """Measure and print."""
    with servers() as (engine, client), engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(_TWO_SICK)
        Console(width=None if sys.stdout.isatty() else 120).print(_table(connection, client))


if __name__ == "__main__":
    main()
