"""The capacity model: never less than a load needs, never fewer for more of it, and whole pieces with one to spare."""

import dataclasses
import inspect
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import capacity_model as model
from benchmarks.capacity import COSTS, read_costs
from benchmarks.capacity_costs import CHANNELS, PROCESSES, Line
from benchmarks.capacity_model import (
    MOST_SESSIONS,
    NODES,
    POSTGRES_CORES,
    RESERVED,
    Ask,
    BadInput,
    needs_of,
    one_machine,
    redis_bytes,
)
from config.queues import ALL, MAX_MESSAGES
from config.settings import read_settings
from config.wiring import make_engine
from notifier.providers.http import api
from notifier.providers.vendors import chat
from notifier.providers.vendors.smtp import Smtp
from notifier.providers.vendors.webhook import Webhooks
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.queues import BATCH
from notifier.vocabulary.states import Channel

MEASURED = read_costs(COSTS)
UNHURRIED = settings(deadline=None)
SHARES = st.sampled_from(
    [{"webhook": 1.0}, {"email": 1.0}, {"email": 0.5, "webhook": 0.5}, {"sms": 0.2, "push": 0.7, "email": 0.1}]
)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    """Loads from a few a day to far beyond one Postgres."""
    peak = draw(st.floats(0.1, 1e6))
    return Ask(
        peak=peak,
        per_day=peak * 86_400 * draw(st.floats(0.001, 1)),
        retention_days=draw(st.floats(1, 400)),
        payload_bytes=draw(st.floats(0, 256 * 1024)),
        retries=draw(st.floats(0, 5)),
        channels=draw(SHARES),
        provider_ms=draw(st.floats(1, 30_000)),
        batch=draw(st.integers(1, 1000)),
        busy=draw(st.floats(0.1, 1)),
        backlog_minutes=draw(st.floats(0.1, 600)),
        spare=draw(st.integers(0, 3)),
    )


def figures(ask: Ask) -> dict[str, float]:
    """Everything that more load must not make less."""
    needs = needs_of(ask, MEASURED)
    database = needs.database
    return {
        **{f"count of {part.name}": part.count for part in needs.parts},
        **{f"cores of {part.name}": part.cores for part in needs.parts},
        **{f"nodes of {nodes.cores}": nodes.count for nodes in needs.nodes},
        "postgres cores": database.cores,
        "postgres machine": database.machine_cores or math.inf,
        "instances": database.instances,
        "sessions": database.most_sessions,
        "wal": database.wal_peak,
        "redis": needs.redis_bytes,
        "network": needs.network_peak,
        "backlog": needs.backlog,
        "pgbouncer": needs.needs_pgbouncer,
    }


@UNHURRIED
@given(asks(), st.floats(1, 20))
def test_a_higher_peak_never_needs_less(ask: Ask, times: float) -> None:
    before, after = figures(ask), figures(dataclasses.replace(ask, peak=ask.peak * times))
    assert {name for name in before if after[name] < before[name]} == set()


@UNHURRIED
@given(asks(), st.sampled_from(["payload_bytes", "retries", "provider_ms", "retention_days"]), st.floats(1, 20))
def test_nor_do_larger_payloads_more_retries_slower_providers_or_a_longer_retention(
    ask: Ask, name: str, times: float
) -> None:
    more = dataclasses.replace(ask, **{name: getattr(ask, name) * times})
    before, after = figures(ask), figures(more)
    assert {key for key in before if after[key] < before[key] * (1 - 1e-9)} == set()
    assert needs_of(more, MEASURED).database.data >= needs_of(ask, MEASURED).database.data * (1 - 1e-9)


@UNHURRIED
@given(asks())
def test_what_is_left_after_a_failure_carries_the_peak(ask: Ask) -> None:
    needs = needs_of(ask, MEASURED)
    for part in needs.parts:
        assert part.count >= 1
        if part.name in {"api", "fresh", "retry"}:
            left = part.count - ask.spare
            assert left * ask.busy >= part.cores - 1e-9
            assert left >= part.in_flight - 1e-9
    for nodes in needs.nodes:
        left = nodes.count - ask.spare
        assert left * nodes.cores * ask.busy >= sum(part.cores for part in needs.parts) - 1e-9
        assert nodes.memory * left >= sum(part.count * part.memory for part in needs.parts)
    assert all(rate >= ask.peak * (1 - 1e-9) for _, rate in needs.full_at)


@UNHURRIED
@given(asks())
def test_nothing_costs_less_than_one_notification_was_measured_to(ask: Ask) -> None:
    least = {name: min(MEASURED.single[name], MEASURED.batch[name]) for name in PROCESSES}
    webhooks = dataclasses.replace(ask, channels={"webhook": 1.0})
    needs = needs_of(webhooks, MEASURED)
    for part in needs.parts:
        assert part.cores >= ask.peak * least[part.name] / 1000 * (1 - 1e-9)
    assert needs.database.cores >= ask.peak * least["postgres"] / 1000 * (1 - 1e-9)
    assert needs.database.data >= ask.per_day * ask.retention_days * MEASURED.rows.points[0][1]


