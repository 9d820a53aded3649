"""docs/metrics.md names every metric there is, with its labels, and no other."""

import re

from prometheus_client import CollectorRegistry

from config.settings import read_settings
from config.wiring import Wiring
from deploy.exporter import Standings
from notifier.observability import metrics
from tests.support.paths import ROOT


def documented() -> dict[str, set[str]]:
    """Name → labels, as docs/metrics.md has them."""
    rows = re.findall(r"^\| `(notifier_\w+)` \| ([^|]*) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    names = [name for name, _ in rows]
    assert len(names) == len(set(names)), "a metric stands there twice"
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def registered() -> dict[str, set[str]]:
    """The same as it is in the code."""
    found: dict[str, set[str]] = {}
    for each in vars(metrics).values():
        if hasattr(each, "_labelnames"):
            [family] = each.describe()
            suffix = "_total" if family.type == "counter" else ""
            found[family.name + suffix] = set(each._labelnames)
    wires = Wiring(read_settings({"DATABASE_URL": "postgresql://nowhere"}))
    for gauge in Standings(wires).describe():
        found[gauge.name] = set(gauge._labelnames)
    registry = CollectorRegistry()
    metrics.build_info(registry)
    for family in registry.collect():
        found[f"{family.name}_info"] = {"version"}
    return found


def test_every_metric_is_documented_with_its_labels() -> None:
    assert documented() == registered()
