"""One minute's counts, read from the tables of the deliveries."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, text

from notifier.providers.protocol import Outcome
from notifier.statistics.histogram import BOUNDS_IN_SQL, BUCKETS
from notifier.vocabulary.ids import first_id_of
from notifier.vocabulary.queues import QUEUE_IN_SQL, RETRY
from notifier.vocabulary.states import Status
from notifier.vocabulary.statistics import OTHERS, UNNAMED, Dimension

MINUTE: Final = timedelta(minutes=1)
#: Event types and sources that have rows of their own in a minute or an hour: callers choose those names.
MOST_NAMES: Final = 50

#: The columns of counts, in the order of the table.
COUNTS: Final = ("accepted", "sent", "rejected", "unsent", "ambiguous", "retries", "delivered", "failed")
#: Columns that count each row of the deliveries once; the others are parts of them.
ROWS: Final = ("accepted", "sent", "rejected", "unsent", "ambiguous", "failed")
_CALL: Final = "call"
_WAIT: Final = "wait"

#: Plans for rows that are few beside their tables, also on a day without statistics. Another kind of join would read
#: all of `notifications`, and a sort would take longer than hashing. It takes one core: deliveries need the others.
_PLAN: Final = text("""
    SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
    SET LOCAL enable_sort = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL work_mem = '32MB'
""")

#: A column of names: none as UNNAMED, and no longer than an index takes.
_NAME: Final = f"left(coalesce({{}}, '{UNNAMED}'), 255)"
# A row that failed has moved to its retry queue by now; its first attempt came from the queue of its priority.
_IN_RETRY: Final = "queue IN ({})".format(", ".join(f"'{queue}'" for queue in RETRY))
_FIRST_QUEUE: Final = f"CASE WHEN {_IN_RETRY} THEN {QUEUE_IN_SQL} ELSE queue END"
_QUEUE: Final = f"CASE WHEN a.number = 1 THEN {_FIRST_QUEUE} ELSE n.queue END"
# Of a row that was due as soon as it was accepted and was not put off, the wait is ours, until the provider answers.
_AT_ONCE: Final = """n.send_at IS NULL AND n.target_date IS NULL AND n.deferred_at IS NULL AND n.follows IS NULL
    AND isfinite(n.created_at)"""
_WAITED: Final = """extract(epoch FROM a.started_at - n.created_at) * 1000 + coalesce(a.duration_ms, 0)"""
# Bounds for the attempts of a notification, whose ids have its millisecond: they leave one day's partition to look in.
_OF_MILLISECOND: Final = "CAST(left(CAST(d.notification_id AS text), 13) || '{}' AS uuid)"
_FIRST: Final = _OF_MILLISECOND.format("-0000-0000-000000000000")
_LAST: Final = _OF_MILLISECOND.format("-ffff-ffff-ffffffffffff")


def _loud(column: str) -> str:
    """Return SQL for the names of a column that most rows have."""
    return f"""
        SELECT {column} FROM counted GROUP BY 1 ORDER BY sum(rows) DESC, 1 LIMIT {MOST_NAMES}
    """


# `counted` has every row once, grouped by all that is asked of it, so that what follows works on some thousands.
_READ: Final = text(f"""
    WITH tried AS (
        SELECT {_NAME.format("n.channel")} AS channel, {_NAME.format("a.provider")} AS provider,
            {_NAME.format("n.event_type")} AS event_type, {_NAME.format("n.source")} AS source,
            {_NAME.format(_QUEUE)} AS queue, CASE WHEN a.outcome = '{Outcome.ACCEPTED}' THEN 'sent' ELSE a.outcome END
            AS outcome, a.number > 1 AS again, a.outcome = '{Outcome.ACCEPTED}' AND n.status = '{Status.DELIVERED}'
            AS arrived, width_bucket(a.duration_ms, {BOUNDS_IN_SQL}) AS call,
            CASE WHEN a.outcome = '{Outcome.ACCEPTED}' AND a.number = 1 AND {_AT_ONCE}
                THEN width_bucket(CAST({_WAITED} AS double precision), {BOUNDS_IN_SQL}) END AS wait
        FROM attempts a JOIN notifications n ON n.id = a.notification_id
        WHERE a.started_at >= :since AND a.started_at < :until
    ), died AS (
        SELECT {_NAME.format("d.channel")} AS channel, {_NAME.format("last.provider")} AS provider,
            {_NAME.format("d.event_type")} AS event_type, {_NAME.format("coalesce(n.source, e.source)")} AS source,
            {_NAME.format("n.queue")} AS queue
        FROM dead_letters d LEFT JOIN notifications n ON n.id = d.notification_id
            LEFT JOIN events e ON d.notification_id IS NULL AND e.id = d.event_id
            LEFT JOIN LATERAL (
                SELECT provider FROM attempts a WHERE a.notification_id = d.notification_id
                    AND a.id >= {_FIRST} AND a.id <= {_LAST} ORDER BY a.number DESC LIMIT 1
            ) last ON true
        WHERE d.id >= :first AND d.id < :beyond
    ), counted AS MATERIALIZED (
        SELECT channel, provider, event_type, source, queue, outcome, again, arrived, call, wait, count(*) AS rows
        FROM tried GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
        UNION ALL
        SELECT {_NAME.format("channel")}, '{UNNAMED}', {_NAME.format("event_type")}, {_NAME.format("source")},
            {_NAME.format(_FIRST_QUEUE)}, 'accepted', false, false, NULL, NULL, count(*)
        FROM notifications WHERE id >= :first AND id < :beyond GROUP BY 1, 2, 3, 4, 5
        UNION ALL
        SELECT channel, provider, event_type, source, queue, 'failed', false, false, NULL, NULL, count(*)
        FROM died GROUP BY 1, 2, 3, 4, 5
    ), loud AS MATERIALIZED (
        SELECT channel, provider, CASE WHEN event_type = ANY(ARRAY({_loud("event_type")})) THEN event_type
                ELSE '{OTHERS}' END AS event_type,
            CASE WHEN source = ANY(ARRAY({_loud("source")})) THEN source ELSE '{OTHERS}' END AS source,
            queue, outcome, again, arrived, call, wait, rows
        FROM counted
    )
    SELECT dimension, keyed.channel, name, measure, coalesce(bucket, 0) AS bucket, CAST(sum(rows) AS bigint) AS rows
    FROM loud CROSS JOIN LATERAL (VALUES
        ('{Dimension.CHANNEL}', loud.channel, loud.channel),
        ('{Dimension.PROVIDER}', loud.channel, provider),
        ('{Dimension.EVENT_TYPE}', '', event_type),
        ('{Dimension.SOURCE}', '', source),
        ('{Dimension.QUEUE}', loud.channel, queue)
    ) AS keyed(dimension, channel, name) CROSS JOIN LATERAL (VALUES
        (outcome, 0),
        (CASE WHEN again THEN 'retries' END, 0),
        (CASE WHEN arrived THEN 'delivered' END, 0),
        (CASE WHEN call IS NOT NULL THEN '{_CALL}' END, call),
        (CASE WHEN wait IS NOT NULL THEN '{_WAIT}' END, wait)
    ) AS measured(measure, bucket)
    WHERE measure IS NOT NULL AND NOT (dimension = '{Dimension.PROVIDER}' AND name = '{UNNAMED}')
    GROUP BY 1, 2, 3, 4, 5
