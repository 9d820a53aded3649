"""Limits of the CPU that single processes get, by Linux' control groups, version 1 or 2."""

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from deploy.child_process import wait_until

_V1: Final = Path("/sys/fs/cgroup/cpu")
_V2: Final = Path("/sys/fs/cgroup")
#: Microseconds of a period. The usual 100,000 stop a process for so long that others wait for its locks.
_PERIOD: Final = 20_000
#: Seconds in which the kernel lets go of a group that was emptied.
_PATIENCE: Final = 5.0


class CpuLimits:
    """Gives processes a part of one CPU each; on leaving the context all of them have the whole machine again."""

    def __init__(self, cpus: float) -> None:
        """`cpus`: CPUs of each limited process. Ends the program where this machine has no such limits for it."""
        self._quota = int(cpus * _PERIOD)
        self._cpus = cpus
        self._root = groups_folder()
        self._groups: list[Path] = []
        self._pids: dict[str, int] = {}
        self._began: dict[str, tuple[float, float]] = {}

    def limit(self, name: str, pid: int) -> None:
        """Limit a process, with all of its threads and descendants."""
        group = self._root / f"notifier-bench-{os.getpid()}-{len(self._groups)}"
        group.mkdir()
        self._groups.append(group)
        if self._root == _V1:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(self._quota))
        else:
            (group / "cpu.max").write_text(f"{self._quota} {_PERIOD}")
        for each in (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))):
            (group / "cgroup.procs").write_text(str(each))
        self._pids[name] = pid

    def begin(self) -> None:
        """Begin to count what is used."""
        self._began = {name: (time.monotonic(), _used(pid)) for name, pid in self._pids.items()}

    def used(self) -> dict[str, float]:
        """Return which part of its limit each process has used since then. Raises psutil.Error where one is gone."""
        return {
            name: (_used(self._pids[name]) - before) / (time.monotonic() - since) / self._cpus
            for name, (since, before) in self._began.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in self._groups:
            wait_until(partial(self._is_removed, group), _PATIENCE)

    def _is_removed(self, group: Path) -> bool:
        """Let a group's processes go, and remove it if that is possible already."""
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (self._root / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            group.rmdir()
            return True
        return False


def _used(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


def groups_folder() -> Path:
    """Find the folder in which groups are made."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            if (_V1 / "cgroup.procs").exists():
                if os.access(_V1, os.W_OK):
                    return _V1
            elif "cpu" in (_V2 / "cgroup.controllers").read_text().split():
                (_V2 / "cgroup.subtree_control").write_text("+cpu")
                return _V2
    raise SystemExit(
        f"CPU limits need root and the control group 'cpu': {_V1} (version 1) or {_V2} (version 2), mounted for writing"
    )