@UNHURRIED
@given(asks())
def test_postgres_gets_a_machine_that_there_is_or_several_instances(ask: Ask) -> None:
    database = needs_of(ask, MEASURED).database
    if database.machine_cores is None:
        assert database.instances > 1
        assert database.instances * POSTGRES_CORES[-1] * ask.busy >= database.cores * (1 - 1e-9)
    else:
        assert database.instances == 1
        assert database.machine_cores in POSTGRES_CORES
        assert database.machine_cores * ask.busy >= database.cores * (1 - 1e-9)


@UNHURRIED
@given(asks())
def test_pgbouncer_is_needed_where_all_processes_together_may_open_too_many_sessions(ask: Ask) -> None:
    needs = needs_of(ask, MEASURED)
    asking = sum(part.count for part in needs.parts if part.name != "beat")
    assert needs.database.most_sessions == asking * MOST_SESSIONS
    assert needs.needs_pgbouncer == (asking * MOST_SESSIONS > ask.max_connections - RESERVED)


@UNHURRIED
@given(st.floats(0, 1e9), st.floats(0, 1e9), SHARES)
def test_redis_takes_no_more_than_full_queues_however_long_the_backlog(
    few: float, more: float, channels: dict[str, float]
) -> None:
    ask = Ask(per_day=1, peak=1, channels=channels)
    least, most = sorted((few, more))
    full = MEASURED.redis_idle + len(ALL) * MAX_MESSAGES * (MEASURED.hint + BATCH * MEASURED.hint_id)
    assert redis_bytes(least, ask, MEASURED) <= redis_bytes(most, ask, MEASURED) <= full


def test_the_model_has_the_bounds_of_the_code() -> None:
    assert (model.MESSAGES, model.IDS) == (MAX_MESSAGES, BATCH)
    assert set(CHANNELS) == set(Channel)
    assert len(CHANNELS) * model.QUEUES + model.SHARED_QUEUES == len(ALL)
    engine = make_engine(read_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x"}))
    pools: list[Any] = [engine.pool, autocommit_of(engine).pool]
    assert sum(pool.size() + pool._max_overflow for pool in pools) == MOST_SESSIONS
    in_flight = {"webhook": (Webhooks, "concurrency"), "email": (Smtp, "connections")}
    for channel, (provider, name) in in_flight.items():
        assert inspect.signature(provider).parameters[name].default == model.SLOTS[channel]
    assert {model.SLOTS[channel] for channel in ("sms", "push")} == {api._CONCURRENCY}
    assert model.SLOTS["chat"] * 4 == 2 * chat._CONCURRENCY


@pytest.mark.parametrize(("answer_ms", "in_flight"), [(100, 1), (1000, 10)])
def test_requests_in_flight_are_the_rate_times_the_time_of_an_answer(answer_ms: float, in_flight: float) -> None:
    costs = dataclasses.replace(MEASURED, efficiency=1.0)
    ask = Ask(per_day=1, peak=64 * 4 * 10, provider_ms=answer_ms, channels={"webhook": 1.0})
    fresh = next(part for part in needs_of(ask, costs).parts if part.name == "fresh")
    assert fresh.in_flight == pytest.approx(in_flight)
    assert fresh.count >= in_flight + 1


def test_each_size_of_machine_is_told_of() -> None:
    assert tuple(nodes.cores for nodes in needs_of(Ask(per_day=1e7, peak=2000), MEASURED).nodes) == NODES


def test_one_machine_holds_twice_as_much_with_twice_the_cores_but_for_what_idles() -> None:
    ask, idle = Ask(per_day=1, peak=1), sum(MEASURED.idle.values()) / 1000
    two, four = (one_machine(cores, ask, MEASURED) for cores in (2, 4))
    assert four / two == pytest.approx((4 * ask.busy - idle) / (2 * ask.busy - idle))
    assert one_machine(0.001, ask, MEASURED) == 0


def test_a_line_goes_through_its_points_and_never_falls() -> None:
    line = Line(((100, 10), (200, 30), (300, 20)))
    assert [line.at(size) for size in (0, 100, 150, 200, 250, 300, 400)] == [10, 10, 20, 30, 30, 30, 30]
    assert Line(((100, 10), (200, 30))).at(1100) == 210
    assert Line(((100, 10),)).at(500) == 10


@pytest.mark.parametrize("peak", [397_683.0000000001, 0.1, 1 / 3])
def test_a_peak_may_be_the_average(peak: float) -> None:
    assert needs_of(Ask(per_day=peak * 86_400 * (1 + 1e-15), peak=peak), MEASURED).drain_minutes > 0


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"per_day": 0}, "--per-day"),
        ({"peak": -1}, "--peak"),
        ({"peak": math.nan}, "--peak"),
        ({"per_day": math.inf}, "--per-day"),
        ({"per_day": 1e9}, "less than"),
        ({"busy": 0}, "--busy"),
        ({"busy": 1.1}, "--busy"),
        ({"batch": 0}, "--batch"),
        ({"retries": -0.1}, "--retries"),
        ({"channels": {"fax": 1.0}}, "fax"),
        ({"channels": {"email": 0.5}}, "0.5"),
        ({"channels": {"email": 1.5, "sms": -0.5}}, "below 0"),
        ({"max_connections": 10}, "--max-connections"),
        ({"spare": -1}, "--spare"),
    ],
)
def test_a_load_that_cannot_be_is_refused_in_one_line(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word) as caught:
        Ask(**{"per_day": 1000, "peak": 10, **wrong})
    assert "\n" not in str(caught.value)
