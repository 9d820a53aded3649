"""Free ports: nobody is given one that another was given, though nothing listens on it yet."""

import subprocess
import sys

import pytest

from deploy import ports
from deploy.child_process import StartError
from tests.support.paths import ROOT

_DRAW = """
from deploy import ports
ports._PORTS = range(*{bounds})
try:
    print(ports.free_port())
except ports.StartError:
    print("none")
"""


def test_no_two_processes_are_given_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two in a row, below those that other processes of these tests draw from.
    first = next(port for port in range(12_000, 20_000, 2) if ports.is_free(port) and ports.is_free(port + 1))
    monkeypatch.setattr(ports, "_PORTS", range(first, first + 2))
    own = ports.free_port()
    draw = [sys.executable, "-c", _DRAW.format(bounds=(first, first + 2))]
    drawn = {subprocess.run(draw, cwd=ROOT, check=True, capture_output=True, text=True).stdout for _ in range(5)}
    assert drawn == {f"{2 * first + 1 - own}\n"}
    ports.free_port()
    with pytest.raises(StartError, match="no free port found"):
        ports.free_port()
