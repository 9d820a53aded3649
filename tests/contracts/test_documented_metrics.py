"""docs/metrics.md names every metric there is, with its labels, and no other."""

import re

from tests.support.metrics import registered
from tests.support.paths import ROOT


def documented() -> dict[str, set[str]]:
    """Name → labels, as docs/metrics.md has them."""
    rows = re.findall(r"^\| `(notifier_\w+)` \| ([^|]*) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    names = [name for name, _ in rows]
    assert len(names) == len(set(names)), "a metric stands there twice"
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_is_documented_with_its_labels() -> None:
    assert documented() == registered()
