"""`manage.py up`: the whole stack from nothing, as a new user starts it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from config.settings import STACK_FILE
from deploy.child_process import is_running
from deploy.ports import free_port
from tests.conftest import clean_environment
from tests.support.paths import ROOT
from tests.support.running import wait_for
from tests.support.scratch import scratch_folder


class Up:
    """One run of `manage.py up`."""

    def __init__(self, folder: Path, port: int, *options: str, **settings: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.output = folder.parent / f"{folder.name}-{time.monotonic_ns()}.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "manage.py", "up", "--port", str(port), "--data-dir", folder, *options],
                env={**clean_environment(), **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """Return what it printed so far."""
        return self.output.read_text()

    def wait_until_it_says(self, text: str, timeout: float = 60) -> None:
        """Wait for a text on its terminal; fail where it ends before."""
        wait_for(lambda: text in self.said() or self.process.poll() is not None, timeout, text)
        assert text in self.said(), self.said()

    def errors(self) -> list[str]:
        """Its error, line by line."""
        lines = self.said().strip().splitlines()
        return lines[next(n for n, line in enumerate(lines) if line.startswith("Error: ")) :]

    def family(self) -> list[psutil.Process]:
        """Everything it started, however deep."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def process_of(self, words: str) -> psutil.Process:
        """A process that it started, by words of its command line."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):  # one of Postgres' comes and goes
                if words in " ".join(process.cmdline()):
                    return process
        raise AssertionError(f"nothing runs {words}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it as a user would, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(40)


@contextlib.contextmanager
def runs_of_up() -> Iterator[Callable[..., Up]]:
    """Starts stacks in one folder; nothing of them is left in the end."""
    runs: list[Up] = []
    with scratch_folder() as folder:

        def start(port: int, *options: str, **settings: str) -> Up:
            run = Up(folder / "data", port, *options, **settings)
            runs.append(run)
            return run

        try:
            yield start
        finally:
            for run in runs:
                run.stop()


@pytest.fixture
def start_up() -> Iterator[Callable[..., Up]]:
    """Starts stacks in a folder of the test."""
    with runs_of_up() as start:
        yield start


@pytest.fixture(scope="module")
def start_beside() -> Iterator[Callable[..., Up]]:
    """Starts stacks in the folder of `demo`."""
    with runs_of_up() as start:
        yield start


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """The ports of the API and of Flower that `demo` is told."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def demo(start_beside: Callable[..., Up], ports: tuple[int, int]) -> Up:
    """A stack from nothing, with secrets of every kind, that has shown what it does."""
    others = {"NOTIFIER_BOUNCES": "imap://user:secret@127.0.0.1/INBOX", "NOTIFIER_READER_PASSWORD": "secret"}
    run = start_beside(ports[0], "--demo", "--flower-port", str(ports[1]), **others)
    run.wait_until_it_says("accepted")
    return run


def _post(url: str, **fields: str) -> str:
    answer = requests.post(f"{url}/api/v1/events", json={"event_type": "up.test", **fields}, timeout=10)
    assert answer.status_code == 202, answer.text
    event_id: str = answer.json()["id"]
    return event_id


def _status(url: str, event_id: str) -> str:
    event = requests.get(f"{url}/api/v1/events/{event_id}", timeout=10).json()
    status: str = event["notifications"][0]["status"]
    return status


def test_a_stack_from_nothing_delivers_and_says_what_there_is(demo: Up, ports: tuple[int, int]) -> None:
    said = demo.said()
    for expected in ("sent", "delivered", f"{demo.url}/docs", f"http://127.0.0.1:{ports[1]}", "manage.py outbox"):
        assert expected in said, said
    wait_for(lambda: requests.get(f"{demo.url}/ready", timeout=5).json()["status"] == "ok")
    assert not [path for path in (demo.folder, *demo.folder.rglob("*")) if path.lstat().st_mode & 0o077]


def test_flower_is_up_and_answers_no_other_site(demo: Up, ports: tuple[int, int]) -> None:
    _, flower = ports
    wait_for(lambda: _answers(f"http://127.0.0.1:{flower}/"), 40, "Flower")
    for method, forged, status in (
        ("GET", {"Host": "evil.example"}, 421),
        ("GET", {"Host": f"localhost:{flower}"}, 200),
        ("POST", {"Origin": "https://evil.example"}, 403),
    ):
        for path in ("/", "/tasks", "/static/css/flower.css"):
            found = requests.request(method, f"http://127.0.0.1:{flower}{path}", headers=forged, timeout=10)
            assert found.status_code == status, (path, forged)


