"""Everything, measured: python -m benchmarks.full [--only NAME…] [--short] [--report build/bench]   (make bench)

Each part is a benchmark of its own, run one after the other, on a machine that does nothing else. The report has a row
for each figure that has a target, all figures as JSON with the machine and the versions, and a plot of each curve.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.curve_plots import draw
from benchmarks.stack import ROOT
from benchmarks.targets import TARGETS, table
from notifier import VERSION

#: Each part's command and its options, and those of its short form.
_PARTS: Final[dict[str, tuple[list[str], list[str]]]] = {
    "peers": ([], ["--seconds", "4"]),
    "ingest": ([], ["--rounds", "1"]),
    "main_path": ([], ["--seconds", "4"]),
    "memory": ([], ["--minutes", "0.5"]),
    "email": ([], ["--emails", "2000"]),
    "fan_out": ([], ["--subscriptions", "1000", "--rounds", "1"]),
    "backlog": ([], ["--rows", "20000"]),
    "preferences": ([], ["--users", "5000", "--events", "3000", "--rounds", "1"]),
    "curves": ([], ["--rows", "20000", "--events", "1500", "--seconds", "3"]),
    "growth": ([], ["--processes", "1", "2", "--seconds", "3", "--waiting", "1000", "--workers", "0"]),
    "pooler": ([], ["--rounds", "1"]),
    "day": ([], ["--minutes", "1", "--bursts", "0"]),
}
_PACKAGES: Final = ("celery", "flask", "sqlalchemy", "psycopg2-binary", "pycurl", "orjson", "uvloop")


def _measured(name: str, options: list[str]) -> dict[str, Any] | None:
    """Run a part; None where it cannot run on this machine, which it says itself."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return None
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "notifier": VERSION,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def main() -> None:
    """Measure, and write the report; the exit code says nothing of speed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full", description=__doc__)
    parser.add_argument("--only", action="append", choices=_PARTS, help="run this part; may be given several times")
    parser.add_argument("--short", action="store_true", help="smaller sizes: to see that it works")
    parser.add_argument("--report", type=Path, default=Path("build/bench"), help="the report's folder [build/bench]")
    options = parser.parse_args()
    options.report.mkdir(parents=True, exist_ok=True)
    path = options.report / "report.json"
    # A part that is run again takes the place of its last run.
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if options.only and path.exists() else {}
    for name in options.only or _PARTS:
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        found = _measured(name, _PARTS[name][options.short])
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if found is None:
            print(f"{name} could not be measured; it said why", file=sys.stderr, flush=True)
            continue
        figures[name] = found
        path.write_text(json.dumps({"machine": _machine(), "figures": figures}, indent=2) + "\n")
    for plot in draw(figures.get("curves", {}), options.report):
        print(plot, file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 120).print(table(figures, TARGETS))
    print(f"The report: {path}")


if __name__ == "__main__":
    main()
