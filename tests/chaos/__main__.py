"""`make chaos`: run faults, write a report, and fail where something did not hold."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from tests.chaos import report
from tests.chaos.every_fault import FAULTS
from tests.chaos.faults import NotHere
from tests.chaos.judging import Outcome
from tests.chaos.running import Runner, chosen, not_run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--fault", action="append", default=[], help="run this one; may be given several times")
    parser.add_argument("--load", choices=["steady", "backlog", "both"], help="[both; short: steady]")
    parser.add_argument("--seed", type=int, default=None, help="the seed of all that is drawn [one is drawn]")
    parser.add_argument("--short", action="store_true", help="a few short faults, within five minutes")
    parser.add_argument("--seconds", type=float, help="how long each fault lasts [as long as it says]")
    parser.add_argument("--report", type=Path, default=Path("build/chaos"), help="the report's folder [build/chaos]")
    parser.add_argument("--list", action="store_true", help="list the faults, and run none")
    return parser.parse_args()


def _end(*_: object) -> NoReturn:
    raise SystemExit(1)  # and stop what runs, on the way out


def main() -> int:
    """Run what the command line asks for. Returns 0 where everything held, 1 where something did not."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _end)
    if arguments.list:
        for fault in FAULTS.values():
            print(f"{fault.name:22} {'short' if fault.short is not None else '':6} {fault.what}")
        return 0
    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(3))
    names = chosen(arguments.fault, short=arguments.short)
    wanted = arguments.load or ("steady" if arguments.short else "both")
    loads = ["steady", "backlog"] if wanted == "both" else [wanted]
    print(f"Seed {seed}: {len(names)} faults, under {' and '.join(loads)} load.", flush=True)
    outcomes: list[Outcome] = []
    runner = Runner(seed, short=arguments.short, seconds=arguments.seconds, logs=arguments.report / "logs")
    began = time.monotonic()
    print(report.HEAD, flush=True)
    try:
        for name, load in [(name, load) for load in loads for name in names]:
            try:
                outcome = runner.run(name, load)
            except NotHere as why:
                outcome = not_run(name, load, seed, str(why))
            outcomes.append(outcome)
            print(report.row(outcome), flush=True)
            for history in outcome.histories:
                print(history, flush=True)
            report.write(outcomes, seed, arguments.report)
    finally:
        runner.close()
    held = all(not each.wrong for each in outcomes)
    print(f"{time.monotonic() - began:.0f} s. The report: {arguments.report}/report.md", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