def test_every_process_is_scraped_where_it_says(demo: Up) -> None:
    scraped = json.loads((demo.folder / STACK_FILE).read_text())["metrics"]
    second = {"worker-fresh-2"} if (os.cpu_count() or 1) > 1 else set()
    assert scraped.keys() == {"api", "worker-fresh", *second, "worker-retry", "worker-clock", "exporter"}
    assert scraped["exporter"] in demo.said()
    for url in scraped.values():
        wait_for(lambda url=url: _answers(url) and "notifier_build_info" in requests.get(url, timeout=5).text, 40, url)


#: The secrets that each kind of process is told, by a word of its command line.
TOLD = {
    "postgres": set(),
    "valkey-server": set(),
    "api.serving": {"database", "broker", "own", "providers"},
    "worker": {"database", "broker", "own", "providers"},
    "beat": {"broker"},
    "exporter": {"database", "broker"},
    "deploy.flower": {"broker"},
}
SECRETS = {
    "DATABASE_URL": "database",
    "NOTIFIER_MIGRATION_DATABASE_URL": "owner",
    "NOTIFIER_ADMIN_DATABASE_URL": "superuser",
    "REDIS_URL": "broker",
    "NOTIFIER_WEBHOOK_SECRET": "own",
    "NOTIFIER_SECRET_KEY": "own",
    "NOTIFIER_EMAIL": "providers",
    "NOTIFIER_SMS": "providers",
    "NOTIFIER_BOUNCES": "mailbox",
    "NOTIFIER_READER_PASSWORD": "reader",
}


def test_each_process_is_told_what_it_needs(demo: Up) -> None:
    seen = set()
    for process in demo.family():
        try:
            words, told = process.cmdline(), process.environ()
        except psutil.NoSuchProcess:
            continue  # one of Postgres' comes and goes
        kind = next((kind for kind in TOLD if any(Path(word).name == kind for word in words)), None)
        if kind is None or (kind == "postgres" and "-D" not in words):
            continue  # a process of one of those
        assert {what for name, what in SECRETS.items() if name in told} == TOLD[kind], words
        assert urlsplit(told.get("DATABASE_URL", "")).username in {None, "notifier_app"}
        seen.add(kind)
    assert seen == TOLD.keys()


def test_two_on_one_folder_are_one_too_many(demo: Up, start_beside: Callable[..., Up]) -> None:
    second = start_beside(free_port(), "--no-flower")
    assert second.process.wait(30) == 1
    [error] = second.errors()
    assert str(demo.folder) in error


def test_a_worker_that_is_killed_is_started_again(demo: Up) -> None:
    demo.process_of("worker fresh").kill()
    demo.wait_until_it_says("worker-fresh was ended by SIGKILL; again in 1 s")
    event_id = _post(demo.url, recipient="+4915112345678", channel="sms")
    wait_for(lambda: _status(demo.url, event_id) == "sent", 40)


# The last one of `demo`.
def test_a_stack_is_whole_again_after_a_kill(demo: Up, start_beside: Callable[..., Up], ports: tuple[int, int]) -> None:
    event_id = _post(demo.url, recipient="+4915112345678", channel="sms")
    wait_for(lambda: _status(demo.url, event_id) == "sent", 40)
    family = demo.family()
    os.kill(demo.process.pid, signal.SIGKILL)
    demo.process.wait(10)
    second = start_beside(ports[0], "--no-flower")
    second.wait_until_it_says("Notifier is up")
    assert "adopted" in second.said()
    assert _status(second.url, event_id) == "sent"
    again = _post(second.url, recipient="+4915112345678", channel="sms")
    wait_for(lambda: _status(second.url, again) == "sent")

    family += second.family()
    second.stop(signal.SIGINT)
    assert second.process.returncode == 0
    wait_for(lambda: not [p for p in family if is_running(p)], 20, "everything to be stopped")


def test_a_port_that_was_asked_for_is_never_moved(start_up: Callable[..., Up]) -> None:

    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        port = occupied.getsockname()[1]
        run = start_up(port, "--no-flower")
        assert run.process.wait(30) == 1
    [error] = run.errors()
    assert f"port {port} is taken" in error


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False
