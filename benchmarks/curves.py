"""How it scales: python -m benchmarks.curves [CURVE …] [--seconds 8] [--events 40000] [--rows 1000000] [--json].

Each curve changes one thing, on a stack of its own: the events a POST (`batch_size`, over 4 connections), the
connections that post single events (`connections`), the processes `worker fresh` (`workers`, 100 events a POST), or the
events, notifications and attempts that are there already (`rows_behind`, single events over 64 connections).
"""

import argparse
import sys
from typing import Any, Final

from rich.table import Table

from benchmarks.curve_points import CURVES, Point, Sizes
from benchmarks.output import show

#: The rates of a point.
_RATES: Final = ("accepted", "delivered")


def _curve(name: str, sizes: Sizes) -> dict[str, Point]:
    """Return one curve, with each point's rates as multiples of those of the first."""
    points: dict[str, Point] = {}
    for value, point in CURVES[name](sizes):
        first = next(iter(points.values()), point)
        points[str(value)] = point | {f"{rate}_ratio": point[rate] / first[rate] for rate in _RATES}
        print(f"{name} {value:,}: {point['delivered']:,.0f} delivered/s", file=sys.stderr)
    return points


def measure(names: list[str], sizes: Sizes) -> dict[str, Any]:
    """Every figure of some curves."""
    return {name: _curve(name, sizes) for name in names}


def _table(figures: dict[str, Any]) -> Table:
    table = Table("curve", title="Each curve changes one thing; × is to its first point", title_justify="left")
    for column in ("", "accepted/s", "×", "delivered/s", "×", "p50 ms", "p99 ms", "lost", "refused"):
        table.add_column(column, justify="right")
    for name, points in figures.items():
        for value, point in points.items():
            rates = (cell for rate in _RATES for cell in (f"{point[rate]:,.0f}", f"{point[f'{rate}_ratio']:.2f}"))
            late = (f"{point[key]:,.1f}" for key in ("p50", "p99"))
            table.add_row(name, f"{int(value):,}", *rates, *late, *(f"{point[key]:g}" for key in ("lost", "refused")))
        table.add_section()
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("curve", nargs="*", choices=[[], *CURVES], help="which [all]")
    parser.add_argument("--seconds", type=float, default=8, help="of posting, for each point")
    parser.add_argument("--events", type=int, default=40_000, help="the most that are posted for one point")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="events behind, each with a notification and an attempt"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    sizes = Sizes(seconds=options.seconds, events=options.events, rows=options.rows)
    figures = measure(options.curve or list(CURVES), sizes)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
