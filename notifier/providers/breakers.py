"""Breakers of providers: one that is down is left alone, by all workers, until a single message finds it well again.

    closed     5 failures of its own in a row open it
    open       nothing is sent by it for 5 s, doubled with each probe that fails, up to a minute
    half open  one worker sends one message to try it out: a yes closes it, a no opens it for longer

A failure of its own is one with the fault `provider`: no connection, a timeout, 5xx, credentials that are refused. Any
other answer says that it is alive. Kept in Postgres, in rows that are read with what the gate must know anyway: a
provider that does well has none and costs no write, and no Redis need be there (benchmarks/breakers.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, text

from notifier.observability import metrics
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel

#: Failures in a row that open a breaker.
OPENS_AT: Final = 5
_FIRST_OPEN: Final = 5
_LONGEST_OPEN: Final = 60
#: Rows that are let go in one transaction.
_ROWS: Final = 5000


@dataclass(frozen=True, slots=True)
class Health:
    """How a provider fared when a batch began."""

    failures: int = 0
    #: Its breaker is open, and for so many seconds nobody may try it out: 0 where somebody may. None: it is closed.
    shut_for: float | None = None
    #: Seconds that it was left alone for last.
    open_for: float = 0.0


#: No breaker is open for as long, in seconds; whatever its row says.
_DAY: Final = 86_400
#: Of a channel, as JSON: a subquery for what reads facts anyway.
HEALTH_IN_SQL: Final = f"""
    SELECT CAST(json_agg(json_build_array(name, failures,
        CASE WHEN open_until IS NOT NULL
            THEN least(greatest(extract(epoch FROM greatest(open_until, probing_until) - now()), 0), {_DAY}) END,
        least(greatest(coalesce(open_for, 0), 0), {_DAY}))) AS text)
    FROM providers WHERE channel = :channel
"""


def health_from(document: str | None) -> dict[str, Health]:
    """What HEALTH_IN_SQL has read, by the provider's name."""
    return {name: Health(failures, shut, length) for name, failures, shut, length in orjson.loads(document or "[]")}


_TAKE_PROBE: Final = text("""
    UPDATE providers SET probing_until = now() + :seconds * interval '1 second'
    WHERE channel = :channel AND name = :name AND open_until <= now() AND coalesce(probing_until <= now(), true)
    RETURNING name
""")


def take_probe(engine: Engine, channel: Channel, name: str, seconds: float) -> bool:
    """Whether this worker may send the one message that tries a provider out; for so long nobody else may."""
    values = {"channel": channel.value, "name": name, "seconds": seconds}
    with engine.begin() as connection:
        taken = connection.execute(_TAKE_PROBE, values).first() is not None
    if taken:
        _count(channel, "half_open", [name])
    return taken


def _count(channel: Channel, state: str, names: Iterable[str]) -> None:
    metrics.count(metrics.BREAKER_TRANSITIONS, ((channel.value, name, state) for name in names))


_LEAVE_PROBES: Final = text("""
    UPDATE providers SET probing_until = NULL WHERE channel = :channel AND name = ANY(:names) AND open_until <= now()
""")


def leave_probes(engine: Engine, channel: Channel, names: Sequence[str]) -> None:
    """Leave what take_probe gave to the next one that asks. Only soon afterwards: later it may be another one's."""
    with engine.begin() as connection:
        connection.execute(_LEAVE_PROBES, {"channel": channel.value, "names": list(names)})


