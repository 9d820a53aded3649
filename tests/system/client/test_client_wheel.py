"""The client's wheel: built, installed where nothing of this repository is, used, and typed as its users see it."""

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from notifier_client import __version__
from tests.conftest import clean_environment
from tests.support.paths import ROOT
from tests.support.running import Running

SOURCE = ROOT / "clients/python"

USE = """
import json, sys, notifier_client
from notifier_client import BatchSender, Client, verify_webhook
with Client(sys.argv[1]) as client:
    sent = client.events.send({"event_type": "wheel.sent", "payload": {"from": "a wheel"}})
    with BatchSender(client) as sender:
        sender.add({"event_type": "wheel.sent"})
assert not {"notifier", "deploy", "api", "standardwebhooks"} & sys.modules.keys()
print(json.dumps({"id": sent["id"], "file": notifier_client.__file__, "version": notifier_client.__version__}))
"""
#: A user's file. Each line that ends in `# error: CODE` has that error, and no other line has any.
TYPED = '''
"""A program as a user writes it."""

from datetime import UTC, datetime
from typing import assert_type

from notifier_client import BatchSender, Client, Limits, Unsent, verify_webhook
from notifier_client.types import BatchItem, Event, EventOut, Notification, NotificationStatus

client = Client("http://localhost:8000", key="KEY", retries=5)
event: Event = {"event_type": "a", "channel": "email", "recipient": "a@example.com", "send_at": datetime.now(UTC)}
assert_type(client.events.send(event)["duplicate"], bool)
assert_type([each for each in client.events.list(status="failed")], list[EventOut])
notifications: list[Notification] = client.events.get("x")["notifications"]
status: NotificationStatus = notifications[0]["status"]
client.templates.put("welcome", {"channel": "email", "from": "a@example.com", "text": "Hello"})


def refused(event: Event, item: BatchItem) -> None:
    print(event["event_type"], item.get("errors"))


try:
    with BatchSender(client, limits=Limits(max_events=10), on_refused=refused) as sender:
        sender.add(event)
except Unsent as error:
    assert_type(error.events[0]["event_type"], str)
print(verify_webhook(b"{}", {}, "whsec_x")["type"])

client.events.send({"payload": {}})  # error: typeddict-item
client.events.send({"event_type": "a", "recipent": "b"})  # error: typeddict-unknown-key
client.events.send({"event_type": "a", "channel": "fax"})  # error: typeddict-item
client.events.list(statuss="failed")  # error: call-arg
client.events.list(status="done")  # error: arg-type
client.events.get("x")["notification"]  # error: typeddict-item
client.users.put("x", {"email": 1})  # error: typeddict-item
Client(key="KEY")  # error: call-arg
'''


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> str:
    known = {name: value for name, value in clean_environment().items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env={**known, **environment}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], SOURCE)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """Python where the wheel is installed: our packages are there for what it needs, and nothing of the repository."""
    folder = wheel.parent / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", folder], wheel.parent)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], wheel.parent)
    [packages] = folder.glob("lib/*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_the_package_and_its_types_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"notifier_client-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [about] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    source = SOURCE / "src"
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in {".py", ".typed"}}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert "notifier_client/py.typed" in files
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert (SOURCE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "License-Expression: Apache-2.0" in about
    requirements = sorted(re.findall(r"^Requires-Dist: (.*)$", about, re.MULTILINE))
    assert [re.split(r"[<>;]", each)[0] for each in requirements] == ["requests", "standardwebhooks"]
    assert "extra == 'webhooks'" in requirements[1]
    assert "# notifier-client" in about


def test_what_is_installed_sends_to_a_running_system(system: Running, python: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageNotFoundError):
        distribution("notifier-client")  # the repository uses its source, and installs nothing
    found = json.loads(run([python, "-W", "error", "-c", USE, system.url], tmp_path))
    assert system.client.events.get(found["id"])["payload"] == {"from": "a wheel"}
    assert len(list(system.client.events.list(event_type="wheel.sent"))) == 2
    assert str(python.parents[1]) in found["file"]
    assert found["version"] == __version__


def test_a_strict_mypy_understands_its_users_and_finds_their_mistakes(python: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(TYPED)
    readme = (SOURCE / "README.md").read_text()
    (tmp_path / "readme.py").write_text("".join(re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache"]
    command = [*mypy, "--no-error-summary", "user.py", "readme.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    found = re.findall(r"^(\S+\.py:\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    lines = TYPED.splitlines()
    expected = [(f"user.py:{n}", line.split("# error: ")[1]) for n, line in enumerate(lines, 1) if "# error: " in line]
    assert found == expected, done.stdout + done.stderr
