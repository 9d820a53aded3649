"""One report a run: a table for people, and the same as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.chaos.faults import FAULTS
from tests.chaos.judging import Outcome

HEAD: Final = (
    "| fault | load | accepted | delivered | lost | doubled (ambiguous) | dead | longest answer | longest GET"
    " | resumed after | caught up after | respawns | held |"
)
_RULE: Final = "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"


def row(outcome: Outcome) -> str:
    """Return the line of one scenario."""
    cells = [
        outcome.fault,
        outcome.load,
        outcome.accepted,
        outcome.delivered,
        outcome.lost,
        f"{outcome.doubled} ({outcome.ambiguous})",
        outcome.dead,
        f"{outcome.longest:.1f} s",
        f"{outcome.ready:.1f} s",
        _seconds(outcome.resumed),
        _seconds(outcome.drained),
        outcome.respawns,
        "yes"
        if not outcome.wrong
        else "**no**: " + "; ".join(outcome.wrong).replace("|", "/").replace("\n", " ")[:300],
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def table(outcomes: Sequence[Outcome], seed: int) -> str:
    """Return the table of a run, as Markdown."""
    held = sum(1 for each in outcomes if not each.wrong)
    most: dict[str, tuple[float, int]] = {}
    for outcome in outcomes:
        for name, (memory, descriptors) in outcome.peaks.items():
            if name.startswith(("skewed", "migrate")):
                continue
            known = most.get(name, (0.0, 0))
            most[name] = max(known[0], memory), max(known[1], descriptors)
    peaks = ", ".join(
        f"{name} {memory:.0f} MiB and {count} descriptors" for name, (memory, count) in sorted(most.items())
    )
    lines = [f"Seed {seed}: {held} of {len(outcomes)} held.", "", HEAD, _RULE, *map(row, outcomes)]
    return "\n".join([*lines, "", f"At the most: {peaks}.", ""])


def write(outcomes: Sequence[Outcome], seed: int, folder: Path) -> None:
    """Write `report.md` and `report.json`, and the histories of what was lost."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(table(outcomes, seed))
    scenarios = [{**asdict(each), "what": FAULTS[each.fault].what if each.fault in FAULTS else ""} for each in outcomes]
    (folder / "report.json").write_text(json.dumps({"seed": seed, "scenarios": scenarios}, indent=1))
    (folder / "histories.txt").write_text("\n\n".join(text for each in outcomes for text in each.histories))
