"""A real Prometheus, with the rules as they are, watches a real stack to which things happen."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from deploy.ports import free_port
from notifier.security import api_keys
from tests.providers import receivers
from tests.providers.vendors import twilio
from tests.services.prometheus import Prometheus
from tests.support.documents import blocks
from tests.support.paths import ROOT
from tests.support.prometheus_files import ALERTS, CONFIG, FOLDER
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, made, wait_for

TOKEN = "what-prometheus-brings"
#: One that ends with 1 where it finds something wrong, as it does while things happen.
DOCTOR = "python manage.py doctor"


@dataclass
class Provider:
    """A provider of SMS, down until it is well."""

    is_well: bool = False

    def answer(self, _: receivers.Received) -> bytes:
        return twilio.success() if self.is_well else receivers.response(503)


@dataclass
class Watched:
    """A stack, what watches it, and what may happen to it."""

    system: Running
    prometheus: Prometheus
    sms: Provider

    def alerts(self) -> dict[str, dict[str, str]]:
        """The alerts that fire, by name, with those of their labels that say where."""
        given = [dict(each["labels"]) for each in self.prometheus.alerts()]
        return {
            labels.pop("alertname"): {name: value for name, value in labels.items() if name != "severity"}
            for labels in given
        }

    def type(self, command: str) -> str:
        """Type a command of the runbook; returns what it prints."""
        environment = {
            **self.system.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PROMETHEUS": self.prometheus.url,
            "API": self.system.url,
            "CHANNEL": "webhook",
            "QUEUE": "email",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in ({0, 1} if command == DOCTOR else {0}), f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def config_for(targets: dict[str, int], folder: Path) -> dict[str, Any]:
    """The configuration as it is, with other addresses, and a second for what takes 15. `targets`: job → port."""
    config = copy.deepcopy(CONFIG)
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["rule_files"] = [str(FOLDER / name) for name in CONFIG["rule_files"]]
    (folder / "token").write_text(TOKEN)
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        if "authorization" in job:
            job["authorization"] = {"credentials_file": str(folder / "token")}
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
    return config


@pytest.fixture
def watched(new_system: Callable[..., Running], tmp_path: Path) -> Iterator[Watched]:
    sms = Provider()
    with receivers.http(sms.answer) as (server, _):
        running = new_system(
            NOTIFIER_AUTH="required",
            NOTIFIER_METRICS_TOKEN=TOKEN,
            NOTIFIER_SMS=f"twilio://{twilio.ACCOUNT}:secret@127.0.0.1:{server.port}?from=%2B15550100&tls=none",
        )
        exporter, port = free_port(), free_port()
        running.add("exporter", "exporter", "--port", str(exporter))
        targets = {
            "notifier-api": running.port,
            "notifier-exporter": exporter,
            "prometheus": port,
            **{f"notifier-worker-{name}": each for name, each in running.metrics_ports.items()},
        }
        with running, Prometheus(tmp_path, config_for(targets, tmp_path), port) as prometheus:
            yield Watched(running, prometheus, sms)


@pytest.mark.timeout(300)  # rules wait for a minute before they fire
def test_what_happens_is_told_and_told_to_be_over(watched: Watched, http: HttpReceiver) -> None:
    system, prometheus = watched.system, watched.prometheus
    key = api_keys.create(system.engine, "test", ["send", "read", "admin"])
    system.http.headers["Authorization"] = f"Bearer {key}"
    wait_for(lambda: set(prometheus.targets().values()) == {"up"}, 30, "all to be scraped, with one token")
    wait_for(lambda: len(prometheus.query("notifier_workers_alive == 1")) == 3, 30, "the workers' signs of life")
    assert prometheus.alerts() == []

    # Receivers that refuse, a provider that is down, and a worker that is gone.
    http.answer("/refused", 410)
    system.retry.stop()
    # At once, so that Prometheus sees nothing between none and all.
    refused = [{"event_type": "test", "channel": "webhook", "recipient": http.url("/refused")}] * 60
    unsent = [
        {"event_type": "test", "channel": "sms", "recipient": f"+49151123456{number}"} for number in range(10, 20)
    ]
    answer = system.post("/api/v1/events/batch", {"events": [*refused, *unsent]})
    assert answer.json()["accepted"] == 70, answer.text

    # Meanwhile somebody looks, as the runbook says.
    wait_for(lambda: "NotifierDeadLetters" in prometheus.firing(), 30, "what was given up to be told of")
    commands = {name: "".join(blocks(name)).splitlines() for name in ALERTS}
    printed = {command: watched.type(command) for command in dict.fromkeys(chain.from_iterable(commands.values()))}
    for name in ALERTS:
        assert any(printed[command] for command in commands[name]), f"nothing that is typed for {name} shows anything"
    assert any("60" in printed[command] for command in commands["NotifierDeadLetters"])
    assert any("twilio" in printed[command] for command in commands["NotifierBreakerOpen"])

    expected = {
        "NotifierErrorRate": {"channel": "webhook"},
        "NotifierDeadLetters": {"channel": "webhook"},
        "NotifierBreakerOpen": {"channel": "sms", "provider": "twilio"},
        "NotifierAllProvidersDown": {"channel": "sms"},
        "NotifierWorkerUnresponsive": {"lane": "retry"},
        "NotifierTargetAbsent": {"job": "notifier-worker-retry"},
    }
    # Others may follow where it takes long: what nobody retries is late.
    try:
        wait_for(lambda: expected.items() <= watched.alerts().items(), 120, "the alerts")
    except AssertionError as error:
        raise AssertionError(f"{watched.alerts()}") from error
    assert "NotifierTargetAbsent" in watched.type("".join(blocks("Alerts")))
    for each in prometheus.alerts():
        assert each["annotations"]["runbook"] == f"docs/runbook.md#{each['labels']['alertname'].lower()}"
        assert "<no value>" not in str(each["annotations"])
        assert "%!" not in str(each["annotations"])

    # Mended faults are told of no longer; dead letters are, for a while.
    watched.sms.is_well = True
    system.start(only=[system.retry])
    system.sql("UPDATE providers SET open_until = now() WHERE name = 'twilio'")  # in less than a minute it would be
    made(system, channel="sms", recipient="+4915112345699")
    lasting = {"NotifierErrorRate", "NotifierDeadLetters"}
    wait_for(lambda: not watched.alerts().keys() - lasting, 60, "the others to clear")