""")


@dataclass(slots=True)
class Counts:
    """The counts of one name in one minute."""

    dimension: str
    channel: str
    name: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    call_buckets: list[int] = field(default_factory=list)
    wait_buckets: list[int] = field(default_factory=list)

    def add(self, measure: str, bucket: int, rows: int) -> None:
        """Take one group of rows in. An outcome that this release does not know is left out."""
        if measure in self.counts:
            self.counts[measure] += rows
        elif measure == _CALL:
            _count(self.call_buckets, bucket, rows)
        elif measure == _WAIT:
            _count(self.wait_buckets, bucket, rows)

    def row(self) -> dict[str, Any]:
        """Return it as the columns of its table, but for the moment."""
        key = {"dimension": self.dimension, "channel": self.channel, "name": self.name}
        return {**key, **self.counts, "call_buckets": self.call_buckets, "wait_buckets": self.wait_buckets}

    @property
    def size(self) -> int:
        """How many rows of the deliveries it has counted."""
        return sum(self.counts[each] for each in ROWS)


def _count(buckets: list[int], bucket: int, rows: int) -> None:
    """Add to a bucket of a list that ends with its last one that is not empty."""
    place = min(bucket, BUCKETS - 1)
    buckets.extend([0] * (place + 1 - len(buckets)))
    buckets[place] += rows


def read_minute(connection: Connection, minute: datetime) -> list[Counts]:
    """Count what was accepted, tried and given up in a minute, which begins at `minute`."""
    until = minute + MINUTE
    values = {"since": minute, "until": until, "first": first_id_of(minute), "beyond": first_id_of(until)}
    connection.execute(_PLAN)
    return _collected(connection.execute(_READ, values))


def _collected(rows: Iterable[Any]) -> list[Counts]:
    found: dict[tuple[str, str, str], Counts] = {}
    for row in rows:
        key = (row.dimension, row.channel, row.name)
        found.setdefault(key, Counts(*key)).add(row.measure, row.bucket, row.rows)
    return list(found.values())
