"""The judgement over one scenario: what was accepted, what arrived, and whether what must hold has held.

It computes only: tests/unit/chaos/test_chaos_judging.py shows that it finds what it is for.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.load import Posted
from tests.chaos.receivers import Arrival

#: Seconds within which every answer must come: ten, and what a busy caller needs to see it.
LONGEST_ANSWER: Final = 10.5
#: A result may be unrecorded for so many seconds before its worker is killed: it records every 100 ms, or, on a machine
#: that is busy, when it comes to it. Seconds in which Postgres could not record do not count.
UNRECORDED: Final = 3.0
#: Seconds within which a busy receiver reads what was sent before a process was killed.
IN_FLIGHT: Final = 1.0
#: Seconds that the slowest receiver takes to answer what it has read.
SLOWEST_ANSWER: Final = 3.0


@dataclass(frozen=True)
class Promise:
    """The limits that must hold for one fault."""

    #: Whether a message may come twice where its attempt is marked `ambiguous` and there was a cause: its worker was
    #: killed or stopped for longer than its lease, or its answer was lost.
    doubles: bool = False
    #: Seconds after the fault's end within which something is delivered again.
    resumes: float = 5.0


@dataclass
class Causes:
    """The moments of one scenario that allow a double. All are Unix times."""

    #: When a process was killed or stopped.
    kills: list[float] = field(default_factory=list)
    #: From when until when answers of receivers were lost.
    lost_answers: list[tuple[float, float]] = field(default_factory=list)
    #: From when until when Postgres could not record every result: a kill then loses those of the whole time.
    unrecordable: list[tuple[float, float]] = field(default_factory=list)

    def allow(self, came: Sequence[Arrival]) -> bool:
        """Whether one of these that came again was unanswered, being sent, or not yet recorded."""
        return any(self._allows(each.at) for each in came[:-1])

    def _allows(self, at: float) -> bool:
        return any(began - SLOWEST_ANSWER <= at <= ended + IN_FLIGHT for began, ended in self.lost_answers) or any(
            at - kill <= IN_FLIGHT and kill - at - self._unrecordable_within(at, kill) <= UNRECORDED
            for kill in self.kills
        )

    def _unrecordable_within(self, began: float, ended: float) -> float:
        """Seconds between two moments in which something could not be recorded. Spells may overlap."""
        counted, seconds = began, 0.0
        for since, until in sorted(self.unrecordable):
            end = min(until, ended)
            seconds += max(0.0, end - max(since, counted))
            counted = max(counted, end)
        return seconds


@dataclass
class Outcome:
    """The facts of one scenario, and what is wrong with them."""

    fault: str
    load: str
    seed: int
    accepted: int = 0
    delivered: int = 0
    refused: int = 0
    lost: int = 0
    doubled: int = 0
    ambiguous: int = 0
    dead: int = 0
    longest: float = 0.0
    ready: float = 0.0
    resumed: float | None = None
    drained: float | None = None
    respawns: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    #: What came twice without a cause that allows it: each time that it came.
    uncaused: list[list[Arrival]] = field(default_factory=list)
    #: The whole history of each notification that was lost.
    histories: list[str] = field(default_factory=list)
    #: Process → peak of its memory in MiB and of its descriptors.
    peaks: dict[str, tuple[float, int]] = field(default_factory=dict)


def lost_events(posted: Iterable[Posted], arrivals: Sequence[Arrival]) -> list[Posted]:
    """Return the events that were accepted and that no receiver has taken."""
    taken = {(arrival.kind, arrival.number) for arrival in arrivals if arrival.taken}
    return [each for each in posted if each.accepted and (each.kind, each.number) not in taken]


def doubled(arrivals: Iterable[Arrival]) -> dict[tuple[str, int], list[Arrival]]:
    """Return what a receiver has taken more than once: each time that it came."""
    taken = defaultdict(list)
    for arrival in arrivals:
        if arrival.taken:
            taken[arrival.kind, arrival.number].append(arrival)
    return {key: each for key, each in taken.items() if len(each) > 1}


def judge(
    outcome: Outcome,
    promise: Promise,
    posted: Sequence[Posted],
    arrivals: Sequence[Arrival],
    ambiguous: Collection[str],
    lost: Sequence[Posted],
    causes: Causes,
) -> Outcome:
    """Complete an outcome by what the callers and the receivers say, and write down what is wrong.

    `ambiguous`: the notifications with an attempt that says so; `causes`: the moments that allow doubles.
    """
    twice = doubled(arrivals)
    marked = [key for key, came in twice.items() if came[0].notification in ambiguous]
    outcome.accepted = sum(1 for each in posted if each.accepted)
    outcome.refused = sum(1 for each in posted if each.refused)
    outcome.lost, outcome.doubled, outcome.ambiguous = len(lost), len(twice), len(marked)
    outcome.delivered = outcome.accepted - outcome.lost
    outcome.longest = max((each.longest for each in posted), default=0.0)
    strange = {each.number for each in arrivals} - {each.number for each in posted}
    different = [key for key, came in twice.items() if len({each.notification for each in came}) > 1]
    allowed = [key for key in marked if promise.doubles and causes.allow(twice[key])]
    outcome.uncaused = [came for key, came in twice.items() if key not in allowed]
    complaints = [
        (outcome.accepted == 0, "nothing was accepted"),
        (outcome.lost, f"{outcome.lost} lost"),
        (outcome.dead, f"{outcome.dead} dead-lettered without cause"),
        (outcome.refused, f"{outcome.refused} refused: {next((e.refused for e in posted if e.refused), '')}"),
        (outcome.uncaused, f"{len(outcome.uncaused)} twice without a cause that allows it"),
        (different, f"{len(different)} twice under different ids"),
        (strange, f"{len(strange)} arrived that nobody has posted"),
        (outcome.longest > LONGEST_ANSWER, f"an answer took {outcome.longest:.1f} s"),
        (outcome.ready > LONGEST_ANSWER, f"an answer to GET took {outcome.ready:.1f} s"),
        (outcome.resumed is None, "nothing was delivered after the fault"),
        ((outcome.resumed or 0) > promise.resumes, f"work resumed after {outcome.resumed or 0:.1f} s"),
        (outcome.drained is None, "the backlog did not end"),
    ]
    outcome.wrong += [text for is_wrong, text in complaints if is_wrong]
    return outcome
