"""The workflows of GitHub Actions, as their files say them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.support.paths import ROOT

GITHUB: Final = ROOT / ".github"
FILES: Final = sorted((GITHUB / "workflows").glob("*.yml"))


class Job(NamedTuple):
    """A job, and where it stands."""

    workflow: str
    name: str
    body: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Its steps, none where it calls another workflow."""
        steps: list[dict[str, Any]] = self.body.get("steps", [])
        return steps

    def step_of(self, action: str) -> dict[str, Any]:
        """Its only step that uses an action."""
        [step] = [each for each in self.steps if each.get("uses", "").startswith(f"{action}@")]
        return step

    @property
    def script(self) -> str:
        """All that it runs itself."""
        return "\n".join(each["run"] for each in self.steps if "run" in each)


def workflow(name: str) -> dict[str, Any]:
    """A workflow. YAML 1.1 reads its key "on" as True; it is "on" here."""
    body: dict[Any, Any] = yaml.safe_load((GITHUB / "workflows" / f"{name}.yml").read_text())
    return {"on" if key is True else key: value for key, value in body.items()}


def jobs() -> Iterator[Job]:
    """Yield every job of every workflow."""
    for file in FILES:
        for name, body in workflow(file.stem)["jobs"].items():
            yield Job(file.stem, name, body)


def job(name: str, of: str) -> Job:
    """One job of a workflow."""
    return Job(of, name, workflow(of)["jobs"][name])


def checked(program: str, *arguments: str | Path, cwd: Path = ROOT) -> str:
    """Run a program of the virtual environment, and return what it finds, nothing where all is well."""
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""
