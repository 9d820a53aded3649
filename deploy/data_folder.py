"""The data folder of the embedded stack: for its owner alone, with all that is in it."""

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.child_process import StartError

#: For the owner alone.
PRIVATE: Final = 0o700
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FILES: Final = frozenset(
    {"lock", "stack.json", "children.json", "postgres.json", "valkey.json", "webhook-secret", "secret-key"}
)


def make_folder(folder: Path) -> Path:
    """Make a data folder that is for its owner alone, or make one that is there so, with all that is in it.

    Raises StartError where that would close what is not ours.
    """
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    folder = folder.resolve()
    if folder.stat().st_mode & stat.S_ISVTX or folder == Path(folder.anchor):
        raise StartError(f"{folder} is for everybody, and the data are not: name a folder of their own")
    for path in (folder, *_ours_in(folder)):
        with contextlib.suppress(FileNotFoundError):  # a server that was left running made it, and has removed it
            _close(path)
    return folder


def _ours_in(folder: Path) -> Iterator[Path]:
    """Yield all that the stack keeps in its folder, but for the inside of the cluster, which Postgres keeps closed."""
    for path in folder.iterdir():
        if path.name in _FILES or path.name == "postgres":
            yield path
        elif path.name in {"logs", "valkey"}:
            yield from (path, *path.rglob("*"))


def _close(path: Path) -> None:
    """Close a file or a folder to others. Raises StartError."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return
    try:
        path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
    except PermissionError:
        raise StartError(f"{path} is open to others, and only its owner can close it") from None
