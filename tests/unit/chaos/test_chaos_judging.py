"""The judge of tests/chaos finds what it is for: what was lost, what came twice, what took too long."""

from dataclasses import replace

import pytest

from tests.chaos.judging import Causes, Outcome, Promise, judge, lost_events
from tests.chaos.load import Posted
from tests.chaos.receivers import HANG_UP, Arrival

WELL = Promise()
MAY_DOUBLE = Promise(doubles=True)


def accepted(number: int) -> Posted:
    return Posted(number, "direct", f"key-{number}", began=0.0, event_id=f"event-{number}", accepted=0.1, longest=0.1)


def came(number: int, at: float = 1.0, said: int = 204, notification: str | None = None) -> Arrival:
    return Arrival("direct", number, notification or f"n-{number}", at, said)


def wrong(
    arrivals: list[Arrival],
    *,
    posted: list[Posted] | None = None,
    promise: Promise = WELL,
    ambiguous: frozenset[str] = frozenset(),
    causes: Causes | None = None,
    **facts: float | None,
) -> list[str]:
    """The judge's verdict on two events that were accepted."""
    posted = posted or [accepted(0), accepted(1)]
    outcome = replace(Outcome("x", "steady", 1, resumed=0.5, drained=1.0), **facts)
    return judge(outcome, promise, posted, arrivals, ambiguous, lost_events(posted, arrivals), causes or Causes()).wrong


def test_once_each_is_right() -> None:
    assert wrong([came(0), came(1)]) == []


def test_one_that_came_nowhere_is_lost() -> None:
    assert wrong([came(0)]) == ["1 lost"]


@pytest.mark.parametrize("said", [HANG_UP, 503, 302])
def test_one_that_its_receiver_did_not_take_is_lost(said: int) -> None:
    assert wrong([came(0), came(1, said=said)]) == ["1 lost"]


def test_one_that_came_elsewhere_is_lost() -> None:
    assert wrong([came(0), replace(came(1), kind="mail")]) == ["1 lost"]


def test_one_that_its_receiver_refused_first_is_no_double() -> None:
    assert wrong([came(0), came(1, said=503), came(1)]) == []


def test_a_double_without_a_cause_is_wrong() -> None:
    [complaint] = wrong([came(0), came(1), came(1)])
    assert complaint.startswith("1 twice")
    assert wrong([came(0), came(1), came(1)], ambiguous=frozenset({"n-1"})) != [], "the fault does not allow it"
    assert wrong([came(0), came(1), came(1)], promise=MAY_DOUBLE) != [], "its attempt does not say so"


def allowed(causes: Causes, *, first: float = 1.0) -> bool:
    """Whether the judge allows that one came again which came first at a moment, and that says so."""
    arrivals = [came(0), came(1, at=first), came(1, at=99.0)]
    return wrong(arrivals, promise=MAY_DOUBLE, ambiguous=frozenset({"n-1"}), causes=causes) == []


def test_a_double_that_says_so_needs_a_cause_besides() -> None:
    assert not allowed(Causes())


@pytest.mark.parametrize(("first", "is_right"), [(9.0, True), (12.0, True), (6.0, False), (17.0, False)])
def test_a_double_of_a_lost_answer_came_when_answers_were_lost(first: float, is_right: bool) -> None:
    assert allowed(Causes(lost_answers=[(10.0, 15.0)]), first=first) == is_right


@pytest.mark.parametrize(("killed", "is_right"), [(1.5, True), (0.5, True), (20.0, False), (-20.0, False)])
def test_a_double_of_a_kill_was_in_flight_then(killed: float, is_right: bool) -> None:
    assert allowed(Causes(kills=[killed])) == is_right


@pytest.mark.parametrize(
    ("spells", "is_right"),
    [
        ([(2.0, 9.0)], True),
        ([(0.0, 12.0)], True),
        ([(2.0, 5.0), (4.0, 9.0)], True),
        ([(2.0, 5.0), (3.0, 5.0)], False),
        ([(11.0, 20.0)], False),
        ([(0.0, 1.0)], False),
    ],
)
def test_time_in_which_nothing_could_be_recorded_does_not_count(
    spells: list[tuple[float, float]], is_right: bool
) -> None:
    assert allowed(Causes(kills=[10.0], unrecordable=spells)) == is_right


def test_a_double_under_another_id_is_wrong() -> None:
    arrivals = [came(0), came(1), came(1, notification="n-2")]
    marked = frozenset({"n-1", "n-2"})
    found = wrong(arrivals, promise=MAY_DOUBLE, ambiguous=marked, causes=Causes(kills=[1.5]))
    assert found == ["1 twice under different ids"]


def test_what_nobody_posted_is_wrong() -> None:
    assert wrong([came(0), came(1), came(2)]) == ["1 arrived that nobody has posted"]


def test_a_refused_event_is_wrong() -> None:
    refused = replace(accepted(1), accepted=None, refused="422 Postgres cannot store this")
    assert wrong([came(0)], posted=[accepted(0), refused]) == ["1 refused: 422 Postgres cannot store this"]


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"dead": 3}, "3 dead-lettered without cause"),
        ({"ready": 11.0}, "an answer to GET took 11.0 s"),
        ({"resumed": 6.0}, "work resumed after 6.0 s"),
        ({"resumed": None}, "nothing was delivered after the fault"),
        ({"drained": None}, "the backlog did not end"),
    ],
)
def test_what_must_hold_besides(facts: dict[str, float | None], complaint: str) -> None:
    assert wrong([came(0), came(1)], **facts) == [complaint]


def test_a_slow_answer_is_wrong() -> None:
    assert wrong([came(0), came(1)], posted=[accepted(0), replace(accepted(1), longest=12.0)]) == [
        "an answer took 12.0 s"
    ]


def test_nothing_accepted_proves_nothing() -> None:
    assert "nothing was accepted" in wrong([], posted=[replace(accepted(0), accepted=None)])
