"""Files in formats of others: held against the schemas that the package check-jsonschema carries."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

#: A schema → the files that it is of.
CHECKED = {
    "vendor.compose-spec": [ROOT / "docker-compose.yml"],
    "vendor.github-workflows": sorted((ROOT / ".github/workflows").glob("*.y*ml")),
}


def check(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Check files, without the network."""
    program = Path(sys.prefix) / "bin/check-jsonschema"
    command = [program, "--builtin-schema", schema, *files]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("schema", CHECKED)
def test_files_are_what_their_readers_expect(schema: str) -> None:
    assert CHECKED[schema]
    done = check(schema, *CHECKED[schema])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ("vendor.compose-spec", "stop_grace_period: 20s", "stop_grace_perod: 20s"),
        ("vendor.github-workflows", "runs-on:", "run-on:"),
    ],
)
def test_a_misspelt_word_is_found(schema: str, right: str, wrong: str, tmp_path: Path) -> None:
    [file] = [each for each in CHECKED[schema] if right in each.read_text()][:1]
    (tmp_path / file.name).write_text(file.read_text().replace(right, wrong))
    done = check(schema, tmp_path / file.name)
    assert done.returncode == 1
