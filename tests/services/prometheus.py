"""A Prometheus of a test's own."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import requests
import yaml

from deploy.child_process import Child
from deploy.ports import free_port


class Sample(NamedTuple):
    """One series of an instant query's answer."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """A real one on a free port of 127.0.0.1, with the configuration that it is given."""

    def __init__(self, folder: Path, config: Mapping[str, Any], port: int | None = None) -> None:
        """`config`: what stands in its prometheus.yml; files that it names are below `folder`."""
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(dict(config)))
        command = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        self.process = Child("prometheus", command, log=folder / "prometheus.log", cwd=folder, ready=self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=2).ok
        except requests.RequestException:
            return False

    def __enter__(self) -> Self:
        self.process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API: get("targets"). Fails where it is an error."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression gives now: no sample or several. Fails where it is not one of PromQL."""
        data = self.get("query", query=expression, time=str(time.time()))
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def alerts(self, state: str = "firing") -> list[dict[str, Any]]:
        """The alerts that are `firing` or `pending`, with labels and annotations."""
        return [each for each in self.get("alerts")["alerts"] if each["state"] == state]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self.alerts()}

    def targets(self) -> dict[str, str]:
        """URL of each target → its health: `up`, `down`, or `unknown` before the first scrape."""
        return {each["scrapeUrl"]: each["health"] for each in self.get("targets")["activeTargets"]}
