"""The alerts of deploy/prometheus as a PrometheusRule of the Prometheus Operator. `make prometheus-rule` runs this."""

from pathlib import Path
from typing import Final

import yaml

_HERE: Final = Path(__file__).parent
_ALERTS: Final = _HERE / "prometheus" / "alerts.yml"
#: Where the document is kept.
FILE: Final = _HERE / "kubernetes" / "components" / "observability" / "prometheus-rule.yaml"
_HEAD: Final = (
    "# Written by `make prometheus-rule` from deploy/prometheus/alerts.yml, where the reasons are. Change it there.\n"
)


def document() -> str:
    """Return the document, as the file has it."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "notifier"},
        "spec": yaml.safe_load(_ALERTS.read_text(encoding="utf-8")),
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
