"""How many machines: python -m benchmarks.capacity --per-day 10000000 --peak 2000 [--channels email=0.5,webhook=0.5] …

Reckons, from the unit costs in benchmarks/capacity_costs.json, what a load takes: processes, cores, memory, Postgres'
disk, log and sessions, Redis' memory, machines, and what is full first. docs/capacity.md explains the model and how far
it is off. Sees no running system, but for `--measure`, which measures the unit costs on this machine, in some minutes
that nothing else should use, and writes the file anew.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final, NoReturn

from benchmarks import capacity_report
from benchmarks.capacity_costs import Costs, costs_of
from benchmarks.capacity_model import Ask, BadInput, needs_of
from benchmarks.output import show

#: The figures that are committed.
COSTS: Final = Path(__file__).with_name("capacity_costs.json")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def channels_of(text: str) -> dict[str, float]:
    """Read `email=0.5,webhook=0.5`. Raises ArgumentTypeError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            value = float(share)
        except ValueError:
            raise argparse.ArgumentTypeError(f"has {part.strip()!r}: it is written email=0.5,webhook=0.5") from None
        if name in shares:
            raise argparse.ArgumentTypeError(f"names {name} twice")
        shares[name] = value
    return shares


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--per-day", type=float, default=10_000_000, help="notifications a day [10,000,000]")
    parser.add_argument("--peak", type=float, default=2_000, help="notifications a second at the peak [2,000]")
    parser.add_argument("--retention-days", type=float, default=30, help="NOTIFIER_RETENTION [30]")
    parser.add_argument("--payload-bytes", type=float, default=200, help="of an event [200]")
    parser.add_argument("--retries", type=float, default=0.05, help="attempts after the first, for each [0.05]")
    parser.add_argument("--channels", type=channels_of, default={"webhook": 1.0}, help="shares [webhook=1]")
    parser.add_argument("--provider-ms", type=float, default=200, help="until a provider or receiver answers [200]")
    parser.add_argument("--batch", type=int, default=1, help="events a POST [1]")
    parser.add_argument("--busy", type=float, default=0.6, help="part of a core that may be busy at the peak [0.6]")
    parser.add_argument("--backlog-minutes", type=float, default=10, help="for which the peak may wait [10]")
    parser.add_argument("--threads", type=int, default=4, help="NOTIFIER_WORKER_CONCURRENCY [4]")
    parser.add_argument("--max-connections", type=int, default=200, help="of Postgres [200]")
    parser.add_argument("--spare", type=int, default=1, help="pieces that may fail at the peak [1]")
    parser.add_argument("--costs", type=Path, default=COSTS, help="unit costs [those that are committed]")
    parser.add_argument("--measure", action="store_true", help="measure the unit costs, and write them to --costs")
    parser.add_argument("--only", action="append", help="with --measure: one stage; may be given several times")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of tables")
    return parser


def ask_of(options: argparse.Namespace) -> Ask:
    """Return the load that the options name. Raises BadInput."""
    names = Ask.__dataclass_fields__
    return Ask(**{name: value for name, value in vars(options).items() if name in names})


def read_costs(path: Path) -> Costs:
    """Read a file of unit costs. Raises BadInput."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        return costs_of(document)
    except OSError as error:
        raise BadInput(f"--costs cannot be read: {error.strerror}: {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise BadInput(f"--costs is not a file that --measure wrote, or lacks a stage: {path}") from None


def main() -> None:
    """Reckon and print, or measure."""
    parser = _parser()
    options = parser.parse_args()
    if options.only and not options.measure:
        parser.error("--only is for --measure")
    try:
        if options.measure:
            # Here, since it needs what starts stacks, and reckoning needs none of it.
            from benchmarks.capacity_measure import write  # noqa: PLC0415 -- see above

            write(options.costs, options.only)
            return
        costs = read_costs(options.costs)
        needs = needs_of(ask_of(options), costs)
    except BadInput as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps(capacity_report.as_document(needs, costs)))
        return
    show(needs, lambda found: capacity_report.table(found, costs), as_json=False)


if __name__ == "__main__":
    main()
