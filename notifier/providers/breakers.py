"""Circuit breakers of providers: one that is down is left alone by all workers until a probe finds it well again.

The rules are providers.circuit's: 5 failures of a provider's own in a row open its breaker for 5 seconds, at the most a
minute. A failure of its own is one with the fault `provider`: no connection, a timeout, 5xx, credentials that are
refused. Any other answer says that it is alive.

The state is in Postgres, in rows that are read with what the gate must know anyway: a provider that does well has none
and costs no write, and breakers need no Redis (benchmarks/breakers.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, Row, text

from notifier.observability import metrics
from notifier.providers.circuit import Circuit, State, Thresholds, state_at
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.storage.stored_values import bounded_seconds, seconds_until
from notifier.vocabulary import deferrals
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel

#: Shorter than for endpoints: while a provider is down, a whole channel may wait.
_THRESHOLDS: Final = Thresholds(failures_to_open=5, first_open=5, longest_open=60)
#: Failures in a row that open a breaker.
OPENS_AT: Final = _THRESHOLDS.failures_to_open
#: Rows that are released in one transaction.
_ROWS: Final = 5000

_OPEN_FOR: Final = bounded_seconds("known.open_for")
_OPEN_LEFT: Final = seconds_until("known.open_until")
_PROBE_LEFT: Final = seconds_until("known.probing_until")
#: The fields of a Circuit.
_CIRCUIT: Final = f"known.failures, {_OPEN_FOR} AS open_for, {_OPEN_LEFT} AS open_left, {_PROBE_LEFT} AS probe_left"
#: The circuits of a channel's providers as JSON: a subquery for the statement that reads the gate's facts.
HEALTH_IN_SQL: Final = f"""
    SELECT CAST(json_agg(json_build_array(name, failures, {_OPEN_FOR}, {_OPEN_LEFT}, {_PROBE_LEFT})) AS text)
    FROM providers known WHERE channel = :channel
"""


def health_from(document: str | None) -> dict[str, Circuit]:
    """Return the circuits that HEALTH_IN_SQL has read, by the provider's name."""
    return {name: Circuit(*fields) for name, *fields in orjson.loads(document or "[]")}


def _circuit(row: Row[Any]) -> Circuit:
    return Circuit(row.failures, row.open_for, row.open_left, row.probe_left)


_LOCKED: Final = text(f"""
    SELECT {_CIRCUIT} FROM providers known WHERE channel = :channel AND name = :name FOR UPDATE
""")
_TAKE_PROBE: Final = text("""
    UPDATE providers SET probing_until = now() + :seconds * interval '1 second'
    WHERE channel = :channel AND name = :name
""")


def take_probe(engine: Engine, channel: Channel, name: str, seconds: float) -> bool:
    """Return whether this worker may send the probe of a provider; for so many seconds nobody else may."""
    values = {"channel": channel.value, "name": name}
    with engine.begin() as connection:
        known = connection.execute(_LOCKED, values).first()
        probing = None if known is None else _circuit(known).take_probe(seconds)
        if probing is None:
            return False
        connection.execute(_TAKE_PROBE, {**values, "seconds": probing.probe_left})
    _count(channel, [(name, State.HALF_OPEN)])
    return True


def _count(channel: Channel, transitions: Iterable[tuple[str, State]]) -> None:
    metrics.count(metrics.BREAKER_TRANSITIONS, ((channel.value, name, state) for name, state in transitions))


_RELEASE_PROBES: Final = text("""
    UPDATE providers SET probing_until = NULL WHERE channel = :channel AND name = ANY(:names) AND open_until <= now()
""")


def release_probes(engine: Engine, channel: Channel, names: Sequence[str]) -> None:
    """Release unused probes. Call promptly: later a probe may belong to another worker."""
    with engine.begin() as connection:
        connection.execute(_RELEASE_PROBES, {"channel": channel.value, "names": list(names)})


class ProviderTally:
    """Results of one provider that a batch has seen since its last report."""

    def __init__(self, name: str, known: Circuit) -> None:
        self.name = name
        #: Failures in a row, including those that other workers have seen.
        self.in_a_row = known.failures
        #: Its breaker was open or half-open when the batch began.
        self.was_open = not known.is_closed
        self._troubled = known.failures > 0 or self.was_open
        self._failures = 0
        self._failed: Result | None = None
        self._alive: Result | None = None
        #: A probe of this batch has failed.
        self._probe_failed = False

    @property
    def is_open(self) -> bool:
        """Whether the failures in a row are enough to open its breaker, even before they are reported."""
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
        """Return what is to be recorded, once; None if nothing has changed."""
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


