"""Flower beside a system, as an operator runs it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from deploy.child_process import Child
from deploy.ports import free_port
from tests.support.paths import ROOT


@contextmanager
def flower(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run it; gives its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/healthcheck", timeout=2).ok
        except requests.RequestException:
            return False

    command = [sys.executable, ROOT / "manage.py", "flower", "--port", str(port)]
    child = Child("flower", command, log=folder / "flower.log", environment=environment, cwd=ROOT, ready=answers)
    child.start()
    try:
        yield url
    finally:
        child.stop()


def workers_seen(url: str) -> set[str]:
    """The workers that Flower has asked and that have answered, without their hosts."""
    answer = requests.get(f"{url}/api/workers", params={"refresh": "1"}, timeout=20)
    return {name.partition("@")[0] for name in answer.json()} if answer.ok else set()
