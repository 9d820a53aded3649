"""Running Postgres as another user under root, since it refuses to run as root.

That somebody gets the folder of the cluster and nothing above it: root enters it on the way to the program, and the
program is told that its data are where it stands. So no folder on the way is opened to anybody. A program out of reach
(a virtual environment below /root) is copied to where everybody may read; it is no secret.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypedDict

from deploy.child_process import StartError

#: The first of these that exists is taken. None owns a file that matters, as a user of its own name would.
_NAMES: Final = ("nobody", "postgres", "daemon")
#: For data of programs that can be made anew; of root, and readable for everybody.
_CACHE: Final = Path("/var/cache")
#: The folder in which a process stands, by no path from the root: no folder above it is asked whether it may be passed.
HERE: Final = Path("/proc/self/cwd")


class Credentials(TypedDict, total=False):
    """Arguments of subprocess that run a command as another user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class User:
    """A user to run as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def for_data(cls, data: Path) -> Self:
        """Return the owner of the data unless it is root, else an unprivileged user. Raises StartError."""
        if not HERE.exists():
            raise StartError("Postgres refuses to run as root: start as an ordinary user, or set DATABASE_URL")
        with contextlib.suppress(FileNotFoundError, KeyError):
            if owner := data.stat().st_uid:
                return cls._of(pwd.getpwuid(owner))
        for name in _NAMES:
            with contextlib.suppress(KeyError):
                return cls._of(pwd.getpwnam(name))
        raise StartError(
            f"Postgres refuses to run as root, and there is no user {' or '.join(_NAMES)} to run it as: "
            "start as an ordinary user, or set DATABASE_URL"
        )

    @classmethod
    def _of(cls, entry: pwd.struct_passwd) -> Self:
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @property
    def credentials(self) -> Credentials:
        """Return keyword arguments for subprocess."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        """Make this user the owner of files."""
        for path in paths:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_run(self, program: Path) -> bool:
        """Whether this user can reach and execute a program."""
        try:
            command = [str(program), "--version"]
            return subprocess.run(command, capture_output=True, check=False, **self.credentials).returncode == 0  # noqa: S603 -- our own command, no shell
        except PermissionError:
            return False


def copies_of(package: Path, name: str) -> Iterator[Path]:
    """Copies of what runs a server, laid out as its parts look for one another, in places that anybody can read.

    `name`: that of the copy, which is taken as it is where it is there. It is root's, so that nobody else changes it.
    """
    for place in (_CACHE, Path(tempfile.gettempdir())):
        folder = place / "notifier"
        copy = folder / name
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not _is_roots(folder):
                continue
            folder.chmod(0o755)  # whatever the umask is
            if not copy.exists():
                _copy(package, copy)
            if _is_roots(copy):
                yield copy / package.name / "pginstall"


def _is_roots(folder: Path) -> bool:
    """Tell whether root alone can change what is in a folder."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _copy(package: Path, target: Path) -> None:
    """Copy two programs and their libraries, in one step as others see it."""

    def unneeded(folder: str, names: Sequence[str]) -> list[str]:
        if Path(folder).name == "bin":
            return [name for name in names if name not in {"postgres", "initdb"}]
        return [name for name in names if name in {"include", "pgxs", "pkgconfig", "doc"} or name.endswith(".a")]

    with tempfile.TemporaryDirectory(dir=target.parent) as draft:
        made = Path(draft) / target.name
        shutil.copytree(package / "pginstall", made / package.name / "pginstall", ignore=unneeded)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, made / libraries.name)
        for path in (made, *made.rglob("*")):
            path.chmod(0o755)
        with contextlib.suppress(FileExistsError):  # another run was quicker
            made.rename(target)
