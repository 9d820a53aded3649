"""The gate's part for providers, with rows of its own and providers that take only some numbers."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from limits import parse_many
from sqlalchemy import Engine, text

from notifier.delivery.provider_gate import ProviderGate
from notifier.notifications.claims import Aside, Claimed, set_aside
from notifier.providers import breakers, rate_limits
from notifier.providers.breakers import HEALTH_IN_SQL, OPENS_AT, health_from
from notifier.providers.circuit import Circuit
from notifier.providers.failover import Choice, Providers
from notifier.providers.failover_run import FailoverRun
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.providers.rate_limits import RecipientLimits
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel
from tests.support.running import wait_for

NOW = datetime.now(UTC)
SIMULATED = "+15005550006"


@dataclass
class Vendor:
    """A provider as a package may bring it: it takes the numbers of one country."""

    country: str
    name: str = "vendor"
    confirms_delivery: bool = False
    timeout: float = 5.0
    got: list[str] = field(default_factory=list)
    is_down: bool = False

    def takes(self, recipient: str) -> bool:
        return recipient.startswith(self.country)

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        for message in messages:
            self.got.append(message.recipient)
            outcome, fault = (Outcome.UNSENT, Fault.PROVIDER) if self.is_down else (Outcome.ACCEPTED, None)
            yield [Result(message.id, outcome, self.name, datetime.now(UTC), 1.0, fault=fault)]

    def close(self) -> None:
        pass


def gate_of(*vendors: Vendor) -> ProviderGate:
    choices = [Choice(vendor, f"{vendor.name}-{place}") for place, vendor in enumerate(vendors)]
    providers = Providers(Channel.SMS, choices)
    return ProviderGate(providers, RecipientLimits(Channel.SMS, [], None), timedelta(hours=72))


def claimed(recipient: str, **more: Any) -> Claimed:
    known = {"id": new_id(), "recipient": recipient, "critical": False, "claims": 1, "attempts": 0, "created_at": NOW}
    absent = dict.fromkeys(set(Claimed.__slots__) - known.keys())
    return Claimed(**{**absent, **known, "queue": "sms", "now": NOW, **more})


def down(engine: Engine, *names: str, half_open: bool = False) -> dict[str, Circuit]:
    """Make providers' breakers open, as of now, or since a while ago; returns what a batch knows then."""
    for name in names:
        note = {"name": name, "failures": OPENS_AT, "alive_at": None, "failed_at": NOW, "error": "x"}
        breakers.remember(engine, Channel.SMS, [{**note, "probe_failed": False}])
    if half_open:
        with engine.begin() as connection:
            connection.execute(text("UPDATE providers SET open_until = now()"))
    return health(engine)


def health(engine: Engine) -> dict[str, Circuit]:
    with engine.connect() as connection:
        return health_from(connection.scalar(text(HEALTH_IN_SQL), {"channel": "sms"}))


def test_a_probe_is_left_to_batches_that_have_a_message_for_it(engine: Engine) -> None:
    gate = gate_of(Vendor("+49"), Vendor("+1"))
    known = down(engine, "vendor-0", half_open=True)
    assert gate.keep(engine, [claimed("+15550100")], known) == ([], set())
    assert gate.keep(engine, [claimed("+4930123456")], known) == ([], {0})


def test_what_the_simulator_takes_tries_nothing_out(engine: Engine) -> None:
    gate = gate_of(Vendor("+"))
    known = down(engine, "vendor-0", half_open=True)
    simulated, real = claimed(SIMULATED), claimed("+4930123456")
    put, probes = gate.keep(engine, [simulated, real], known)
    assert ([each.id for each in put], probes) == ([simulated.id], {0})


