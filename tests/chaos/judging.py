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
#: that is busy, when it comes to it.
UNRECORDED: Final = 3.0
#: Seconds within which a busy receiver reads what was sent before a process was killed.
IN_FLIGHT: Final = 1.0


@dataclass(frozen=True)
class Promise:
    """The limits that must hold for one fault."""

    #: Whether a message may come twice where its attempt is marked `ambiguous`: its worker was killed or stopped for
    #: longer than its lease, or its answer was lost.
    doubles: bool = False
    #: Seconds after the fault's end within which something is delivered again.
    resumes: float = 5.0


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
    kills: Sequence[float] = (),
) -> Outcome:
    """Complete an outcome by what the callers and the receivers say, and write down what is wrong.

    `ambiguous`: the notifications with an attempt that says so; `kills`: Unix times at which a process was killed or
    stopped.
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
    allowed = sum(1 for key in marked if promise.doubles and _was_in_flight(twice[key], kills))
    complaints = [
        (outcome.accepted == 0, "nothing was accepted"),
        (outcome.lost, f"{outcome.lost} lost"),
        (outcome.dead, f"{outcome.dead} dead-lettered without cause"),
        (outcome.refused, f"{outcome.refused} refused: {next((e.refused for e in posted if e.refused), '')}"),
        (outcome.doubled - allowed > 0, f"{outcome.doubled - allowed} twice without a cause that allows it"),
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


def _was_in_flight(came: Sequence[Arrival], kills: Sequence[float]) -> bool:
    """Whether one of these that came again was being sent, or not yet recorded, when a process was killed."""
    return not kills or any(-UNRECORDED <= each.at - kill <= IN_FLIGHT for each in came[:-1] for kill in kills)
