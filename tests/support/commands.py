"""manage.py, run to its end."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.fork_server import FORK_SERVER
from tests.support.paths import ROOT


class Ended(NamedTuple):
    """The output of a command, and its exit code."""

    output: str
    code: int


def manage(*arguments: str, environment: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run manage.py to its end."""
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    environment = {**environment, "COLUMNS": "200"}
    if not FORK_SERVER.takes(command, environment):
        return subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        forked = FORK_SERVER.fork(arguments, environment=environment, cwd=cwd, out=out.fileno(), err=err.fileno())
        code = forked.wait(60)
        written = []
        for stream in (out, err):
            stream.seek(0)
            written.append(stream.read().decode())
    return subprocess.CompletedProcess(command, code, *written)


def succeed(*arguments: str, environment: dict[str, str]) -> str:
    done = manage(*arguments, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


#: Command lines one after the other, in one process: a start takes longer than most of them do. After each, a line with
#: its exit code.
IN_TURN: Final = """
import json, sys
from deploy.commands.cli import cli
for line in json.loads(sys.argv[1]):
    code = None
    try:
        cli(line, prog_name="manage.py")
    except SystemExit as ended:
        code = ended.code
    for stream in (sys.stdout,) if sys.stdout.isatty() else (sys.stdout, sys.stderr):
        print(f"\\n<< {code} >>", file=stream, flush=True)
"""


def in_turn(commands: Sequence[Sequence[str]], environment: Mapping[str, str], cwd: Path = ROOT) -> list[Ended]:
    """Run commands in one process; returns what each wrote and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)],
        env=dict(environment),
        cwd=cwd,
        capture_output=True,
        timeout=60,
        check=True,
    )
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    out, err = (parted(commands, stream.decode(encoding)) for stream in (done.stdout, done.stderr))
    return [Ended(shown.output + said.output, shown.code) for shown, said in zip(out, err, strict=True)]


def parted(commands: Sequence[Sequence[str]], seen: str) -> list[Ended]:
    """Part what IN_TURN wrote to one stream by its commands."""
    parts = re.split(r"\r?\n<< (\w+) >>\r?\n", seen)
    assert len(parts) == 2 * len(commands) + 1, seen
    assert parts[-1] == ""
    return [Ended(output, int(code)) for output, code in zip(parts[:-1:2], parts[1::2], strict=True)]