def test_what_is_put_aside_meanwhile_leaves_its_probe_to_the_next(engine: Engine) -> None:
    gate = gate_of(Vendor("+"))
    known = down(engine, "vendor-0", half_open=True)
    row = claimed("+4930123456")
    _, probes = gate.keep(engine, [row], known)
    assert gate.release_unused(engine, probes, []) == set(), "a duplicate, or its recipient has had enough"
    _, probes = gate.keep(engine, [row], health(engine))
    assert gate.release_unused(engine, probes, [row]) == {0}
    assert gate.keep(engine, [row], known)[1] == set(), "it is under way"


def test_each_row_tries_one_out(engine: Engine) -> None:
    gate = gate_of(Vendor("+"), Vendor("+"))
    known = down(engine, "vendor-0", "vendor-1", half_open=True)
    rows = [claimed("+4930123456") for _ in range(3)]
    put, probes = gate.keep(engine, rows, known)
    assert ([each.id for each in put], probes) == ([rows[2].id], {0, 1})


def failover_of(engine: Engine, gate: ProviderGate, probes: set[int], known: dict[str, Circuit]) -> FailoverRun:
    return FailoverRun(engine, gate.providers, known, probes, start_until=1e9, falls_back=lambda _: False)


def test_probes_that_no_message_is_left_for_are_others(engine: Engine) -> None:
    for count in (1, 2):
        vendors = [Vendor("+", is_down=True) for _ in range(count)]
        gate = gate_of(*vendors)
        known = down(engine, *(f"vendor-{place}" for place in range(count)), half_open=True)
        _, probes = gate.keep(engine, [claimed("+49301"), claimed("+49302")], known)
        assert probes == set(range(count))
        failover = failover_of(engine, gate, probes, known)
        assert [result for results in failover.send(iter(())) for result in results] == [], "no row of them can be made"
        assert failover.all_open
        assert {each.probe_in for each in health(engine).values()} == {0}


def test_rows_wait_for_those_alone_that_are_down(engine: Engine) -> None:
    gate = gate_of(Vendor("+49"), Vendor("+1"))
    known = down(engine, "vendor-0")
    down(engine, "vendor-1")
    breakers.remember(
        engine,
        Channel.SMS,
        [{"name": "vendor-1", "failures": 0, "alive_at": datetime.now(UTC), "failed_at": None, "error": None,
          "probe_failed": False}],
    )  # fmt: skip
    put, _ = gate.keep(engine, [claimed("+4930123456")], known)
    assert [each.reason for each in put if isinstance(each, Aside)] == [Reason.BREAKER_OPEN]
    with engine.begin() as connection:
        gate.remember_waiting(connection, put, known)
    standings = {each.name: each.waited_for for each in breakers.breaker_statuses(engine)}
    assert standings == {"vendor-0": True, "vendor-1": False}, "else the clock lets them go once a second"


def waiting_for(engine: Engine, words: str, count: int = 1, reason: str = Reason.BREAKER_OPEN) -> None:
    """Insert rows that wait for a provider, as the gate of the release before deferred them: with a sentence alone."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO notifications (id, source, recipient, channel, critical, priority, queue, status, reason,
                    rule, due_at, created_at)
                SELECT id, 'test', '+4930123456', 'sms', false, 'normal', 'sms', 'scheduled', :reason, :words,
                    now() + interval '1 minute', now()
                FROM unnest(CAST(:ids AS uuid[])) AS id
            """),
            {"ids": [new_id() for _ in range(count)], "words": words, "reason": reason},
        )


def test_the_clock_lets_go_what_waits_for_the_one_that_is_well(engine: Engine) -> None:
    """However many wait for one that is still down: they would be put off again, and let go again, every second."""
    waiting_for(engine, "vendor-0 is down; what waits goes as soon as one answers.", 4)
    waiting_for(engine, "vendor-0 and vendor-1 are down; what waits goes as soon as one answers.", 3)
    down(engine, "vendor-0")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO providers (channel, name) VALUES ('sms', 'vendor-1')"))
        breakers.mark_waited_for(connection, Channel.SMS, ["vendor-0", "vendor-1"])
    assert [breakers.release(engine), breakers.release(engine)] == [3, 0]
    assert {each.name: each.waited_for for each in breakers.breaker_statuses(engine)} == {
        "vendor-0": True,
        "vendor-1": False,
    }


