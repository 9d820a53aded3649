"""Scrapes and alerts of Prometheus: held against the services, the metrics and the runbook that there are.

`make test-services` has Prometheus itself read, test and run it.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import read_settings
from tests.support.containers import NEEDED, SERVICES, WORKER_SERVICES, environment_of, parsed
from tests.support.metrics import registered
from tests.support.paths import ROOT
from tests.support.prometheus_files import ALERTS, CONFIG, FOLDER, RULES

CASES = [
    case
    for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    for case in test["alert_rule_test"]
]


RUNBOOK = (ROOT / "docs/runbook.md").read_text()
#: Labels that Prometheus itself adds to samples, or to the buckets of a histogram.
OWN_LABELS = {"job", "le"}


def own_jobs() -> dict[str, dict[str, Any]]:
    """Service → the job that scrapes it."""
    jobs = {job["job_name"]: job for job in CONFIG["scrape_configs"]}
    return {name.removeprefix("notifier-"): job for name, job in jobs.items() if name.startswith("notifier-")}


# --- What is scraped


def test_all_that_serves_metrics_is_scraped_where_it_does() -> None:
    assert own_jobs().keys() == {"api", "exporter", *WORKER_SERVICES}
    for service, job in own_jobs().items():
        [found] = job["dns_sd_configs"]
        assert (found["names"], found["type"]) == ([service], "A")
        if service in WORKER_SERVICES:
            address = read_settings(environment_of(service, NEEDED)).metrics_address
            assert address is not None
            assert found["port"] == address[1]
        else:
            assert found["port"] == parsed(SERVICES[service]["command"]).options["port"]
        assert set(SERVICES[service]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_prometheus_reads_the_token_that_it_is_given() -> None:
    [script] = SERVICES["prometheus"]["command"]
    for job in own_jobs().values():
        assert f'"$NOTIFIER_METRICS_TOKEN" > {job["authorization"]["credentials_file"]}\n' in script
    given = SERVICES["prometheus"]["environment"]["NOTIFIER_METRICS_TOKEN"]
    assert given == read_settings(environment_of("api", NEEDED)).metrics_token
    assert "secrets" not in SERVICES["prometheus"], "those from the environment are refused where all is read-only"


def test_what_is_mounted_from_here_is_there_and_read_only() -> None:
    mounts = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    ours = {source: rest for source, *rest in mounts if source.startswith(".")}
    assert ours["./deploy/prometheus"] == ["/etc/prometheus", "ro"]
    for source, (_, mode) in ours.items():
        assert (ROOT / source).exists(), source
        assert mode == "ro"
    [script] = SERVICES["prometheus"]["command"]
    [file] = re.findall(r"--config\.file=/etc/prometheus/(\S+)", script)
    assert (FOLDER / file).is_file()
    assert all((FOLDER / name).is_file() for name in CONFIG["rule_files"])


def test_prometheus_does_not_grow_without_end() -> None:
    [script] = SERVICES["prometheus"]["command"]
    assert re.search(r"--storage\.tsdb\.retention\.time=\d+d --storage\.tsdb\.retention\.size=\d+GB", script)
    assert "--storage.tsdb.path=/prometheus " in script
    # Anybody who reaches it may ask; nobody may stop it, or delete what it knows.
    assert "--web." not in script


# --- When it alerts


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_ask_for_metrics_that_there_are(name: str) -> None:
    expression = ALERTS[name]["expr"]
    known = {
        f"{metric}{suffix}": labels for metric, labels in registered().items() for suffix in ("", "_bucket", "_count")
    }
    asked = set(re.findall(r"\bnotifier_\w+", expression))
    assert asked <= known.keys()
    assert asked or "up{" in expression
    labels = OWN_LABELS.union(*(known[metric] for metric in asked))
    for metric, selectors in re.findall(r"\b(notifier_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\"", selectors)) <= known[metric]
    for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(re.findall(r"\w+", grouped)) <= labels


def test_it_is_noticed_where_all_of_a_job_is_missing() -> None:
    absent = re.findall(r'absent\(up\{job="notifier-([^"]+)"\}\)', ALERTS["NotifierTargetAbsent"]["expr"])
    assert sorted(absent) == sorted(own_jobs())


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_say_what_how_bad_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Notifier([A-Z][a-z]+)+", name)
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert all(rule["annotations"][each].endswith(".") for each in ("summary", "description"))
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_alerts_and_the_runbook_s_sections_are_the_same() -> None:
    [section] = re.findall(r"^## Alerts\n(.*?)^## ", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^### (.+)$", section, re.MULTILINE) == list(ALERTS)
    assert len(ALERTS) == len(RULES)
    for text in re.split(r"^### .+$", section, flags=re.MULTILINE)[1:]:
        for paragraph in ("**Means.**", "**Who is hurt.**", "**Look.**", "**Do.**", "**Clears**"):
            assert f"\n{paragraph} " in text


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    assert {bool(case["exp_alerts"]) for case in CASES if case["alertname"] == name} == {True, False}


def test_the_page_of_metrics_points_at_what_there_is() -> None:
    page = Path(ROOT / "docs/metrics.md").read_text()
    for name in re.findall(r"`(deploy/[\w./]+)`", page):
        assert (ROOT / name).exists(), name
