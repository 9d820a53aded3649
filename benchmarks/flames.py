"""A flame graph of each process under load: python -m benchmarks.flames [--rate 100] [--seconds 20] [--folder DIR].

Shows by function where a process' time goes, as SVG. It needs py-spy (`pip install py-spy`) and the right to trace,
which root has. Postgres has no Python to sample: docs/performance.md has its statements.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.client import post
from benchmarks.flame_plot import draw, tree_of
from benchmarks.stack import bench_folder, granian, pids_of, stack

_CONNECTIONS: Final = 64
#: Seconds of load before the first sample: caches are filled and connections open.
_WARM: Final = 5.0
#: Samples a second.
_OFTEN: Final = 200
_PROCESSES: Final = ("api", "worker-fresh", "worker-clock")


def record(rate: float, seconds: float, folder: Path) -> Iterator[Path]:
    """Yield the files of one run, each the flame graph of a process. `rate`: events a second, or 0 without a limit."""
    kind = f"at-{rate:g}" if rate else "full-load"
    with (
        bench_folder() as data,
        granian(data, "rsgi", "benchmarks.receiver:app") as receiver,
        stack(data) as url,
    ):
        pids = pids_of(data)
        load = threading.Thread(
            target=post,
            args=(f"{url}/api/v1/events", f"{receiver}/hook"),
            kwargs={
                "seconds": _WARM + len(_PROCESSES) * (seconds + 2),
                "connections": _CONNECTIONS,
                "rate": rate,
            },
        )
        load.start()
        load.join(_WARM)
        for name in _PROCESSES:
            file = folder / f"{kind}-{name}.svg"
            _sample(pids[name], seconds, file)
            yield file
        load.join()


def _sample(pid: int, seconds: float, file: Path) -> None:
    command = ["py-spy", "record", "--pid", str(pid), "--duration", f"{seconds:g}", "--rate", str(_OFTEN)]
    with tempfile.NamedTemporaryFile() as raw:
        options = ["--function", "--gil", "--format", "raw", "--output", raw.name]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"py-spy cannot sample process {pid}: {done.stderr.strip()}")
        root = tree_of(Path(raw.name).read_text().splitlines())
    file.write_text(draw(root, f"{file.stem}: {root.samples} samples of Python at work"))


def main() -> None:
    """Record and say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=0, help="events a second; as fast as they are taken without it")
    parser.add_argument("--seconds", type=float, default=20, help="for which each process is sampled")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    asked = parser.parse_args()
    if shutil.which("py-spy") is None:
        sys.exit("py-spy is not on the PATH: pip install py-spy")
    asked.folder.mkdir(parents=True, exist_ok=True)
    for file in record(asked.rate, asked.seconds, asked.folder):
        print(file, flush=True)


if __name__ == "__main__":
    main()
