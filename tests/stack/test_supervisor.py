"""The supervisor over real processes: order, crashes, the end, and what a killed one leaves behind."""

import contextlib
import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.child_process import Child, StartError, is_running, wait_until, write_private
from deploy.supervisor import Supervisor, stop_left_over
from tests.support.paths import ROOT

#: A child that writes its name into the file `order` when it is told to end.
POLITE = """
import signal, sys, time
from pathlib import Path
def end(*_):
    with Path("order").open("a") as order:
        order.write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
Path(sys.argv[1] + ".ready").touch()
while True:
    time.sleep(60)
"""

#: A child that does not listen, with a child of its own that does not either.
STUBBORN = """
import signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = subprocess.Popen(["sleep", "60"])
Path(sys.argv[1] + ".pid").write_text(str(below.pid))
Path(sys.argv[1] + ".ready").touch()
time.sleep(60)
"""

#: A supervisor with the children that its arguments name: FOLDER STOP_TIMEOUT NAME=CODE...
SUPERVISOR = """
import sys
from functools import partial
from pathlib import Path
from deploy.child_process import Child
from deploy.supervisor import Stopped, Supervisor, stop_left_over
folder, stop_timeout = Path(sys.argv[1]), float(sys.argv[2])
say = partial(print, flush=True)
stop_left_over(folder / "children.json", say)
children = [
    Child(name, [sys.executable, "-c", code, name], log=folder / "logs" / f"{name}.log", cwd=folder,
          ready=(folder / f"{name}.ready").exists, stop_timeout=stop_timeout)
    for name, _, code in (argument.partition("=") for argument in sys.argv[3:])
]
with Supervisor(folder / "children.json", say, pause=0.1) as supervisor:
    try:
        for child in children:
            supervisor.start(child)
        say("up")
        supervisor.watch()
    except Stopped:
        say("stopping")
say("stopped")
"""

