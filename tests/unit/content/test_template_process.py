"""The process that renders templates: it may be killed, stopped or closed at any moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifier.content import template_process as module
from notifier.content.template_process import Rendered, TemplateFailed, TemplateProcess
from tests.support.paths import ROOT
from tests.support.rendering import new_process, pid_of, rendered, source

#: Comparing these two takes 2**60 steps of C, in which Python looks at no signal: only a kill ends it.
UNSTOPPABLE = (
    "{% set ns = namespace(a=[], b=[]) %}"
    "{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
    "{{ ns.a == ns.b }}"
)


#: As endless as `loops` says.
ENDLESS = "{% for i in range(loops) %}\n{% for j in range(loops) %}{% endfor %}{% endfor %}done"


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    yield from new_process()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ── Its process ──


def test_a_job_that_kills_the_child_costs_itself_alone(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.5)
    good, bad = source("{{ n }}"), source(UNSTOPPABLE)
    jobs = [(bad if n == 70 else good, {"n": n}) for n in range(140)]
    answers = process.render(jobs)
    assert str(answers.pop(70)) == "welcome v3: took over 0.2 s"
    assert answers == [Rendered(None, str(n), None) for n in range(140) if n != 70]


def test_a_child_that_is_killed_at_a_job_costs_that_job_alone(process: TemplateProcess) -> None:
    """As by the kernel, where memory is short."""
    good, slow = source("{{ n }}"), source(UNSTOPPABLE)
    answers: list[Rendered | TemplateFailed] = []
    jobs = [(good, {"n": 0}), (slow, {}), (good, {"n": 2})]
    thread = threading.Thread(target=lambda: answers.extend(process.render(jobs)))
    process.render([(good, {"n": 0})])
    child = pid_of(process)
    before = _cpu_ticks(child)
    thread.start()
    until(lambda: _cpu_ticks(child) > before + 5)
    os.kill(child, signal.SIGKILL)
    thread.join(60)
    assert answers[0] == Rendered(None, "0", None)
    assert str(answers[1]) == "welcome v3: its renderer ended (-9)"
    assert answers[2] == Rendered(None, "2", None)


def _cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_child_that_is_killed_between_two_calls_is_replaced(process: TemplateProcess) -> None:
    text = source("{{ n }}")
    for n in range(3):
        assert process.render([(text, {"n": n})]) == [Rendered(None, str(n), None)]
        child = pid_of(process)
        os.kill(child, signal.SIGKILL)  # it may look alive for a while yet
    until(lambda: not is_running(child))
    assert process.render([(text, {"n": 9})]) == [Rendered(None, "9", None)]
    assert pid_of(process) != child


def test_a_stopped_job_leaves_its_neighbours_alone(process: TemplateProcess) -> None:
    good, hungry, endless = source("{{ n }}"), source("{{ 'x'|center(n * 10**9) }}"), source(ENDLESS)
    process.render([(good, {"n": 0})])
    child = pid_of(process)
    jobs = [(good, {"n": 1}), (endless, {"loops": 10**5}), (hungry, {"n": 1}), (good, {"n": 2}), (hungry, {"n": 0})]
    assert [str(one) if isinstance(one, TemplateFailed) else one.text for one in process.render(jobs)] == [
        "1",
        "welcome v3, text, line 2: took over 0.2 s",
        "welcome v3, text, line 1: needed too much memory",
        "2",
        "x",
    ]
    assert pid_of(process) != child  # where the time was up, something of Jinja's may be half done


def test_a_template_that_is_stopped_again_and_again_gets_less_time(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless, other = source(ENDLESS), source(ENDLESS)
    jobs = [(endless, {"loops": loops}) for loops in (10**5, 1, 10**5, 10**5, 10**5, 1)]
    made = Rendered(None, "\ndone", None)
    assert [one if isinstance(one, Rendered) else str(one).partition(" over ")[2] for one in process.render(jobs)] == [
        *("0.2 s", made, "0.2 s", "0.2 s", "0.02 s", made),
    ]
    assert str(process.render([(other, {"loops": 10**5})])[0]).endswith("over 0.2 s")
    monkeypatch.setattr(module, "_STOPS_SECONDS", 0.0)  # the minute is over
    assert str(process.render([(endless, {"loops": 10**5})])[0]).endswith("over 0.2 s")


def test_threads_share_the_child(process: TemplateProcess) -> None:
    answers: dict[int, list[Rendered | TemplateFailed]] = {}

    def run(number: int) -> None:
        mine = source(f"{number} {{{{ n }}}}")
        answers[number] = [one for _ in range(3) for one in process.render([(mine, {"n": n}) for n in range(120)])]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: [Rendered(None, f"{number} {n}", None) for n in range(120)] * 3 for number in range(8)}


@pytest.mark.parametrize(("text", "rows", "turns"), [(ENDLESS, 12, 3), ("{{ loops }}", 20_000, 10)])
def test_a_big_batch_lets_others_between(process: TemplateProcess, text: str, rows: int, turns: int) -> None:
    good, of_many = source("{{ n }}"), source(text)
    many: list[Any] = []
    thread = threading.Thread(target=lambda: many.extend(process.render([(of_many, {"loops": 10**5})] * rows)))
    thread.start()
    until(process._lock.locked)
    for n in range(turns):
        assert process.render([(good, {"n": n})]) == [Rendered(None, str(n), None)]
    assert thread.is_alive()
    thread.join(60)
    assert len(many) == rows


def test_an_interrupted_caller_leaves_no_answers_behind(process: TemplateProcess) -> None:
    process.render([(source("a"), {})])
    child = pid_of(process)
    before = _cpu_ticks(child)

    def interrupt() -> None:
        until(lambda: not is_running(child) or _cpu_ticks(child) > before + 3)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        process.render([(source(ENDLESS), {"loops": 10**5})] * 20)
    signal.signal(signal.SIGUSR1, previous)
    thread.join()
    assert rendered(process, "{{ n }}", n=1) == "1"


def test_the_child_has_no_secrets_and_one_session_of_its_own(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@db/notifier")
    monkeypatch.chdir(tmp_path)  # it finds its module from anywhere, and nothing that lies there instead
    (tmp_path / "jinja2.py").write_text("raise SystemExit")
    assert rendered(process, "{{ n }}", n=1) == "1"
    child = Path(f"/proc/{pid_of(process)}")
    names = {line.partition(b"=")[0] for line in (child / "environ").read_bytes().split(b"\0") if line}
    assert names <= {b"PATH", b"PYTHONPATH", b"LD_LIBRARY_PATH", b"PYTHONHOME"}
    assert os.getsid(pid_of(process)) == pid_of(process)
    assert str((child / "fd/2").readlink()) == os.devnull
    limits = (child / "limits").read_text().splitlines()
    assert next(line.split()[4:6] for line in limits if line.startswith("Max core")) == ["0", "0"]


PARENT = """
import sys, uuid
from notifier.content.template_process import Source, TemplateProcess
process = TemplateProcess()
made = process.render([(Source(uuid.uuid4(), "a", 1, None, "{{ n }}", None), {"n": 1})])
print(process._child.process.pid, made[0].text, flush=True)
if sys.argv[1] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("ending", ["wait", "exit"])
def test_the_child_ends_with_its_parent(ending: str) -> None:
    root = str(ROOT)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={**os.environ, "PYTHONPATH": root},
    )
    with parent:
        assert parent.stdout is not None
        pid, text = parent.stdout.readline().split()
        assert text == b"1"
        if ending == "wait":
            assert is_running(int(pid))
            parent.kill()
    until(lambda: not is_running(int(pid)))


