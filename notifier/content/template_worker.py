"""Template worker: the child process for templates, `python -m notifier.content.template_worker OUTPUT MEMORY`.

The protocol over stdin and stdout: every message is a line of JSON. A chunk from the parent:

    {"sources": [[id, subject, text, html], …], "forget": [id, …], "jobs": [[id, seconds], …]}
    the data of each job, a line each

The answer: an empty line once the whole chunk is read, and then, in order, a line for each job:

    [subject, text, html]                                          rendered
    {"error": "text, line 2: …", "stopped": null}                  failed
    {"error": "text, line 2: …", "stopped": "time" | "memory"}     stopped: the rest of the chunk is forgotten

Templates are untrusted code. So this process has no secrets, imports nothing of Notifier but `template_values`, and
keeps no state that one template could leave for the next.
"""

import contextlib
import gc
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence, Sized
from types import FrameType, TracebackType
from typing import Any, Final, cast

import orjson
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from markupsafe import Markup

from notifier.content.template_values import filters, shown, shown_arguments, shown_operand

PARTS: Final = ("subject", "text", "html")
#: Of a number that a template computes, in bits; and of a sequence that it repeats, in elements.
_MAX_BITS: Final = 1 << 16
_MAX_ELEMENTS: Final = 1 << 20
_MAX_MESSAGE: Final = 200
#: Quoted texts, and indexes of elements, in Jinja's messages.
_QUOTED: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?<=no element ).+""", re.DOTALL)
_TYPES: Final = frozenset({"dict", "list", "str", "int", "float", "bool", "tuple", "NoneType"})


class Stopped(BaseException):
    """The template's time is over. Not an Exception: Jinja swallows those in places, and so would go on."""


class _Generator(CodeGenerator):
    """Compiles templates so that each value passes `shown` on its way into a text, those joined by `~` too."""

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        """End the call of `shown`, which receives the template's expression."""
        if finalize.src is not None:
            self.write(f", {_expression(node)!r}")
        super()._output_child_post(node, frame, finalize)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 -- Jinja's name
        """Write the joining of several values."""
        parts = nodes.Concat([nodes.Call(_SHOWN, [part], [], None, None) for part in node.nodes], lineno=node.lineno)
        parts.set_environment(self.environment)
        super().visit_Concat(parts, frame)

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> str:
        """Compute no expression while compiling: Jinja joins constants by ways of its own."""
        if isinstance(node, nodes.TemplateData):
            return super()._output_child_to_const(node, frame, finalize)
        raise nodes.Impossible


def _expression(node: nodes.Node) -> str:
    """Return the text of an expression in a template, if it consists of names; else an empty text."""
    match node:
        case nodes.Name(name=name):
            return str(name)
        case nodes.Getattr(node=inner, attr=name):
            return f"{before}.{name}" if (before := _expression(inner)) else ""
        case nodes.Getitem(node=inner, arg=nodes.Const(value=str() | int() as name)):
            return f"{before}[{name!r}]" if (before := _expression(inner)) else ""
        case nodes.Call(node=inner):
            return f"{before}(…)" if (before := _expression(inner)) else ""
        case nodes.Filter(node=nodes.Node() as inner, name=name):
            return f"{before}|{name}" if (before := _expression(inner)) else ""
    return ""


_SHOWN: Final = nodes.EnvironmentAttribute("finalize")


