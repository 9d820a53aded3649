"""Flame graphs: widths are shares, and nothing of a name becomes markup."""

from xml.etree import ElementTree as ET

from benchmarks.flame_plot import draw, tree_of

STACKS = (
    "start (manage.py);run (lib.py);deliver (notifier/delivery.py);send (curl.py) 60",
    "start (manage.py);run (lib.py);deliver (notifier/delivery.py) 20",
    "start (manage.py);run (lib.py);<module> (x.py) 19997",
    "start (manage.py);run (lib.py);rare (lib.py) 3",
    "start (manage.py);run (lib.py);deliver (notifier/delivery.py);send (curl.py) 19920",
)
SVG = {"": "http://www.w3.org/2000/svg"}


def test_a_graph_shows_shares_without_what_all_begin_with() -> None:
    root = tree_of(STACKS)
    assert root.samples == 40_000
    assert set(root.callees) == {"deliver (notifier/delivery.py)", "<module> (x.py)", "rare (lib.py)"}
    drawn = ET.fromstring(draw(root, "fresh & idle"))
    titles = [title.text for title in drawn.iterfind(".//title", SVG)]
    assert titles == [
        "all: 100.0%",
        "deliver (notifier/delivery.py): 50.0%",
        "send (curl.py): 50.0%",
        "<module> (x.py): 50.0%",
    ]
    widths = [float(each.get("width", "")) for each in drawn.iterfind(".//g/rect", SVG)]
    assert abs(widths[1] - widths[0] / 2) < 1
    assert not list(drawn.iterfind(".//script", SVG))
