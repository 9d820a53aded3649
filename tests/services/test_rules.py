"""Prometheus reads its configuration and rules, finds each alert's cases as they should be, and starts by Compose."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from deploy.child_process import Child
from deploy.ports import free_port
from tests.support.containers import SERVICES, health_check
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy/prometheus"
TOKEN = "to be brought to all that is scraped"


def promtool(*arguments: str | Path) -> str:
    """Return what promtool prints, which must end well."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", FOLDER / "alerts.yml")


def test_each_alert_fires_in_its_cases_and_only_there() -> None:
    assert "SUCCESS" in promtool("test", "rules", FOLDER / "alerts_test.yml")


def test_a_case_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "alerts_test.yml", tmp_path)
    rules = (FOLDER / "alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(rules.replace("> 0.05", "> 0.04"))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "alerts_test.yml"], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"alertname: NotifierErrorRate" in done.stdout + done.stderr


@pytest.fixture
def as_in_compose(tmp_path: Path) -> Iterator[tuple[Child, Path, int]]:
    """Prometheus started by the command of docker-compose.yml, in other folders: the process, its token, its port."""
    token, port = tmp_path / "metrics-token", free_port()
    config = tmp_path / "config"
    shutil.copytree(FOLDER, config)
    text = (config / "prometheus.yml").read_text()
    (config / "prometheus.yml").write_text(text.replace("/tmp/metrics-token", str(token)))
    service = SERVICES["prometheus"]
    [script] = service["command"]
    for there, here in (
        ("/tmp/metrics-token", token),
        ("/etc/prometheus/", f"{config}/"),
        ("=/prometheus ", f"={tmp_path}/data "),
    ):
        assert there in script
        script = script.replace(there, str(here))
    environment = {"PATH": os.environ["PATH"], **dict.fromkeys(service["environment"], TOKEN)}
    command = [*service["entrypoint"], f"{script.rstrip()} --web.listen-address=127.0.0.1:{port}"]
    probe = [part.replace(":9090", f":{port}") for part in health_check("prometheus")]

    def is_healthy() -> bool:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    child = Child("prometheus", command, log=tmp_path / "log", environment=environment, cwd=tmp_path, ready=is_healthy)
    assert not is_healthy()
    child.start()
    try:
        promtool("check", "config", config / "prometheus.yml")
        yield child, token, port
    finally:
        child.stop()


def test_it_starts_as_compose_says_and_keeps_the_token_to_itself(as_in_compose: tuple[Child, Path, int]) -> None:
    child, token, port = as_in_compose
    assert token.read_text() == TOKEN
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    process = psutil.Process(child.pid)
    assert process.name() == "prometheus", "a shell before it would not hand signals on"
    assert TOKEN not in str(process.environ())
    flags = requests.get(f"http://127.0.0.1:{port}/api/v1/status/flags", timeout=5).json()["data"]
    assert (flags["storage.tsdb.retention.time"], flags["storage.tsdb.retention.size"]) == ("30d", "4GiB")
    assert flags["web.enable-admin-api"] == flags["web.enable-lifecycle"] == "false"
    config = requests.get(f"http://127.0.0.1:{port}/api/v1/status/config", timeout=5).json()["data"]["yaml"]
    assert config.count(f"credentials_file: {token}") == 5
    child.stop()
    assert child.exit_code == 0
