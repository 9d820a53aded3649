"""How long does it take to count a minute? python -m benchmarks.rollups [--rows 100000] [--minutes 5] [--json].

Fills the last minutes with so many notifications and attempts each, on a Postgres of its own, counts them as the clock
does, and asks for figures as a console does: a day by minute with all names that a minute may have.
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.table import Table
from sqlalchemy import Engine, create_engine, make_url, text

from benchmarks.output import show
from deploy.embedded import EmbeddedPostgres
from notifier import migrations
from notifier.statistics import figures
from notifier.statistics.figures import Question, Step
from notifier.statistics.minute_counts import MOST_NAMES, read_minute
from notifier.statistics.rollups import roll_up
from notifier.storage.partitions import make_partitions
from notifier.vocabulary.ids import first_id_of, millisecond_of
from notifier.vocabulary.statistics import Dimension

_MINUTE: Final = timedelta(minutes=1)
_DATABASE: Final = "statistics"
#: Times that a question is asked; the median counts.
_ASKED: Final = 9

# Ids of UUIDv7 in the order of time, as intake writes them.
_ID: Final = """
    CAST(lpad(to_hex(:first + n * 60000 / :rows), 12, '0') || '7' || left(md5(n::text), 3) || '8'
        || right(md5(n::text), 15) AS uuid)
"""
_FILL: Final = (
    f"""
    INSERT INTO notifications (id, event_type, source, recipient, channel, critical, priority, queue, status, claims,
        attempts, created_at, sent_at)
    SELECT {_ID}, 'type.' || n % 80, 'source.' || n % 7, 'http://127.0.0.1:9/hook', 'webhook', false, 'normal',
        'webhook', 'delivered', 1, 1, moment, moment
    FROM (SELECT CAST(n AS bigint) AS n, :since + n * interval '1 minute' / :rows AS moment
        FROM generate_series(0, :rows - 1) n) AS rows
    """,
    f"""
    INSERT INTO attempts (id, notification_id, number, provider, outcome, status_code, response_excerpt, duration_ms,
        started_at)
    SELECT {_ID}, {_ID}, 1, 'webhook', 'accepted', 204, '', 1 + n % 997, :since + n * interval '1 minute' / :rows
    FROM (SELECT CAST(n AS bigint) AS n FROM generate_series(0, :rows - 1) n) AS rows
    """,
)
_DAY: Final = text(f"""
    INSERT INTO stats_minutes
    SELECT 'event_type', :until - minute * interval '1 minute', '', 'type.' || name, 9, 9, 0, 0, 0, 0, 9, 0,
        array_fill(3, ARRAY[20]), array_fill(3, ARRAY[20])
    FROM generate_series(1, 1440) minute, generate_series(0, {MOST_NAMES}) name
    UNION ALL
    SELECT 'channel', :until - minute * interval '1 minute', name, name, 9, 9, 0, 0, 0, 0, 9, 0,
        array_fill(3, ARRAY[20]), array_fill(3, ARRAY[20])
    FROM generate_series(1, 1440) minute, unnest(CAST('{{email,sms,push,chat,slack}}' AS text[])) name
    ON CONFLICT DO NOTHING
""")


def _fill(engine: Engine, first: datetime, minutes: int, rows: int) -> None:
    make_partitions(engine)
    for number in range(minutes):
        since = first + number * _MINUTE
        with engine.begin() as connection:
            for statement in _FILL:
                values = {"first": millisecond_of(first_id_of(since)), "since": since, "rows": rows}
                connection.execute(text(statement), values)
    # As autovacuum leaves them within a minute.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE notifications, attempts"))


def _took(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _median(work: Callable[[], object]) -> float:
    return sorted(_took(work) for _ in range(_ASKED))[_ASKED // 2]


def _measure(engine: Engine, minutes: int, rows: int) -> dict[str, Any]:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    first = now - minutes * _MINUTE
    _fill(engine, first, minutes, rows)
    with engine.begin() as connection:
        reading = _took(lambda: read_minute(connection, first + _MINUTE))
    with engine.begin() as connection:
        empty = _took(lambda: read_minute(connection, now - timedelta(hours=9)))
    counted = _took(lambda: next(roll_up(engine)))
    with engine.begin() as connection:
        connection.execute(_DAY, {"until": now})
        connection.execute(text("DELETE FROM stats_progress"))  # so that no hour counts as there
    until = now + _MINUTE
    day = Question(Dimension.CHANNEL, Step.MINUTE, now - timedelta(days=1), until)
    total = Question(Dimension.EVENT_TYPE, Step.TOTAL, now - timedelta(days=1), until)
    return {
        "rows": rows,
        "read_ms": reading,
        "counted_ms": counted,
        "empty_ms": empty,
        "day_by_minute_ms": _median(lambda: figures.ask(engine, day)),
        "total_of_minutes_ms": _median(lambda: figures.ask(engine, total)),
    }


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"A minute with {found['rows']:,} attempts")
    table.add_column("what")
    table.add_column("ms", justify="right")
    for name, words in (
        ("read_ms", "read its counts"),
        ("counted_ms", "count it: read, replace, go on"),
        ("empty_ms", "read a minute without rows"),
        ("day_by_minute_ms", "figures of a day, by minute and by channel"),
        ("total_of_minutes_ms", "figures of a day from minutes alone, by event type"),
    ):
        table.add_row(words, f"{found[name]:.0f}")
    return table


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="notifier-") as folder:
        server = EmbeddedPostgres(Path(folder))
        server.start()
        try:
            server.create_database(_DATABASE)
            url = make_url(server.url(_DATABASE)).set(drivername="postgresql+psycopg2")
            engine = create_engine(url)
            migrations.upgrade(engine)
            found = _measure(engine, given.minutes, given.rows)
            engine.dispose()
        finally:
            server.stop()
    show(found, _table, as_json=given.json)


if __name__ == "__main__":
    main()