Supervise = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Starts a supervisor in a process of its own, and waits until it is up."""
    started: list[subprocess.Popen[str]] = []

    def start(*children: tuple[str, str], stop_timeout: float = 10) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, tmp_path, str(stop_timeout), *("=".join(child) for child in children)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    stop_left_over(tmp_path / "children.json", lambda _: None)


def read_until(process: subprocess.Popen[str], line: str) -> list[str]:
    """Return what the supervisor says, up to a line."""
    assert process.stdout is not None
    lines: list[str] = []
    for each in process.stdout:
        lines.append(each.rstrip("\n"))
        if lines[-1] == line:
            return lines
    pytest.fail(f"{line!r} was never said, but {lines}")


def recorded(folder: Path) -> dict[str, int]:
    """The children on record: name and number."""
    return {record["name"]: record["pid"] for record in json.loads((folder / "children.json").read_text())}


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    return not psutil.pid_exists(pid) or not is_running(psutil.Process(pid))


def child(folder: Path, name: str, code: str, **options: object) -> Child:
    """A child that runs Python."""
    return Child(name, [sys.executable, "-c", code], log=folder / "logs" / f"{name}.log", **options)  # type: ignore[arg-type]  # options as the test gives them


def test_sigterm_stops_all_in_reverse(supervise: Supervise, tmp_path: Path) -> None:
    process = supervise(("first", POLITE), ("second", POLITE), ("third", POLITE))
    lines = read_until(process, "up")
    assert [re.sub(r"[\d.]+", "N", line) for line in lines] == ["first … N s", "second … N s", "third … N s", "up"]
    pids = recorded(tmp_path)
    process.terminate()
    rest, _ = process.communicate(timeout=10)
    assert (rest, process.returncode) == ("stopping\nstopped\n", 0)
    assert (tmp_path / "order").read_text().split() == ["third", "second", "first"]
    assert all(gone(pid) for pid in pids.values())
    assert recorded(tmp_path) == {}


def test_children_lead_sessions_of_their_own(supervise: Supervise, tmp_path: Path) -> None:
    process = supervise(("only", POLITE))
    read_until(process, "up")
    pid = recorded(tmp_path)["only"]
    assert os.getsid(pid) == os.getpgid(pid) == pid


def test_a_child_that_does_not_stop_is_killed_with_what_it_started(supervise: Supervise, tmp_path: Path) -> None:
    process = supervise(("deaf", STUBBORN), stop_timeout=0.3)
    read_until(process, "up")
    pid, below = recorded(tmp_path)["deaf"], int((tmp_path / "deaf.pid").read_text())
    process.terminate()
    rest, _ = process.communicate(timeout=10)
    assert rest == "stopping\ndeaf has not stopped after 0 s and is killed\nstopped\n"
    assert gone(pid)
    assert wait_until(lambda: gone(below), 5)


def test_a_second_ctrl_c_kills_at_once(supervise: Supervise, tmp_path: Path) -> None:
    process = supervise(("deaf", STUBBORN), stop_timeout=60)
    read_until(process, "up")
    pid = recorded(tmp_path)["deaf"]
    process.send_signal(signal.SIGINT)
    read_until(process, "stopping")
    assert not gone(pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert gone(pid)


def test_a_signal_during_the_start_stops_what_was_started(supervise: Supervise, tmp_path: Path) -> None:
    process = supervise(("first", POLITE), ("never-ready", "import time; time.sleep(60)"))
    assert wait_until(lambda: (tmp_path / "children.json").exists() and len(recorded(tmp_path)) == 2, 10)
    pids = recorded(tmp_path)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert all(gone(pid) for pid in pids.values())


def test_what_a_killed_supervisor_left_is_stopped_by_the_next(supervise: Supervise, tmp_path: Path) -> None:
    killed = supervise(("polite", POLITE), ("deaf", STUBBORN))
    read_until(killed, "up")
    left = recorded(tmp_path)
    below = int((tmp_path / "deaf.pid").read_text())
    killed.kill()
    killed.wait()
    assert not any(gone(pid) for pid in (*left.values(), below))
    os.kill(left["deaf"], signal.SIGKILL)  # its own child is left, in its session

    (tmp_path / "polite.ready").unlink()
    following = supervise(("polite", POLITE))
    lines = read_until(following, "up")
    assert f"polite (pid {left['polite']}) was left by a run that was killed: it is stopped" in lines
    assert all(gone(pid) for pid in (*left.values(), below))
    assert not gone(recorded(tmp_path)["polite"])


@pytest.mark.parametrize("started", [0.0, time.time() + 3600], ids=["long-ago", "later"])
def test_a_number_that_is_anothers_by_now_is_left_alone(tmp_path: Path, started: float) -> None:
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        record = {"name": "old", "pid": bystander.pid, "started": started, "argv": ["sleep", "60"], "stop_signal": 15}
        (tmp_path / "children.json").write_text(json.dumps([record]))
        said: list[str] = []
        stop_left_over(tmp_path / "children.json", said.append)
        assert said == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_those_to_keep_are_kept(supervise: Supervise, tmp_path: Path) -> None:
    killed = supervise(("polite", POLITE))
    read_until(killed, "up")
    killed.kill()
    killed.wait()
    stop_left_over(tmp_path / "children.json", pytest.fail, keep=frozenset({"polite"}))
    assert not gone(recorded(tmp_path)["polite"])


def test_damaged_records_stop_nothing(tmp_path: Path) -> None:
    for text in ("", "{", "{}", "[1]", '[{"pid": 1}]'):
        (tmp_path / "children.json").write_text(text)
        stop_left_over(tmp_path / "children.json", pytest.fail)


def _crashing(folder: Path, end: str) -> Child:
    """A child that lives until there is a file `go`: one that ends while it starts is another matter."""
    code = f"import os, time\nwhile not os.path.exists({str(folder / 'go')!r}):\n    time.sleep(0.01)\n{end}"
    return child(folder, "crashing", code)


def test_a_crashing_child_comes_back_after_growing_pauses(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "children.json", said.append, pause=0.05, longest_pause=0.2)
    crashing = _crashing(tmp_path, "print('here', flush=True); raise SystemExit(3)")
    supervisor.start(crashing)
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 20
    while len(said) < 5 and time.monotonic() < deadline:
        supervisor.watch(0.05)
    supervisor.stop()
    ended = "crashing ended with code 3; again in"
    assert said == ["crashing started", *(f"{ended} {s} s; its log: {crashing.log}" for s in (0.05, 0.1, 0.2, 0.2))]
    assert crashing.log.read_text().count("here") >= 4


def test_a_healthy_while_makes_pauses_short_again(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "children.json", said.append, pause=0.05, healthy_after=0.0)
    crashing = _crashing(tmp_path, "import signal; os.kill(os.getpid(), signal.SIGKILL)")
    supervisor.start(crashing)
    (tmp_path / "go").touch()
    while len(said) < 4:
        supervisor.watch(0.05)
    supervisor.stop()
    assert set(said[1:]) == {f"crashing was ended by SIGKILL; again in 0.05 s; its log: {crashing.log}"}


def test_a_child_that_hangs_is_started_again(tmp_path: Path) -> None:
    sign, pids = tmp_path / "sign", tmp_path / "pids"
    code = f"""