def deferred(engine: Engine, decide: Callable[[list[Claimed]], Sequence[Any]], count: int) -> set[UUID]:
    """Have a gate defer claimed rows; then nobody can read why. Returns their ids."""
    rows = [claimed("+4930123456", now=datetime.now(UTC)) for _ in range(count)]
    ids = [row.id for row in rows]
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO notifications (id, source, recipient, channel, critical, priority, queue, status, claims,
                    due_at, created_at)
                SELECT id, 'test', '+4930123456', 'sms', false, 'normal', 'sms', 'sending', 1, now(), now()
                FROM unnest(CAST(:ids AS uuid[])) AS id
            """),
            {"ids": ids},
        )
    asides = [each for each in decide(rows) if isinstance(each, Aside)]
    with engine.begin() as connection:
        set_aside(connection, asides)
        connection.execute(
            text("UPDATE notifications SET explanation = 'reworded', rule = 'reworded' WHERE id = ANY(:ids)"),
            {"ids": ids},
        )
    return {each.id for each in asides}


def due(engine: Engine) -> set[UUID]:
    """Return the scheduled rows that the clock will hand over now."""
    with engine.connect() as connection:
        return set(
            connection.scalars(text("SELECT id FROM notifications WHERE reason IS NOT NULL AND due_at <= now()"))
        )


def test_no_sentence_is_needed_to_let_go_what_waits_for_a_provider(engine: Engine) -> None:
    gate = gate_of(Vendor("+"), Vendor("+"))
    alone = ProviderGate(Providers(Channel.SMS, gate.providers.choices[:1]), gate.limits, gate.max_age)
    known = {name: Circuit(OPENS_AT, 60.0, 60.0) for name in ("vendor-0", "vendor-1")}
    for_first = deferred(engine, lambda rows: alone.keep(engine, rows, known)[0], 2)
    for_either = deferred(engine, lambda rows: gate.keep(engine, rows, known)[0], 3)
    down(engine, "vendor-0")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO providers (channel, name) VALUES ('sms', 'vendor-1')"))
        breakers.mark_waited_for(connection, Channel.SMS, ["vendor-0", "vendor-1"])
    assert [breakers.release(engine), breakers.release(engine)] == [3, 0]
    assert due(engine) == for_either
    with engine.begin() as connection:
        connection.execute(text("UPDATE providers SET open_until = NULL"))
    assert breakers.release(engine) == 2
    assert due(engine) == for_first | for_either


def test_no_sentence_is_needed_to_move_up_in_a_providers_line(engine: Engine) -> None:
    gate = gate_of(Vendor("+"))
    gate = replace(gate, providers=Providers(Channel.SMS, [replace(gate.providers.choices[0], rate=0.1)]))
    limited = replace(gate, limits=RecipientLimits(Channel.SMS, parse_many("1/hour"), None))

    def pace(rows: list[Claimed]) -> Sequence[Any]:
        with engine.begin() as connection:
            return gate.pace(connection, rows, {})

    in_line = deferred(engine, pace, 3)
    assert len(in_line) == 2
    assert len(deferred(engine, limited.limit, 3)) == 2
    with engine.begin() as connection:
        connection.execute(text("UPDATE providers SET next_slot = now() - interval '1 minute'"))
    assert [rate_limits.move_up(engine), rate_limits.move_up(engine)] == [2, 0]
    assert due(engine) == in_line


def test_what_the_release_before_writes_replaces_what_this_one_wrote(engine: Engine) -> None:
    """The release before writes `rule` alone. Here it makes a row due, and then defers it for another provider."""
    gate, known = gate_of(Vendor("+")), {"vendor-0": Circuit(OPENS_AT, 60.0, 60.0)}
    [row_id] = deferred(engine, lambda rows: gate.keep(engine, rows, known)[0], 1)
    read = "SELECT explanation, rule, waits_for FROM notifications"

    def write(changes: str) -> tuple[Any, ...]:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE notifications SET {changes}"))
            return tuple(connection.execute(text(read)).one())

    assert write("claims = 2") == ("reworded", "reworded", ["provider:vendor-0"])
    assert write("status = 'queued', reason = NULL, rule = NULL") == (None, None, None)
    words = "vendor-1 is down; what waits goes as soon as one answers."
    assert write("status = 'sending'") == (None, None, None)
    assert write(f"status = 'scheduled', reason = 'breaker_open', rule = '{words}'") == (words, words, None)
    with engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET due_at = now() + interval '1 minute'"))
        connection.execute(
            text("INSERT INTO providers (channel, name) VALUES ('sms', 'vendor-0'), ('sms', 'vendor-1')")
        )
        breakers.mark_waited_for(connection, Channel.SMS, ["vendor-0"])
    assert breakers.release(engine) == 0
    with engine.begin() as connection:
        breakers.mark_waited_for(connection, Channel.SMS, ["vendor-1"])
    assert breakers.release(engine) == 1
    assert due(engine) == {row_id}


def locked(engine: Engine) -> set[str]:
    """The providers whose rows others hold."""
    with engine.begin() as connection:
        every = set(connection.scalars(text("SELECT name FROM providers")))
        return every - set(connection.scalars(text("SELECT name FROM providers FOR UPDATE SKIP LOCKED")))


def paces(engine: Engine, gate: ProviderGate) -> None:
    with engine.begin() as connection:
        gate.pace(connection, [claimed("+4930123456"), claimed("+15550100")], {})


def waits_and_paces(engine: Engine, gate: ProviderGate) -> None:
    known = {name: Circuit(OPENS_AT, 5.0, 5.0) for name in ("b", "a")}
    put, _ = gate.keep(engine, [claimed("+4930123456")], known)
    with engine.begin() as connection:
        gate.remember_waiting(connection, put, known)


def remembers(engine: Engine, _: ProviderGate) -> None:
    note = {"failures": 1, "alive_at": NOW, "failed_at": NOW, "error": "x", "probe_failed": False}
    breakers.remember(engine, Channel.SMS, [{**note, "name": name} for name in ("b", "a")])


@pytest.mark.parametrize("work", [paces, waits_and_paces, remembers], ids=lambda work: work.__name__)
def test_rows_of_providers_are_locked_in_one_order(
    engine: Engine, work: Callable[[Engine, ProviderGate], None]
) -> None:
    gate = gate_of(Vendor("+49"), Vendor("+1"))
    choices = [replace(each, name=name, rate=1.0) for each, name in zip(gate.providers.choices, "ba", strict=True)]
    gate = replace(gate, providers=Providers(Channel.SMS, choices))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO providers (channel, name) VALUES ('sms', 'b'), ('sms', 'a')"))
    is_waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with ThreadPoolExecutor(1) as pool, engine.connect() as looking:
        with engine.begin() as blocker:
            blocker.execute(text("SELECT FROM providers WHERE name = 'a' FOR UPDATE"))
            working = pool.submit(work, engine, gate)

            def is_blocked() -> bool:
                looking.rollback()
                return bool(looking.scalar(is_waiting))

            wait_for(is_blocked)
            assert locked(engine) == {"a"}, "who holds b must not wait for a"
        working.result(10)


def test_what_cannot_wait_that_long_takes_no_place_in_line(engine: Engine) -> None:
    gate = gate_of(Vendor("+"))
    gate = replace(gate, providers=Providers(Channel.SMS, [replace(gate.providers.choices[0], rate=1.0)]))

    def pace(count: int) -> list[float]:
        """Whether rows of use for ten seconds go (0), wait so long, or are expired (-1)."""
        rows = [claimed("+4930123456", expires_at=NOW + timedelta(seconds=10)) for _ in range(count)]
        with engine.begin() as connection:
            put = {each.id: each for each in gate.pace(connection, rows, {})}
        waits = [each.due_at and round((each.due_at - NOW).total_seconds()) for each in put.values()]
        return [0] * (count - len(put)) + [-1 if wait is None else wait for wait in waits]

    assert pace(100) == [0, *range(1, 10), *[-1] * 90]
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE providers SET line_until = line_until - 4 * interval '1 second', next_slot = now()")
        )
    assert pace(2)[0] in {6, 7}, "four seconds later the line is as much shorter"


def paced_by(engine: Engine, rate: float, rows: Sequence[Claimed], **row: str) -> list[float]:
    """Seconds that rows wait at a provider with such a rate; `row`: what is known of it, as SQL."""
    gate = gate_of(Vendor("+"))
    gate = replace(gate, providers=Providers(Channel.SMS, [replace(gate.providers.choices[0], rate=rate)]))
    with engine.begin() as connection:
        if row:
            columns, values = ", ".join(row), ", ".join(row.values())
            connection.execute(
                text(f"INSERT INTO providers (channel, name, {columns}) VALUES ('sms', 'vendor-0', {values})")
            )
        put = {each.id: each for each in gate.pace(connection, rows, {})}
    waits = [put[each.id].due_at for each in rows if each.id in put]
    return [(at - NOW).total_seconds() for at in waits if at is not None]


def test_a_message_whose_slot_is_about_to_begin_keeps_its_place_in_line(engine: Engine) -> None:
    """The one before it came late and moved the slots: at the end of the line it would be looked at for ever."""
    soon, line = "now() + interval '400 milliseconds'", "now() + interval '30 seconds'"
    waited = claimed("+4930123456", deferred_at=NOW - timedelta(seconds=5))
    assert paced_by(engine, 1.0, [waited], next_slot=soon, line_until=line) == []
    [wait] = paced_by(engine, 1.0, [claimed("+4930123456")])
    assert wait > 29, "what is fresh waits behind the line"


def test_a_rate_that_was_raised_is_kept_from_its_first_second_on(engine: Engine) -> None:
    """The next slot is as far ahead as the old rate has put it."""
    fresh = [claimed("+4930123456") for _ in range(100)]
    waits = paced_by(engine, 5.0, fresh, next_slot="now() + interval '10 seconds'")
    assert len(waits) == 100, "none has a slot"
    assert waits[0] < 2, "and none waits for the old rate's"


def test_a_worker_whose_clock_is_ahead_keeps_no_breaker_open(engine: Engine) -> None:
    note = {"name": "a", "failures": OPENS_AT, "alive_at": None, "error": "x", "probe_failed": False}
    breakers.remember(engine, Channel.SMS, [{**note, "failed_at": datetime.now(UTC) + timedelta(minutes=5)}])
    assert health(engine)["a"].probe_in
    answer = {"failures": 0, "failed_at": None, "error": None, "alive_at": datetime.now(UTC)}
    breakers.remember(engine, Channel.SMS, [{**note, **answer}])
    assert health(engine)["a"].probe_in is None


def test_only_those_in_a_providers_own_line_move_up(engine: Engine) -> None:
    waiting_for(engine, "vendor-0 takes 1 a second.", 2, Reason.THROTTLED)
    waiting_for(engine, "vendor-0-2 takes 1 a second.", 3, Reason.THROTTLED)
    waiting_for(engine, "The recipient has had as many messages as one may in that time.", 4, Reason.THROTTLED)
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO providers (channel, name, next_slot, line_until)
                VALUES ('sms', 'vendor-0', now() - interval '1 minute', now() + interval '1 minute')
            """)
        )
    assert [rate_limits.move_up(engine), rate_limits.move_up(engine)] == [2, 0]
