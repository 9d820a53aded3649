"""Prometheus's files as they are shipped."""

from typing import Any

import yaml

from tests.support.paths import ROOT

FOLDER = ROOT / "deploy/prometheus"
CONFIG: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())


RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


ALERTS = {rule["alert"]: rule for rule in RULES}
