"""The metrics that the code registers."""

from prometheus_client import CollectorRegistry

from config.settings import read_settings
from config.wiring import Wiring
from deploy.exporter import Standings
from notifier.observability import metrics


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
