"""The data folder of the embedded stack, which only its owner can read."""

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
    """Create a data folder that only its owner can read, or restrict an existing one and all its files.

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
    """Yield all files of the stack in its folder, except the cluster's, which Postgres restricts itself."""
    for path in folder.iterdir():
        if path.name in _FILES or path.name == "postgres":
            yield path
        elif path.name in {"logs", "valkey"}:
            yield from (path, *path.rglob("*"))


def _close(path: Path) -> None:
    """Remove others' access to a file or a folder. Raises StartError."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return
    try:
        path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
    except PermissionError:
        raise StartError(f"{path} is open to others, and only its owner can close it") from None
