"""Libraries of Debian's packages that were unpacked and not installed."""

import os
from pathlib import Path


def unpacked_libraries(program: Path) -> dict[str, str]:
    """Return the environment in which an unpacked program finds the libraries that were unpacked beside it."""
    libraries = ":".join(map(str, sorted(program.parents[2].glob("usr/lib/*-linux-gnu"))))
    return {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": libraries, "LC_ALL": "C.UTF-8"}
