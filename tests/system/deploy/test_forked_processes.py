"""The processes that tests have forked behave as those that an interpreter starts."""

import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import QUICK, clean_environment
from tests.support.fork_server import FORK_SERVER, ForkedChild
from tests.support.paths import ROOT
from tests.support.running import wait_for


def test_one_that_is_killed_as_it_begins_ends(tmp_path: Path, new_redis: Callable[[], str]) -> None:
    environment = {**clean_environment(), **QUICK, "REDIS_URL": new_redis()}
    command = [sys.executable, str(ROOT / "manage.py"), "beat"]
    assert FORK_SERVER.takes(command, environment)
    for number in range(10):
        child = ForkedChild(f"beat-{number}", command, log=tmp_path / "log", environment=environment, cwd=ROOT)
        child.launch()
        child.kill()
        wait_for(lambda child=child: not child.alive(), 5, "its end")
