"""Schemathesis against a running system: whatever the OpenAPI description allows is accepted, and as it says answered.

All of its checks, with requests that fit the description and such that do not, one by one and in sequences along links.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from notifier.security import api_keys
from tests.support.paths import ROOT
from tests.support.running import Running

TOOL = Path(sys.prefix) / "schema" / "bin" / "schemathesis"
#: The same requests each time; another seed is for finding more by hand.
SEED = os.environ.get("SCHEMA_SEED", "1")
#: Requests of each operation beside those that try the bounds of every member.
CASES = os.environ.get("SCHEMA_CASES", "4")
#: Channels that have templates, which examples name.
TEMPLATES = ("email", "sms", "push", "chat")


@pytest.mark.timeout(1200)
def test_nothing_is_found(start_system: Callable[..., Running], tmp_path: Path) -> None:
    # Addresses that it makes up lead nowhere: nothing is to be sent.
    system = start_system(NOTIFIER_AUTH="required", NOTIFIER_SANDBOX="1")
    key = api_keys.create(system.engine, "schema", [str(scope) for scope in api_keys.Scope])
    system.http.headers["Authorization"] = f"Bearer {key}"
    for channel in TEMPLATES:
        template = {"channel": channel, "text": "Hello"}
        assert system.http.put(f"{system.url}/api/v1/templates/welcome", json=template, timeout=20).ok
    options = ["--header", f"Authorization: Bearer {key}", "--seed", SEED, "--max-examples", CASES, "--workers", "2"]
    options += [
        "--checks",
        "all",
        "--exclude-checks",
        "positive_data_acceptance",
    ]  # hooks.py has it, but for what is kept
    options += [
        "--continue-on-failure",
        "--no-shrink",
        "--generation-database",
        "none",
        "--no-color",
        "--warnings",
        "off",
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.schema.hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [TOOL, "run", f"{system.url}/openapi.json", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
