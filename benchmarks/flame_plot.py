"""Flame graphs as SVG without scripts, from stacks as py-spy counts them (`a;b;c 12`)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Final

_WIDTH: Final = 1200
_ROW: Final = 17
_LETTER: Final = 6.2
#: Parts of the whole below which a frame is not drawn.
_LEAST: Final = 0.004
#: Our own code, and all other.
_OURS: Final = ("api/", "config/", "deploy/", "notifier/", "tasks/")
_COLOURS: Final = {True: "#f4a259", False: "#c9d6df"}


@dataclass
class Frame:
    """A function, called by those below it. `samples` are those of what it calls too."""

    name: str
    samples: int = 0
    callees: dict[str, "Frame"] = field(default_factory=dict)


def tree_of(stacks: Iterable[str]) -> Frame:
    """Return the tree of folded stacks, without what all of them begin with."""
    root = Frame("all")
    for line in stacks:
        names, _, count = line.rpartition(" ")
        frame = root
        frame.samples += int(count)
        for name in names.split(";"):
            frame = frame.callees.setdefault(name, Frame(name))
            frame.samples += int(count)
    while len(root.callees) == 1:
        [only] = root.callees.values()
        if not only.callees:
            break
        root.callees = only.callees
    return root


def draw(root: Frame, title: str) -> str:
    """Return the graph: who calls stands above whom it calls, and a width is a share of all samples."""
    boxes = list(_boxes(root, 0, 0.0, root.samples))
    height = (max(depth for depth, *_ in boxes) + 1) * _ROW + 24
    drawn = "\n".join(_box(*box, root.samples) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' font-family="monospace" font-size="10">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="4" y="15" font-size="12">{escape(title)}</text>\n{drawn}\n</svg>\n'
    )


def _boxes(frame: Frame, depth: int, left: float, total: int) -> Iterator[tuple[int, float, Frame]]:
    yield depth, left, frame
    for callee in sorted(frame.callees.values(), key=lambda each: -each.samples):
        if callee.samples >= _LEAST * total:
            yield from _boxes(callee, depth + 1, left, total)
        left += callee.samples


def _box(depth: int, left: float, frame: Frame, total: int) -> str:
    x, width = left / total * _WIDTH, frame.samples / total * _WIDTH
    colour = _COLOURS[any(f"({part}" in frame.name for part in _OURS)]
    room = int((width - 4) / _LETTER)
    label = frame.name if len(frame.name) <= room else f"{frame.name[: room - 1]}…"
    text = f'<text x="3" y="12">{escape(label)}</text>' if room > 3 else ""
    share = frame.samples / total
    return (
        f'<g transform="translate({x:.1f} {20 + depth * _ROW})"><title>{escape(frame.name)}: {share:.1%}</title>'
        f'<rect width="{max(width - 0.5, 0.5):.1f}" height="{_ROW - 1}" fill="{colour}"/>{text}</g>'
    )
