"""The main tests of whole systems once more, on the servers that production has in place of the embedded ones."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.services.backends import BACKENDS
from tests.support.paths import ROOT

#: Delivery on every channel, retries and dead letters, reminders.
MAIN: Final = (
    "tests/system/delivery/test_delivery.py",
    "tests/system/notifications/test_retries.py",
    "tests/system/planning/test_reminders.py",
)
#: A race within Postgres, whose sixty requests must be in within four seconds: not while three runs share two cores.
APART: Final = "not at_the_same_moment"


class _Run:
    """A run of the main tests on one server."""

    def __init__(self, server: str, output: Path) -> None:
        self.output = output
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--on", server, "-k", APART, *MAIN]
        with output.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, _Run]]:
    """All of them at once: they wait more than they compute."""
    folder = tmp_path_factory.mktemp("main")
    begun = {server: _Run(server, folder / server) for server in BACKENDS}
    yield begun
    for run in begun.values():
        if run.process.poll() is None:
            run.process.terminate()  # pytest ends what it has started
        run.process.wait(60)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", BACKENDS)
def test_the_main_tests_pass_on(runs: dict[str, _Run], server: str) -> None:
    run = runs[server]
    assert run.process.wait() == 0, run.output.read_text(errors="replace")