# All rows are locked in one order, missing ones too, so that no two transactions wait for each other.
_LOCK: Final = text("""
    INSERT INTO providers (channel, name) SELECT :channel, name FROM unnest(CAST(:names AS text[])) AS wanted(name)
    ORDER BY name ON CONFLICT (channel, name) DO UPDATE SET name = excluded.name
""")
# An answer from before the last failure proves nothing. No failure is recorded as later than now: a worker's clock may
# be ahead.
_READ: Final = text(f"""
    SELECT known.name, {_CIRCUIT}, coalesce(note.alive_at > coalesce(known.failed_at, '-infinity'), false) AS answered
    FROM json_to_recordset(CAST(:notes AS json)) AS note(name text, alive_at timestamptz)
    JOIN providers known ON known.channel = :channel AND known.name = note.name
""")
_WRITE: Final = text("""
    UPDATE providers known SET
        failures = note.failures,
        failing_since = CASE WHEN note.failed AND (note.answered OR known.failing_since IS NULL) THEN now()
            WHEN note.answered THEN NULL ELSE known.failing_since END,
        failed_at = CASE WHEN note.failed_at IS NULL THEN known.failed_at
            ELSE greatest(known.failed_at, least(note.failed_at, now())) END,
        error = CASE WHEN note.failed_at IS NULL THEN known.error ELSE note.error END,
        open_for = nullif(note.open_for, 0),
        open_until = now() + note.open_left * interval '1 second',
        probing_until = now() + note.probe_left * interval '1 second'
    FROM json_to_recordset(CAST(:notes AS json)) AS note(name text, answered boolean, failed boolean,
        failed_at timestamptz, error text,
        failures integer, open_for double precision, open_left double precision, probe_left double precision)
    WHERE known.channel = :channel AND known.name = note.name
""")


def remember(engine: Engine, channel: Channel, notes: Sequence[Mapping[str, Any]]) -> None:
    """Record what a batch has seen of its providers (see ProviderTally.take)."""
    if not notes:
        return
    by_name = {note["name"]: note for note in notes}
    changed: list[dict[str, Any]] = []
    transitions: list[tuple[str, State]] = []
    with engine.begin() as connection:
        lock(connection, channel, list(by_name))
        for row in connection.execute(_READ, {"channel": channel.value, "notes": to_json(notes)}).all():
            note, before = by_name[row.name], _circuit(row)
            if not row.answered and note["failed_at"] is None:
                continue
            answered = before.succeed() if row.answered else before
            after = answered.fail(_THRESHOLDS, note["failures"], probe_failed=note["probe_failed"])
            steps = ((before, answered), (answered, after))
            transitions += [(row.name, new.state) for old, new in steps if new.state is not old.state]
            seen = {"name": row.name, "answered": row.answered, "failed": note["failures"] > 0}
            changed.append({**seen, "failed_at": note["failed_at"], "error": note["error"], **asdict(after)})
        if changed:
            connection.execute(_WRITE, {"channel": channel.value, "notes": to_json(changed)})
    _count(channel, transitions)


def lock(connection: Connection, channel: Channel, names: Sequence[str]) -> None:
    """Lock the rows of providers until the connection's transaction ends, also against the clock."""
    connection.execute(_LOCK, {"channel": channel.value, "names": list(names)})


_WAITED_FOR: Final = text("""
    UPDATE providers SET waited_for = true WHERE channel = :channel AND name = ANY(:names) AND NOT waited_for
""")


def mark_waited_for(connection: Connection, channel: Channel, names: Sequence[str]) -> None:
    """Mark providers for which rows wait, so that the clock releases those rows once a breaker closes."""
    connection.execute(_WAITED_FOR, {"channel": channel.value, "names": list(names)})


_WELL: Final = text(
    "SELECT channel, name FROM providers WHERE waited_for AND open_until IS NULL FOR UPDATE SKIP LOCKED"
)
# Rows that wait for a provider which is still down stay as they are: they would only be deferred again, every second.
# The release before this one says in `rule` alone what a row waits for. The next release drops that condition.
_RELEASE: Final = text(f"""
    UPDATE notifications SET due_at = now() WHERE id = ANY(ARRAY(
        SELECT id FROM notifications
        WHERE subscription_id IS NULL AND reason = '{Reason.BREAKER_OPEN}' AND due_at IS NOT NULL AND due_at > now()
            AND channel = :channel
            AND (:waits_for = ANY(waits_for) OR waits_for IS NULL AND strpos(rule, :name) > 0)
        ORDER BY due_at LIMIT {_ROWS} FOR UPDATE SKIP LOCKED
    ))
""")
_NO_MORE: Final = text("UPDATE providers SET waited_for = false WHERE channel = :channel AND name = :name")


def release(engine: Engine) -> int:
    """Make due the rows that wait for providers whose breakers have closed, some thousands; returns how many."""
    done = 0
    with engine.begin() as connection:
        for well in connection.execute(_WELL).all():
            values = {"channel": well.channel, "name": well.name, "waits_for": deferrals.provider(well.name)}
            freed = connection.execute(_RELEASE, values).rowcount
            done += freed
            if freed < _ROWS:
                connection.execute(_NO_MORE, {"channel": well.channel, "name": well.name})
    return done


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A provider's breaker as `manage.py` and the API show it."""

    channel: str
    name: str
    failures: int
    failing_since: datetime | None
    failed_at: datetime | None
    error: str | None
    open_until: datetime | None
    probing: bool
    waited_for: bool
    #: Where it takes only so many a second: when the next message may go, and the last place in its line.
    next_slot: datetime | None
    line_until: datetime | None

    @property
    def state(self) -> State:
        """Closed, open, or half-open from the end of the open period on."""
        return state_at(datetime.now(UTC), self.open_until)


_BREAKER_STATUSES: Final = text("""
    SELECT channel, name, failures, failing_since, failed_at, error, open_until,
        coalesce(probing_until > now(), false) AS probing, waited_for, next_slot, line_until
    FROM providers ORDER BY channel, name
""")


def breaker_statuses(engine: Engine) -> list[BreakerStatus]:
    """Return the breakers of all providers."""
    with engine.connect() as connection:
        return [BreakerStatus(**row) for row in connection.execute(_BREAKER_STATUSES).mappings()]