class _Formatter(SandboxedFormatter):
    """Formats the arguments of a text's own `format`, by the rules of `shown`."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """Return the value of a field, and its name."""
        value, first = super().get_field(field_name, args, kwargs)
        return shown(value), first


class _EscapeFormatter(_Formatter, SandboxedEscapeFormatter):
    """The same, for a text that is HTML."""


class Environment(ImmutableSandboxedEnvironment):
    """The operations that templates are allowed: nothing outside themselves, and nothing large in one operation.

    A single newline at the end of a source is dropped, as Jinja does by default: it belongs to the editor, not the
    text. A member of an object takes precedence over a method of the same name, and nothing but data is ever written
    (`shown`).
    """

    intercepted_binops = frozenset({"*", "**", "%", "//"})
    code_generator_class = _Generator

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(autoescape=autoescape, undefined=StrictUndefined, finalize=shown, optimized=False)
        self.globals["range"] = _range
        self.filters = filters()

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 -- Jinja's signature
        """Return a member, else an attribute: the `items` of an order are its member, not dict's method."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N805 -- Jinja's
        """Call a template's callee; methods of texts get only values that may be written."""
        if isinstance(getattr(__obj, "__self__", None), str):
            args = tuple(shown_arguments(getattr(__obj, "__name__", ""), args))
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:  # noqa: ANN401 -- Jinja's signature
        """Return `format` or `format_map` of a text as templates may call them; None for anything else."""
        if super().wrap_str_format(value) is None:
            return None
        text: str = value.__self__
        is_map = value.__name__ == "format_map"
        formatter = _EscapeFormatter(self, escape=text.escape) if isinstance(text, Markup) else _Formatter(self)

        def write(*args: Any, **kwargs: Any) -> str:  # noqa: ANN401 -- any values
            made = formatter.vformat(text, () if is_map else args, args[0] if is_map else kwargs)
            return made if type(text) is str else type(text)(made)

        return write

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Refuse operations that would compute for long."""
        if _is_large(operator, left, right):
            raise SecurityError(f"'{operator}' would make too large a value")
        if operator == "%" and isinstance(left, str | bytes):
            right = shown_operand(right)
        return super().call_binop(context, operator, left, right)

    def is_safe_callable(self, obj: object) -> bool:
        """Refuse by type: Jinja's own message shows the object, which may be data."""
        if not super().is_safe_callable(obj):
            raise SecurityError(f"a {type(obj).__name__} is not safely callable")
        return True

    def get_template(self, *_args: object, **_kwargs: object) -> Template:
        """Refuse: there are no other templates."""
        raise SecurityError("include, import and extends are not available")

    select_template = get_or_select_template = get_template


def _range(*arguments: int) -> range:
    numbers = range(*arguments)
    if numbers[MAX_RANGE:]:
        raise SecurityError(f"range() is limited to {MAX_RANGE} numbers")
    return numbers


def _is_large(operator: str, left: object, right: object) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        bits = (left.bit_length(), right.bit_length())
        if operator == "**":
            return bits[0] * right > _MAX_BITS
        return (sum(bits) if operator == "*" else max(bits)) > _MAX_BITS
    if operator == "*":
        sequence, times = (right, left) if isinstance(left, int) else (left, right)
        return isinstance(times, int) and isinstance(sequence, Sized) and len(sequence) * times > _MAX_ELEMENTS
    return False


