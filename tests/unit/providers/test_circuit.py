"""The circuit breaker that endpoints and providers share: when it opens, who may try, and for how long."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from notifier.providers.circuit import Circuit, State, Thresholds

THRESHOLDS = Thresholds(failures_to_open=5, first_open=15, longest_open=600)
SECONDS = st.floats(0, 100_000)
TIMES = st.none() | SECONDS
CIRCUITS = st.builds(Circuit, st.integers(0, 1_000), SECONDS, TIMES, TIMES)


def later(circuit: Circuit, seconds: float) -> Circuit:
    """The same breaker some time afterwards, as its users read it from their tables."""
    open_left, probe_left = (
        None if left is None else max(left - seconds, 0.0) for left in (circuit.open_left, circuit.probe_left)
    )
    return replace(circuit, open_left=open_left, probe_left=probe_left)


def released(circuit: Circuit) -> Circuit:
    """The same breaker after its probe was given back unsent (breakers.release_probes)."""
    return replace(circuit, probe_left=None)


def opened(probes_failed: int = 0) -> Circuit:
    """A breaker that has just opened, after some of its probes have failed."""
    circuit = Circuit().fail(THRESHOLDS, 5, probe_failed=False)
    for _ in range(probes_failed):
        probing = later(circuit, circuit.open_for).take_probe(45)
        assert probing
        circuit = probing.fail(THRESHOLDS, 1, probe_failed=True)
    return circuit


def test_five_failures_in_a_row_open_it() -> None:
    circuit = Circuit()
    for _ in range(4):
        circuit = circuit.fail(THRESHOLDS, 1, probe_failed=False)
        assert circuit.state is State.CLOSED
    assert circuit.fail(THRESHOLDS, 1, probe_failed=False) == Circuit(5, 15, 15)
    assert circuit.succeed().fail(THRESHOLDS, 4, probe_failed=False).state is State.CLOSED


def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    assert [opened(probes).open_for for probes in range(8)] == [15, 30, 60, 120, 240, 480, 600, 600]


def test_it_is_half_open_once_its_time_is_over() -> None:
    circuit = opened()
    assert (circuit.state, circuit.probe_in) == (State.OPEN, 15)
    assert (later(circuit, 14).state, later(circuit, 14).take_probe(45)) == (State.OPEN, None)
    assert (later(circuit, 15).state, later(circuit, 15).probe_in) == (State.HALF_OPEN, 0)


def test_one_probe_at_a_time_until_it_is_overdue_or_given_back() -> None:
    probing = later(opened(), 15).take_probe(45)
    assert probing
    assert (probing.state, probing.probe_in) == (State.HALF_OPEN, 45)
    assert later(probing, 44).take_probe(45) is None
    assert later(probing, 45).take_probe(45) == probing
    assert released(probing).take_probe(45) == probing


@pytest.mark.parametrize("seconds", [0, 14, 15, 100])
def test_calls_from_before_it_opened_do_not_keep_it_open_longer(seconds: float) -> None:
    circuit = later(opened(1), seconds)
    assert circuit.fail(THRESHOLDS, 7, probe_failed=False) == replace(circuit, failures=circuit.failures + 7)
    assert circuit.fail(THRESHOLDS, 7, probe_failed=True).open_left == circuit.open_left, "no probe is under way"


@given(CIRCUITS)
def test_one_success_closes_it_whatever_was_before(circuit: Circuit) -> None:
    assert circuit.succeed() == Circuit()
    assert Circuit().state is State.CLOSED
    assert Circuit().take_probe(45) is None


@given(CIRCUITS, SECONDS)
def test_only_one_that_is_half_open_without_a_probe_gives_one(circuit: Circuit, seconds: float) -> None:
    may = circuit.state is State.HALF_OPEN and not circuit.probe_left
    probing = circuit.take_probe(seconds)
    assert (probing is not None) == may == (circuit.probe_in == 0)
    assert probing is None or probing == replace(circuit, probe_left=seconds)


@given(CIRCUITS, st.integers(0, 20), st.booleans())
def test_whatever_a_row_says_it_opens_within_bounds(circuit: Circuit, failures: int, probe_failed: bool) -> None:
    after = circuit.fail(THRESHOLDS, failures, probe_failed=probe_failed)
    assert after.failures == circuit.failures + failures
    if after.open_left != circuit.open_left:
        assert after.open_left == after.open_for
        assert THRESHOLDS.first_open <= after.open_for <= THRESHOLDS.longest_open
        assert after.probe_left is None
    else:
        assert after == replace(circuit, failures=after.failures)


class Calls(RuleBasedStateMachine):
    """One breaker, workers whose calls it lets through, and a model of what it is there for."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.in_a_row = 0
        self.failed_probes = 0
        self.was_open_for = 0.0
        self.probes_under_way = 0

    @rule(failures=st.integers(1, 6))
    def calls_fail(self, failures: int) -> None:
        was_closed = self.circuit.state is State.CLOSED
        before = self.circuit
        self.circuit = self.circuit.fail(THRESHOLDS, failures, probe_failed=False)
        self.in_a_row += failures
        assert self.circuit.failures == self.in_a_row
        assert not was_closed or (self.circuit.state is State.OPEN) == (self.in_a_row >= 5)
        assert was_closed or self.circuit.probe_in == before.probe_in
        self.was_open_for = self.circuit.open_for

    @rule()
    def a_call_succeeds(self) -> None:
        self.circuit = self.circuit.succeed()
        self.in_a_row = self.failed_probes = self.probes_under_way = 0

    @rule(seconds=st.floats(0, 700))
    def time_passes(self, seconds: float) -> None:
        self.circuit = later(self.circuit, seconds)
        if not self.circuit.probe_left:
            self.probes_under_way = 0  # overdue: its worker is lost

    @rule()
    def a_worker_asks_for_the_probe(self) -> None:
        probing = self.circuit.take_probe(45)
        if probing is not None:
            assert self.circuit.state is State.HALF_OPEN
            self.circuit = probing
            self.probes_under_way += 1

    @precondition(lambda self: self.probes_under_way)
    @rule()
    def the_probe_fails(self) -> None:
        self.circuit = self.circuit.fail(THRESHOLDS, 1, probe_failed=True)
        self.in_a_row += 1
        self.failed_probes += 1
        self.probes_under_way = 0
        assert self.circuit.state is State.OPEN
        assert self.circuit.open_for == min(15 * 2**self.failed_probes, 600)

    @precondition(lambda self: self.probes_under_way)
    @rule()
    def the_probe_is_not_sent(self) -> None:
        self.circuit = released(self.circuit)
        self.probes_under_way = 0
        assert self.circuit.probe_in == 0

    @invariant()
    def one_probe_at_the_most(self) -> None:
        assert self.probes_under_way <= 1
        assert not self.probes_under_way or self.circuit.state is State.HALF_OPEN


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