class ProviderTally:
    """What one batch has seen of one provider since it was reported last."""

    def __init__(self, name: str, known: Health) -> None:
        self.name = name
        #: Failures in a row, those that others have seen included.
        self.in_a_row = known.failures
        #: It was open already when the batch began.
        self.was_shut = known.shut_for is not None
        self._troubled = known.failures > 0 or self.was_shut
        self._failures = 0
        self._failed: Result | None = None
        self._alive: Result | None = None
        #: A probe came back with a failure.
        self._probe_failed = False

    @property
    def is_shut(self) -> bool:
        """Whether this batch alone has seen enough to leave it alone."""
        return self.in_a_row >= OPENS_AT

    def add(self, result: Result, *, probing: bool) -> None:
        """Take one result in."""
        if result.fault is Fault.PROVIDER and result.outcome is not Outcome.ACCEPTED:
            self.in_a_row += 1
            self._failures += 1
            self._failed = result
            self._probe_failed = self._probe_failed or probing
        elif result.status_code is not None or result.outcome is Outcome.ACCEPTED:
            self.in_a_row = self._failures = 0
            self._alive = result

    def take(self) -> dict[str, Any] | None:
        """What there is to remember, once; None where it does as well as before."""
        failed, alive = self._failed, self._alive
        if failed is None and (alive is None or not self._troubled):
            return None
        self._troubled = failed is not None
        taken = {
            "name": self.name,
            "failures": self._failures,
            "alive_at": alive and alive.ended_at,
            "failed_at": failed and failed.ended_at,
            "error": failed and failed.error,
            "probe_failed": self._probe_failed,
        }
        self._failures, self._failed, self._alive, self._probe_failed = 0, None, None, False
        return taken


# All in one order, and those that are not there yet too: no two transactions wait for each other.
_LOCK: Final = text("""
    INSERT INTO providers (channel, name) SELECT :channel, name FROM unnest(CAST(:names AS text[])) AS wanted(name)
    ORDER BY name ON CONFLICT (channel, name) DO UPDATE SET name = excluded.name
""")
_NOTE: Final = text(f"""
    INSERT INTO providers AS known (channel, name, failures, failing_since, failed_at, error, open_for, open_until)
    SELECT :channel, name, failures, CASE WHEN failures > 0 THEN now() END, least(failed_at, now()), error,
        CASE WHEN failures >= {OPENS_AT} THEN {_FIRST_OPEN} END,
        CASE WHEN failures >= {OPENS_AT} THEN now() + {_FIRST_OPEN} * interval '1 second' END
    FROM json_to_recordset(CAST(:notes AS json)) AS note(name text, failures integer, failed_at timestamptz, error text)
    WHERE failed_at IS NOT NULL ORDER BY name
    ON CONFLICT (channel, name) DO UPDATE SET
        failures = known.failures + excluded.failures,
        failing_since = coalesce(known.failing_since, excluded.failing_since),
        failed_at = greatest(known.failed_at, excluded.failed_at),
        error = excluded.error,
        open_for = CASE WHEN known.open_until IS NULL AND known.failures + excluded.failures >= {OPENS_AT}
            THEN {_FIRST_OPEN} ELSE known.open_for END,
        open_until = CASE WHEN known.open_until IS NULL AND known.failures + excluded.failures >= {OPENS_AT}
            THEN now() + {_FIRST_OPEN} * interval '1 second' ELSE known.open_until END
    RETURNING name, coalesce(open_until = now() + {_FIRST_OPEN} * interval '1 second', false) AS opened
""")
# An answer from before the last failure says nothing. (No failure is later than now: a worker's clock may be ahead.)
_ALIVE: Final = text("""
    UPDATE providers known SET failures = 0, failing_since = NULL, open_until = NULL, open_for = NULL,
        probing_until = NULL
    FROM json_to_recordset(CAST(:notes AS json)) AS note(name text, alive_at timestamptz)
        JOIN providers before ON before.channel = :channel AND before.name = note.name
    WHERE known.channel = :channel AND known.name = note.name AND note.alive_at > coalesce(known.failed_at, '-infinity')
    RETURNING known.name, before.open_until IS NOT NULL AS closed
""")
# What was under way when it opened changes nothing; a probe does.
_PROBE_FAILED: Final = text(f"""
    UPDATE providers SET probing_until = NULL, open_for = least({_LONGEST_OPEN}, 2 * coalesce(open_for, 0)),
        open_until = now() + least({_LONGEST_OPEN}, 2 * coalesce(open_for, 0)) * interval '1 second'
    WHERE channel = :channel AND name = ANY(:names) AND open_until IS NOT NULL AND probing_until IS NOT NULL
    RETURNING name
""")


