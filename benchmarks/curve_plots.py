"""Plots of the scaling curves, as SVG."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pygal

_TITLES: Final = {
    "batch_size": "events a POST",
    "connections": "connections",
    "workers": "fresh workers",
    "rows_behind": "rows behind",
}


def draw(curves: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Write a plot of each curve into a folder, and give its path: events a second, accepted and delivered."""
    for name, title in _TITLES.items():
        if name in curves:
            points = curves[name]
            chart = pygal.Line(title=f"Events a second against {title}", x_title=title, include_x_axis=True, js=[])
            chart.x_labels = [f"{int(x):,}" for x in points]
            for figure in ("accepted", "delivered"):
                chart.add(figure, [round(point[figure]) for point in points.values()])
            path = folder / f"{name}.svg"
            path.write_bytes(chart.render())
            yield path
