"""Grafana's dashboards as they are shipped."""

import json
from typing import Any

from deploy.dashboards import FOLDER

FILES = sorted(FOLDER.glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES}