import os, time
from pathlib import Path
with open({str(pids)!r}, "a") as file:
    file.write(f"{{os.getpid()}} ")
while True:
    Path({str(sign)!r}).touch()
    time.sleep(0.02)
"""
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "children.json", said.append, pause=0.05, silent_after=1.0)
    hanging = child(tmp_path, "hanging", code, sign=sign)
    # Waits for something before its first sign, for longer than it may be silent afterwards.
    waiting = child(tmp_path, "waiting", "import time; time.sleep(60)", sign=tmp_path / "never")
    supervisor.start(hanging, waiting)
    assert wait_until(sign.exists, 10)
    supervisor.watch(0.3)
    assert hanging.pid
    os.kill(hanging.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while len(said) < 4 and time.monotonic() < deadline:
        supervisor.watch(0.1)
    supervisor.watch(1.5)  # its successor signs, and is left alone
    assert said[2:] == [
        "hanging has given no sign of life for 1 s and is killed",
        f"hanging was ended by SIGKILL; again in 0.05 s; its log: {hanging.log}",
    ]
    assert pids.read_text().split()[1:] == [str(hanging.pid)]
    assert waiting.alive()
    supervisor.stop()


def test_what_a_crashed_child_started_does_not_outlive_it(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "children.json", lambda _: None, pause=60)
    code = f"import os; os.chdir({str(tmp_path)!r})" + STUBBORN.replace("time.sleep(60)", "sys.exit(1)")
    supervisor.start(child(tmp_path, "crashing", code.replace("sys.argv[1]", "'below'")))
    assert wait_until((tmp_path / "below.ready").exists, 10)
    supervisor.watch(0.5)
    assert wait_until(lambda: gone(int((tmp_path / "below.pid").read_text())), 5)
    supervisor.stop()


def test_a_child_that_fails_at_its_start_is_named_with_its_output(tmp_path: Path) -> None:
    said: list[str] = []
    first = child(tmp_path, "first", "import time; time.sleep(60)")
    failing = child(tmp_path, "failing", "raise SystemExit('no such thing')", ready=lambda: False)
    with Supervisor(tmp_path / "children.json", said.append) as supervisor:
        supervisor.start(first)
        with pytest.raises(StartError) as error:
            supervisor.start(failing)
        assert first.alive()
    assert str(error.value) == f"failing ended with code 1; its log: {failing.log}\nno such thing"
    assert not first.alive()


def test_a_child_on_its_own_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    slow = child(tmp_path, "slow", "import time; time.sleep(60)", ready=lambda: False)
    with pytest.raises(StartError, match=r"^slow was not ready within 0\.2 s; its log: "):
        slow.start(timeout=0.2)
    assert not slow.alive()


def test_a_slow_start_is_told_of_and_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "children.json", said.append, pause=0.05)
    quick = child(tmp_path, "quick", "import time; time.sleep(60)")
    supervisor.start(quick)

    def reminded() -> bool:
        """Ready once it was told of twice, and once what was ready before runs again after a crash meanwhile."""
        if quick.pid == first and sum("slow is not ready" in line for line in said):
            quick.kill()
        return sum("slow is not ready" in line for line in said) > 1 and quick.pid != first and quick.alive()

    first = quick.pid or 0
    slow = child(tmp_path, "slow", "import time; time.sleep(60)", ready=reminded)
    supervisor.start(slow, remind=0.2)
    assert slow.alive()
    assert f"slow is not ready after 0 s, and is waited for; its log: {slow.log}" in said
    assert f"quick was ended by SIGKILL; again in 0.05 s; its log: {quick.log}" in said
    assert re.fullmatch(r"slow … [\d.]+ s", said[-1])
    supervisor.stop()


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Nothing can be written to files, as on a full disk: by a limit of this process, to which root is held as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    records, more = tmp_path / "children.json", tmp_path / "stack.json"
    supervisor = Supervisor(records, said.append, pause=0.05)
    crashing = child(tmp_path, "crashing", "import time; time.sleep(60)")
    with full_disk():
        supervisor.start(crashing)
        supervisor.write(more, "{}")
        for _ in range(2):
            first = crashing.pid
            crashing.kill()
            deadline = time.monotonic() + 10
            while (crashing.pid == first or not crashing.alive()) and time.monotonic() < deadline:
                supervisor.watch(0.05)
    assert crashing.alive()
    assert [file.name for file in tmp_path.iterdir()] == ["logs"]
    reason = os.strerror(errno.EFBIG)
    # Once of each file, however often it is tried.
    assert [line for line in said if "written" in line] == [
        f"{records} cannot be written ({reason}), which is tried again",
        f"{more} cannot be written ({reason}), which is tried again",
    ]
    deadline = time.monotonic() + 10
    while not more.exists() and time.monotonic() < deadline:
        supervisor.watch(0.1)
    assert recorded(tmp_path) == {"crashing": crashing.pid}
    assert more.read_text() == "{}"
    supervisor.stop()
    assert recorded(tmp_path) == {}


def test_a_log_that_cannot_be_opened_stops_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()  # which nobody can write, root neither
    alone = Child("alone", [sys.executable, "-c", "print('said')"], log=log)
    alone.launch()
    assert wait_until(lambda: not alone.alive(), 10)
    assert (alone.exit_code, alone.output()) == (0, "")


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    write_private(file, "old")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write_private(file, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert file.read_text() == "old"


def test_a_command_runs_to_its_end(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "children.json", said.append)
    supervisor.run(child(tmp_path, "migrate", "print('done')"))
    assert re.fullmatch(r"migrate … [\d.]+ s", said[0])
    with pytest.raises(StartError, match=r"(?s)^migrate ended with code 1; .*\nno database$"):
        supervisor.run(child(tmp_path, "migrate", "raise SystemExit('no database')"))
    assert recorded(tmp_path) == {}


def test_a_missing_program_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^lost cannot be started: .*No such file"):
        Child("lost", [tmp_path / "lost"], log=tmp_path / "lost.log").start()


def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    speaking = child(tmp_path, "speaking", "print('new')")
    speaking.log.parent.mkdir()
    speaking.log.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    speaking.launch()
    assert wait_until(lambda: not speaking.alive(), 10)
    assert speaking.log.read_text() == "new\n"
    assert speaking.log.with_name("speaking.log.1").stat().st_size > 10 * 1024 * 1024
