"""The Prometheus that the other tests here look through."""

from pathlib import Path

from deploy.ports import free_port
from tests.services.prometheus import Prometheus
from tests.support.running import wait_for

RULES = """
groups:
  - name: itself
    rules: [{alert: Watched, expr: up == 1, labels: {severity: none}}]
"""


def test_it_scrapes_answers_and_alerts(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "itself", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    with Prometheus(tmp_path, config, port) as prometheus:
        wait_for(lambda: "Watched" in prometheus.firing())
        [up] = prometheus.query("up")
        assert (up.labels["job"], up.value) == ("itself", 1)
        assert prometheus.query("nothing_of_the_kind") == []
        assert set(prometheus.targets().values()) == {"up"}
    assert not prometheus.process.alive()
