"""Folders for data that no test outlives: in memory where there is room, since a database is a thousand files.

On a disk, with a journal, it takes a third of a second to make one and as long to remove it; in memory a tenth of that.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

_MEMORY: Final = Path("/dev/shm")
#: Bytes that must be free: the data of all processes of pytest come to half of it.
_ROOM: Final = 6 * 1024**3


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for a cluster of a test, which is gone after it.

    It is not below pytest's own: the next run of pytest closes that to others, and under root Postgres is another.
    """
    with tempfile.TemporaryDirectory(prefix="notifier-", dir=_memory(), ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


def _memory() -> Path | None:
    """Return the folder that is in memory; None where there is none, or too little room."""
    with contextlib.suppress(OSError):
        if min(shutil.disk_usage(_MEMORY).free, psutil.virtual_memory().available) > _ROOM:
            return _MEMORY
    return None
