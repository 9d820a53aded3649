"""Has anything become slower? python -m benchmarks.quick [--save].

Measures the main path for a minute and a half, and compares its ratios to the bare view with those of the last release,
which stand in `benchmarks/last_release.json`. `--save` writes that file, for a release.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.main_path import measure
from notifier import VERSION

_STORED: Final = Path(__file__).with_name("last_release.json")
#: From one run to the next a ratio moves by so much.
_NOISE: Final = 0.15
_SECONDS: Final = 8
_CONNECTIONS: Final = 64


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Return the ratios of a run to its ceiling; more is better, but for those of milliseconds."""
    ceiling, latency = figures["ceiling"], figures["ceiling_ms"]
    single, batch, at_100 = figures["single"], figures["batch"], figures["at_100"]
    return {
        "one a request, accepted": single["ingest"] / ceiling,
        "one a request, end to end": single["end_to_end"] / ceiling,
        "500 a request, accepted": batch["ingest"] / ceiling,
        "500 a request, end to end": batch["end_to_end"] / ceiling,
        "milliseconds at 100/s, p50": at_100["p50"] / latency,
        "milliseconds at 100/s, p99": at_100["p99"] / latency,
    }


def _is_better(name: str, now: float, before: float) -> bool:
    return (now < before) == name.startswith("milliseconds")


def compared(now: dict[str, float], before: dict[str, float]) -> Table:
    """Return the table of what moved."""
    table = Table("× the bare view", title_justify="left")
    for column in ("now", "last release", "change", ""):
        table.add_column(column, justify="right" if column else "left")
    for name, ratio in now.items():
        if name not in before:
            table.add_row(name, f"{ratio:.2f}", "", "", "new")
            continue
        change = ratio / before[name] - 1
        word = "better" if _is_better(name, ratio, before[name]) else "worse"
        moved = word if abs(change) > _NOISE else ""
        table.add_row(name, f"{ratio:.2f}", f"{before[name]:.2f}", f"{change:+.0%}", moved)
    return table


def main() -> None:
    """Measure, compare and print; the exit code says nothing of speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="store the ratios as those of this release")
    options = parser.parse_args()
    figures = measure(_SECONDS, _CONNECTIONS)
    now = ratios(figures)
    stored: dict[str, Any] = {"version": "none", "ratios": {}}
    if _STORED.exists():
        stored = json.loads(_STORED.read_text())
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"Ceiling: {figures['ceiling']:,.0f} requests/s of a bare view. Last release: {stored['version']}.")
    console.print(compared(now, stored["ratios"]))
    lost = sum(figures[each]["lost"] + figures[each]["refused"] for each in ("single", "at_100", "batch"))
    console.print(f"Lost or refused: {lost}.")
    if options.save:
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
        document = {"version": VERSION, "ratios": now, "machine": machine}
        _STORED.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
