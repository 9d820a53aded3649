"""Template process: render templates in a child process with limits on time, memory and output.

Templates are untrusted code. A thread cannot stop a template that runs for ever, and a memory limit applies to a whole
process. So a child renders (content.template_worker), and damage that a template does to it costs only that template's
job.

    CPU time     a signal in the child; a C call that it cannot interrupt ends with the child, killed by the clock
    memory       the child's address space, set for each job
    output       counted while it is generated
    the rest     Jinja's sandbox: no attributes beyond data, no changes to it, no other templates
"""

import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from signal import SIGALRM
from socket import socketpair
from typing import Any, Final
from uuid import UUID

import orjson
from jinja2 import TemplateSyntaxError, nodes

from notifier.content.template_worker import PARTS, Environment
from notifier.vocabulary.errors import NotifierError

#: Jobs that a thread has rendered before the next has its turn.
_TURN: Final = 50
#: Templates that a child keeps compiled.
_KNOWN: Final = 1_000
#: By the clock a job has three times its CPU time and this, in seconds: only a C call that lasts needs it.
_GRACE: Final = 3.0
#: For a child to start and take a chunk, in seconds.
_START_SECONDS: Final = 30.0
_STARTS: Final = 3
#: A template that was stopped this often in so many seconds gets this part of the time.
_STOPS: Final = 3
_STOPS_SECONDS: Final = 60.0
_PENALTY: Final = 0.1


@dataclass(frozen=True, slots=True)
class Source:
    """One version of a template, immutable: it is compiled once per child."""

    id: UUID
    name: str
    version: int
    subject: str | None
    text: str | None
    html: str | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered template: a part that it lacks is None. The subject is one line."""

    subject: str | None
    text: str | None
    html: str | None


class TemplateFailed(NotifierError):
    """A template could not be rendered with this data. Says where and why, without the data.

    "welcome v3, text, line 2: 'nam' is undefined", "welcome v3, html, line 1: took over 2 s". Where the child was
    killed nobody knows the part and the line: "welcome v3: took over 2 s".
    """


@dataclass(frozen=True, slots=True)
class _Job:
    index: int
    source: Source
    #: JSON and a newline.
    data: bytes

    def failed(self, where_and_why: str) -> TemplateFailed:
        return TemplateFailed(f"{self.source.name} v{self.source.version}{where_and_why}")


class TemplateProcess:
    """Renders templates. Used by several threads at once, which take turns at its one child.

    `seconds` is the CPU time of a job, `output_bytes` the limit of each of its parts, `memory_bytes` its memory. The
    child starts with the first job, and ends with `close` or with this process; a process forked while no thread
    renders has its own.
    """

    def __init__(self, *, seconds: float = 2.0, output_bytes: int = 1 << 20, memory_bytes: int = 256 << 20) -> None:
        self._seconds = seconds
        self._limits = (output_bytes, memory_bytes)
        self._child: _Child | None = None
        self._stops: dict[UUID, list[float]] = {}
        # A bare lock may go again and again to the thread that has just released it. The queue serves threads in order.
        self._queue, self._lock = threading.Lock(), threading.Lock()

    def render(self, jobs: Sequence[tuple[Source, Mapping[str, Any]]]) -> list[Rendered | TemplateFailed]:
        """Return an answer for each job, in order. Data are JSON values, up to 250 levels deep.

        A failing job raises nothing. Raises OSError if no child can be started; then the outcome of no job is known.
        """
        answers: dict[int, Rendered | TemplateFailed] = {}
        waiting: deque[_Job] = deque()
        for index, (source, data) in enumerate(jobs):
            try:
                waiting.append(_Job(index, source, orjson.dumps(dict(data)) + b"\n"))
            except orjson.JSONEncodeError as error:  # its messages name the kind of trouble, no value
                answers[index] = _Job(index, source, b"").failed(f": its data cannot be passed on: {error}")
        while waiting:
            for answer in self._take_turn(list(islice(waiting, _TURN))):
                answers[waiting.popleft().index] = answer
        return [answers[index] for index in range(len(jobs))]

    def close(self) -> None:
        """End the child, after the turn that it is at. A later `render` starts another."""
        with self._lock:
            self._discard()

    def _take_turn(self, jobs: list[_Job]) -> list[Rendered | TemplateFailed]:
        """Return the answers to the first of these jobs: to at least one, and to none after a job that was stopped."""
        with self._queue:
            self._lock.acquire()
        try:
            return self._exchange(jobs)
        except BaseException:
            self._discard()  # answers that nobody has read would be taken for the next chunk's
            raise
        finally:
            self._lock.release()

    def _exchange(self, jobs: list[_Job]) -> list[Rendered | TemplateFailed]:
        seconds = [self._seconds_for(job.source.id) for job in jobs]
        child = self._begin(jobs, seconds)
        answers: list[Rendered | TemplateFailed] = []
        for job, limit in zip(jobs, seconds, strict=True):
            answer, goes_on = self._answer(child, job, limit)
            answers.append(answer)
            if not goes_on:
                break
        return answers

    def _begin(self, jobs: list[_Job], seconds: list[float]) -> "_Child":
        """Return a child that has accepted these jobs. A child that ended before accepting them is no job's fault."""
        for _ in range(_STARTS):
            if self._child is None or not self._child.is_alive():
                self._discard()
                self._child = _Child(*self._limits)
            if self._child.takes(jobs, seconds):
                return self._child
            self._discard()
        raise ConnectionError("the renderer of templates does not start")

    def _answer(self, child: "_Child", job: _Job, seconds: float) -> tuple[Rendered | TemplateFailed, bool]:
        """Return the answer to the current job, and whether the child continues with the next."""
        try:
            reply = child.read(3 * seconds + _GRACE)
        except OSError as error:
            code = self._discard()
            self._note_stop(job.source.id)
            if isinstance(error, TimeoutError) or code == -SIGALRM:
                return job.failed(f": took over {seconds:g} s"), False
            return job.failed(f": its renderer ended ({code})"), False
        if isinstance(reply, list):
            return Rendered(*reply), True
        if reply["stopped"]:
            self._note_stop(job.source.id)
        if reply["stopped"] == "time":
            self._discard()  # stopped anywhere, within Jinja too: what it was at there may be half done
        return job.failed(f", {reply['error']}"), not reply["stopped"]

    def _discard(self) -> int | None:
        """End the child, if there is one; returns the code that it ended with."""
        child, self._child = self._child, None
        return child.end() if child else None

    def _seconds_for(self, source_id: UUID) -> float:
        """Return the CPU seconds of a job: fewer for a template that was stopped several times lately.

        Otherwise a batch of its rows would delay all others. Its harmless rows take a millisecond, and still succeed.
        """
        since = time.monotonic() - _STOPS_SECONDS
        stops = sum(moment > since for moment in self._stops.get(source_id, ()))
        return self._seconds * _PENALTY if stops >= _STOPS else self._seconds

    def _note_stop(self, source_id: UUID) -> None:
        now = time.monotonic()
        self._stops = {key: stops for key, stops in self._stops.items() if stops[-1] > now - _STOPS_SECONDS}
        self._stops[source_id] = [*self._stops.get(source_id, ()), now][-_STOPS:]