def remember(engine: Engine, channel: Channel, notes: Sequence[Mapping[str, Any]]) -> None:
    """Remember what a batch has seen (see ProviderTally.take)."""
    if not notes:
        return
    document = to_json(sorted(notes, key=lambda note: note["name"]))
    probed = [note["name"] for note in notes if note["probe_failed"]]
    values = {"channel": channel.value, "notes": document}
    with engine.begin() as connection:
        lock(connection, channel, [note["name"] for note in notes])
        closed = [row.name for row in connection.execute(_ALIVE, values) if row.closed]
        opened = [row.name for row in connection.execute(_NOTE, values) if row.opened]
        if probed:
            opened += connection.scalars(_PROBE_FAILED, {"channel": channel.value, "names": probed})
    _count(channel, "closed", closed)
    _count(channel, "open", opened)


def lock(connection: Connection, channel: Channel, names: Sequence[str]) -> None:
    """Keep what is known of some providers as it is until the connection's transaction ends, also from the clock."""
    connection.execute(_LOCK, {"channel": channel.value, "names": list(names)})


_WAITED_FOR: Final = text("""
    UPDATE providers SET waited_for = true WHERE channel = :channel AND name = ANY(:names) AND NOT waited_for
""")


def keep_waiting(connection: Connection, channel: Channel, names: Sequence[str]) -> None:
    """Remember that rows wait for some providers, so that the clock lets them go once one is well."""
    connection.execute(_WAITED_FOR, {"channel": channel.value, "names": list(names)})


_WELL: Final = text(
    "SELECT channel, name FROM providers WHERE waited_for AND open_until IS NULL FOR UPDATE SKIP LOCKED"
)
# Those whose rule names it: others wait for a provider that is still down, and would come back for ever.
_LET_GO: Final = text(f"""
    UPDATE notifications SET due_at = now() WHERE id = ANY(ARRAY(
        SELECT id FROM notifications
        WHERE subscription_id IS NULL AND reason = '{Reason.BREAKER_OPEN}' AND due_at IS NOT NULL AND due_at > now()
            AND channel = :channel AND strpos(rule, :name) > 0
        ORDER BY due_at LIMIT {_ROWS} FOR UPDATE SKIP LOCKED
    ))
""")
_NO_MORE: Final = text("UPDATE providers SET waited_for = false WHERE channel = :channel AND name = :name")


def let_go(engine: Engine) -> int:
    """Make due what waits for providers that are well again, some thousands; returns how many. The clock's work."""
    done = 0
    with engine.begin() as connection:
        for well in connection.execute(_WELL).all():
            freed = connection.execute(_LET_GO, {"channel": well.channel, "name": well.name}).rowcount
            done += freed
            if freed < _ROWS:
                connection.execute(_NO_MORE, {"channel": well.channel, "name": well.name})
    return done


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """What is remembered of a provider, for people."""

    channel: str
    name: str
    failures: int
    failing_since: datetime | None
    failed_at: datetime | None
    error: str | None
    open_until: datetime | None
    probing: bool
    waited_for: bool


_BREAKER_STATUSES: Final = text("""
    SELECT channel, name, failures, failing_since, failed_at, error, open_until,
        coalesce(probing_until > now(), false) AS probing, waited_for
    FROM providers ORDER BY channel, name
""")


def breaker_statuses(engine: Engine) -> list[BreakerStatus]:
    """What is remembered of all providers."""
    with engine.connect() as connection:
        return [BreakerStatus(*row) for row in connection.execute(_BREAKER_STATUSES)]
