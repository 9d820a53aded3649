"""Plots of the scaling curves, as SVG."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import leather

_TITLES: Final = {
    "batch_size": "events a POST",
    "connections": "connections",
    "workers": "fresh workers",
    "rows_behind": "events behind",
}
_FIGURES: Final = ("accepted", "delivered")


def draw(curves: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Write a plot of each curve into a folder, and give its path: events a second, accepted and delivered."""
    for name, title in _TITLES.items():
        if name in curves:
            labels, points = [f"{int(x):,}" for x in curves[name]], list(curves[name].values())
            chart = leather.Chart(f"Events a second against {title}")
            chart.add_y_scale(0, max(point[figure] for point in points for figure in _FIGURES))
            # Points stand evenly, however far apart their numbers are.
            chart.add_x_axis(ticks=range(len(points)), tick_formatter=lambda at, *_, named=labels: named[int(at)])
            for figure in _FIGURES:
                chart.add_line([(place, point[figure]) for place, point in enumerate(points)], name=figure)
            path = folder / f"{name}.svg"
            chart.to_svg(str(path))
            yield path