class _Child:
    """A process of content.template_worker, and the parent's end of the conversation. One thread's at a time."""

    def __init__(self, output_bytes: int, memory_bytes: int) -> None:
        """Raises OSError where there can be no process."""
        self._known: OrderedDict[UUID, None] = OrderedDict()
        # A socket, for its timeouts.
        self._socket, theirs = socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 -- this interpreter, and two numbers
                [sys.executable, "-P", "-m", "notifier.content.template_worker", str(output_bytes), str(memory_bytes)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,  # a traceback may show data
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for us; the child ends with its stdin
            )
        self._answers = self._socket.makefile("rb")

    def is_alive(self) -> bool:
        """Return whether it can accept jobs: not once it has ended, nor in a forked process, whose parent owns it."""
        return self.process.poll() is None

    def takes(self, jobs: Sequence[_Job], seconds: Sequence[float]) -> bool:
        """Give it these jobs; False where it ended before it began them."""
        sources, forget = [], []
        for source in (job.source for job in jobs):
            if source.id not in self._known:
                sources.append((source.id, source.subject, source.text, source.html))
            self._known[source.id] = None
            self._known.move_to_end(source.id)
        while len(self._known) > _KNOWN:
            forget.append(self._known.popitem(last=False)[0])
        limits = [(job.source.id, limit) for job, limit in zip(jobs, seconds, strict=True)]
        request = {"sources": sources, "forget": forget, "jobs": limits}
        try:
            self._socket.settimeout(_START_SECONDS)
            self._socket.sendall(orjson.dumps(request) + b"\n" + b"".join(job.data for job in jobs))
            return self._answers.readline() == b"\n"
        except OSError:
            return False

    def read(self, timeout: float) -> Any:  # noqa: ANN401 -- a list or a dict, as notifier.content.template_worker has it
        """Read the next answer. Raises TimeoutError after `timeout` seconds, ConnectionError if the child has ended."""
        self._socket.settimeout(timeout)
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the renderer ended")
        return orjson.loads(line)

    def end(self) -> int:
        """Kill it; it holds nothing that matters. Returns its exit code, below zero for a signal."""
        self._answers.close()
        self._socket.close()
        self.process.kill()
        return self.process.wait()


def _environment() -> dict[str, str]:
    """Return the variables that Python needs to start, without settings: templates must not reach secrets."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def check(subject: str | None, text: str | None, html: str | None) -> dict[str, list[str]]:
    """Return the errors that are visible without data, by part: `{"text": ["line 2: unexpected '}'"]}`.

    Empty if every part compiles. The check only parses, because compiling computes constants: `'x'|center(10**9)`.
    """
    environment = Environment(autoescape=False)
    parts = zip(PARTS, (subject, text, html), strict=True)
    errors = {part: _errors(environment, source) for part, source in parts if source is not None}
    return {part: messages for part, messages in errors.items() if messages}


def _errors(environment: Environment, source: str) -> list[str]:
    try:
        found = [(node, _fault(environment, node)) for node in environment.parse(source).find_all(nodes.Node)]
    except TemplateSyntaxError as error:
        return [f"line {error.lineno}: {error.message}"]
    except RecursionError:
        return ["nested too deeply"]
    except ValueError:  # the one that Jinja's lexer lets through
        return ["a number has too many digits"]
    return [f"line {node.lineno}: {fault}" for node, fault in found if fault]


def _fault(environment: Environment, node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Filter) and node.name not in environment.filters:
        return f"no filter named {node.name!r}"
    if isinstance(node, nodes.Test) and node.name not in environment.tests:
        return f"no test named {node.name!r}"
    if isinstance(node, nodes.Include | nodes.Import | nodes.FromImport | nodes.Extends):
        return "include, import and extends are not available"
    return None
