"""Under root, run Postgres as somebody else: it refuses to be root.

That somebody must be able to reach the data and the program. Folders above the data are opened for passage,
one by one and no further than needed; a program out of reach (a virtual environment below /root) is copied.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypedDict

from deploy.child import StartError

#: The first of these that exists is taken. None owns a file that matters, as a user of its own name would.
_NAMES: Final = ("nobody", "postgres", "daemon")


class Credentials(TypedDict, total=False):
    """What subprocess takes to run a command as another user."""

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
        """The owner of the data where that is not root, else somebody without privileges. Raises StartError."""
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
        """Keywords for subprocess."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        """Make this user the owner of files."""
        for path in paths:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def grant_passage(self, path: Path, say: Callable[[str], None]) -> None:
        """Let this user through the folders above a path: x, and nothing else, on those that bar the way."""
        for folder in reversed(path.parents):
            found = folder.stat()
            if found.st_uid == self.uid:
                passage = stat.S_IXUSR
            else:
                passage = stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH
            if not found.st_mode & passage:
                folder.chmod(stat.S_IMODE(found.st_mode) | passage)
                say(f"{folder} may now be passed through (x for others): Postgres runs as {self.name}, not as root")

    def can_run(self, program: Path) -> bool:
        """Whether this user can reach and execute a program."""
        try:
            command = [str(program), "--version"]
            return subprocess.run(command, capture_output=True, check=False, **self.credentials).returncode == 0  # noqa: S603
        except PermissionError:
            return False


def copy_installation(package: Path, target: Path) -> None:
    """Copy what runs a server: two programs and their libraries, laid out as they look for one another."""

    def unneeded(folder: str, names: Sequence[str]) -> list[str]:
        if Path(folder).name == "bin":
            return [name for name in names if name not in {"postgres", "initdb"}]
        return [name for name in names if name in {"include", "pgxs", "pkgconfig", "doc"} or name.endswith(".a")]

    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(package / "pginstall", draft / package.name / "pginstall", ignore=unneeded)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name)
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755)
    draft.rename(target)
