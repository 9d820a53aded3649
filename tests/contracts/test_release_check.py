"""`make release-check`: it says in one sentence why a release cannot be made."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

AUTHOR = ("-c", "user.name=A", "-c", "user.email=a@example.com")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose version is new, and in its changelog."""
    for name, text in {
        ".ci/release_check.py": (ROOT / ".ci/release_check.py").read_text(),
        "notifier/__init__.py": 'VERSION: Final = "1.2.3"\n',
        "CHANGELOG.md": "# Changelog\n\n## Unreleased\n\n## [1.2.3] - 2030-01-01\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(project: Path, *arguments: str) -> None:
    subprocess.run(["git", *AUTHOR, *arguments], cwd=project, check=True, capture_output=True)


def commit(project: Path) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "x")


def check(project: Path, *options: str) -> tuple[int, str]:
    """Return the exit code, and what it says."""
    command = [sys.executable, ".ci/release_check.py", *(options or ("--only", "version"))]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_version_that_is_new_and_written_down_is_ready(project: Path) -> None:
    said = "version 1.2.3: new, and in CHANGELOG.md\nAll that was asked for holds: version.\n"
    assert check(project) == (0, said)


def test_a_version_is_released_once(project: Path) -> None:
    git(project, "tag", "v1.2.3")
    said = "Not ready for a release: v1.2.3 is tagged already: notifier/__init__.py needs the next one\n"
    assert check(project) == (1, said)


@pytest.mark.parametrize("changes", ["## Unreleased\n", "## 1.2.30\n", "## 1x2.3\n"])
def test_a_version_has_its_changes_written_down(project: Path, changes: str) -> None:
    (project / "CHANGELOG.md").write_text(changes)
    commit(project)
    assert check(project) == (1, "Not ready for a release: CHANGELOG.md has no section 1.2.3\n")


def test_what_is_not_committed_would_not_be_checked(project: Path) -> None:
    (project / "new").touch()
    said = "Not ready for a release: there are changes that are not committed, and a clone would be without them\n"
    assert check(project) == (1, said)


def test_a_start_that_fails_is_shown(project: Path) -> None:
    (project / "Makefile").write_text("run:\n\t@echo nothing works; false\n")
    commit(project)
    code, said = check(project, "--only", "run", "--python", f"{sys.version_info.major}.{sys.version_info.minor}")
    assert code == 1
    assert "Not ready for a release: make run delivered no sample:\nnothing works\n" in said
    assert "Traceback" not in said