class _ProcessLimits:
    """The CPU time and the memory of one job. The main thread's: it is its signal."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory = memory_bytes
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._page = resource.getpagesize()
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        self._none = (self._hard, self._hard)  # made beforehand: where it is needed there may be no memory to make it
        self._armed = False
        self._largest = self._size() + memory_bytes
        signal.signal(signal.SIGPROF, self._stop)

    def _size(self) -> int:
        """Return the address space in use, in bytes."""
        return int(os.pread(self._statm, 64, 0).split()[0]) * self._page

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        if self._armed:
            raise Stopped

    @property
    def outgrown(self) -> bool:
        """Whether this process keeps as much as one job may take: it is time for a new one."""
        return self._size() > self._largest

    def set(self, seconds: float) -> None:
        """Set the limits from now on. Compiled templates do not count, or they would leave ever less to the jobs."""
        soft = self._size() + self._memory
        if self._hard != resource.RLIM_INFINITY:
            soft = min(soft, self._hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, self._hard))
        # The kernel's own end to it, should the parent be gone that would otherwise kill a C call that lasts.
        signal.setitimer(signal.ITIMER_REAL, 3 * seconds + 5)
        self._armed = True
        # CPU time, so that a busy machine stops no harmless template. Again and again: Python drops exceptions raised
        # in a __del__.
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)

    def lift(self) -> None:
        """Remove the limits."""
        self._armed = False
        resource.setrlimit(resource.RLIMIT_AS, self._none)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


class Renderer:
    """Compiles and renders, a job at a time."""

    def __init__(self, output_bytes: int, memory_bytes: int) -> None:
        self._output = output_bytes
        self._plain, self._html = Environment(autoescape=False), Environment(autoescape=True)
        self._sources: dict[str, list[str | None]] = {}
        self._compiled: dict[str, list[Template | None]] = {}
        #: The position in a job: the part, and its generator.
        self._part = 0
        self._stream: Generator[str, None, None] | None = None
        self.limits = _ProcessLimits(memory_bytes)

    def learn(self, sources: list[list[Any]], forget: list[str]) -> None:
        """Store these sources by their ids, and forget others: the parent keeps count."""
        for source_id in forget:
            self._sources.pop(source_id, None)
            self._compiled.pop(source_id, None)
        self._sources.update({source_id: parts for source_id, *parts in sources})

    def answer(self, source_id: str, seconds: float, data: bytes) -> list[str | None] | dict[str, str | None]:
        """Answer a job, in the format of the module's docstring. Takes `seconds` of CPU time at most."""
        self._part, self._stream = 0, None
        try:
            self.limits.set(seconds)
            rendered = self._render(source_id, data)
            self.limits.lift()  # in here: the signal may come until it is done
        except (Stopped, Exception) as error:
            self.limits.lift()
            return self._failure(error, source_id, seconds)
        return rendered

    def _render(self, source_id: str, data: bytes) -> list[str | None]:
        if source_id not in self._compiled:
            self._compiled[source_id] = self._compile(source_id)
        context = orjson.loads(data)
        rendered: list[str | None] = []
        for index, template in enumerate(self._compiled[source_id]):
            self._part = index
            rendered.append(None if template is None else self._render_part(template, context))
        if rendered[0] is not None:
            rendered[0] = " ".join(rendered[0].split())  # a header has one line
        return rendered

    def _compile(self, source_id: str) -> list[Template | None]:
        templates: list[Template | None] = []
        for index, source in enumerate(self._sources[source_id]):
            self._part = index
            environment = self._html if PARTS[index] == "html" else self._plain
            templates.append(None if source is None else environment.from_string(source))
        return templates

    def _render_part(self, template: Template, context: dict[str, Any]) -> str:
        # Not template.generate(), which compiles a false traceback for each frame of an error.
        stream = cast("Generator[str, None, None]", template.root_render_func(template.new_context(context)))
        self._stream = stream
        pieces, size = [], 0
        for piece in stream:
            short = len(piece) <= self._output and not piece.isascii()
            size += len(piece.encode("utf-8", "surrogatepass")) if short else len(piece)
            if size > self._output:
                stream.throw(SecurityError(f"made over {_bytes(self._output)}"))  # there, for its line
            pieces.append(piece)
        self._stream = None
        text = "".join(pieces)
        try:
            text.encode()
        except UnicodeEncodeError:
            # A literal in a template may spell surrogates: pairs become their character, others a replacement.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def _failure(self, error: BaseException, source_id: str, seconds: float) -> dict[str, str | None]:
        stopped = "time" if isinstance(error, Stopped) else "memory" if isinstance(error, MemoryError) else None
        line = error.lineno if isinstance(error, TemplateSyntaxError) else self._line(error.__traceback__)
        if stopped == "time":
            message = f"took over {seconds:g} s"
        elif stopped == "memory":
            message = "needed too much memory"
        else:
            message = _message(error, self._sources[source_id][self._part] or "")
        where = PARTS[self._part] if line is None else f"{PARTS[self._part]}, line {line}"
        return {"error": f"{where}: {message}", "stopped": stopped}

    def _line(self, traceback: TracebackType | None) -> int | None:
        """Return the line of the template that failed or was reached: the line of the innermost frame."""
        line = None
        while traceback is not None:
            line = _source_line(traceback.tb_frame, traceback.tb_lineno) or line
            traceback = traceback.tb_next
        frame = getattr(self._stream, "gi_frame", None)
        return line or (frame and _source_line(frame, frame.f_lineno))  # the latter between two pieces


def _source_line(frame: FrameType, line: int) -> int | None:
    template = frame.f_globals.get("__jinja_template__")
    return template.get_corresponding_lineno(line) if isinstance(template, Template) else None


def _bytes(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def _message(error: BaseException, source: str) -> str:
    """Describe an error without data: Python's messages contain values, Jinja's those that were subscripts."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, TemplateError) or not error.message:
        return type(error).__name__

    def hide(match: re.Match[str]) -> str:
        name = match[0].strip("'\"")
        return match[0] if name in source or name.removesuffix(" object") in _TYPES else "…"

    return " ".join(_QUOTED.sub(hide, error.message).split())[:_MAX_MESSAGE]


def main() -> None:
    """Serve until stdin ends, as it does with the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    renderer = Renderer(int(sys.argv[1]), int(sys.argv[2]))
    gc.freeze()  # what is here now stays
    read, write = sys.stdin.buffer, sys.stdout.buffer
    while not renderer.limits.outgrown and (line := read.readline()).endswith(b"\n"):
        chunk = orjson.loads(line)
        renderer.learn(chunk["sources"], chunk["forget"])
        data = [read.readline() for _ in chunk["jobs"]]
        write.write(b"\n")
        write.flush()
        for (source_id, seconds), context in zip(chunk["jobs"], data, strict=True):
            answer = renderer.answer(source_id, seconds, context)
            write.write(orjson.dumps(answer) + b"\n")
            write.flush()
            if isinstance(answer, dict) and answer["stopped"]:
                break


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):  # the parent is gone
        main()