FORKING = """
import os, sys, uuid
from notifier.content.template_process import Rendered, Source, TemplateProcess
process, template = TemplateProcess(), Source(uuid.uuid4(), "a", 1, None, "{{ n }}", None)
process.render([(template, {"n": 1})])
forked = os.fork()
mine = [Rendered(None, str(n), None) for n in range(200)] if forked else [Rendered(None, "forked", None)] * 200
same = all(process.render([(template, {"n": one.text}) for one in mine]) == mine for _ in range(20))
if forked:
    same &= os.waitpid(forked, 0)[1] == 0
sys.exit(not same)
"""


def test_a_forked_process_has_a_child_of_its_own() -> None:
    root = str(ROOT)
    subprocess.run([sys.executable, "-c", FORKING], env={**os.environ, "PYTHONPATH": root}, timeout=60, check=True)


def test_it_closes_and_starts_again(process: TemplateProcess) -> None:
    process.close()
    assert rendered(process, "{{ n }}", n=1) == "1"
    child = pid_of(process)
    process.close()
    assert not is_running(child)
    assert rendered(process, "{{ n }}", n=2) == "2"


def test_a_child_that_cannot_start_is_nobodys_fault(process: TemplateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConnectionError, match="does not start"):
        process.render([(source("a"), {})])
    monkeypatch.undo()
    assert rendered(process, "a") == "a"
