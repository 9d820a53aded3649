"""manage.py, run to its end."""

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def manage(*arguments: str, environment: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run manage.py to its end."""
    return subprocess.run(
        [sys.executable, ROOT / "manage.py", *arguments],
        env={**environment, "COLUMNS": "200"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def succeed(*arguments: str, environment: dict[str, str]) -> str:
    done = manage(*arguments, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
