"""Logs: one wide line for each unit of work, on standard error, as JSON or for people.

No payload and no address stands in a line above debug. An exception's text may be either (a server's answer, a row
that Postgres refuses), so that only its class and its place in the code are told.

Our own lines do not go by way of the standard library's loggers, where each would cost four times as much.
"""

import atexit
import functools
import json
import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, BinaryIO, Final, TextIO, cast

import orjson
import structlog

from config.settings import Settings, unknown_settings
from notifier.vocabulary.untrusted_text import printable, printable_json

_CHATTY = ("alembic", "celery.app.trace", "celery.beat", "celery.worker.strategy", "kombu", "tornado.access")
_TRACE: Final = "celery.app.trace"

#: Lines that are written at once at the most; and seconds for which a process that ends waits for its last ones.
_AT_ONCE: Final = 1000
_LAST_LINES: Final = 2.0
#: Lines that are kept for a reader that takes none: some ten megabytes.
_MOST_WAITING: Final = 50_000

log = structlog.get_logger()


def configure_logs(settings: Settings) -> None:
    """Send structlog and the standard library's loggers to standard error, in the settings' format and level."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    in_full = level <= logging.DEBUG
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if in_full else structlog.processors.ExceptionRenderer(_place_of),
    ]
    as_text: list[structlog.typing.Processor] = [structlog.processors.JSONRenderer(_as_json)]
    if settings.log_format == "console":
        # Values as Python writes strings: none steers the terminal.
        colours = structlog.dev.ConsoleRenderer(repr_native_str=True)
        as_text = [_without_controls, colours if sys.stderr.isatty() else _as_words]
    writer = _writer_to(sys.stderr.buffer)
    structlog.configure(
        processors=[*shared, *as_text],
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, writer)),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast(TextIO, writer))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *([] if in_full else [_without_words]), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *as_text],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    threading.excepthook = _tell_of_thread
    if not in_full:
        # Several lines a task and a tick, beside the one that says what it did.
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    for said in unknown_settings():
        log.warning("unknown_setting", detail=said)


class _Writer:
    """Writes lines from a thread of its own.

    A thread that writes gives the interpreter away, and then waits for its turn like all others: of 64 that serve
    requests each would lose more time to that than to the request. And a disk may be full, or who reads may be gone:
    that is nothing to fail a request for. A process that is killed outright takes its last milliseconds with it.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._starting = threading.Lock()
        #: The process whose thread it is: a fork has none.
        self._pid: int | None = None
        self._thread = threading.Thread()
        self._dropped = 0
        self._telling = False
        atexit.register(self.close)

    def write(self, line: str) -> None:
        """Write a line, some time; or drop it, where a reader that takes nothing lets them pile up."""
        if self._lines.qsize() >= _MOST_WAITING and not self._telling:
            self._dropped += 1
            return
        self._lines.put(line.encode(errors="backslashreplace"))
        if self._pid != os.getpid():
            with self._starting:
                self._start()

    def flush(self) -> None:
        """Do nothing: lines are written soon anyway."""

    def close(self) -> None:
        """Write what is left."""
        if self._pid == os.getpid():
            self._tell_of_dropped()
            self._lines.put(None)
            self._thread.join(_LAST_LINES)

    def _start(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._write_for_ever, name="logs", daemon=True)
            self._thread.start()

    def _tell_of_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._telling = True
            log.warning("lines_dropped", lines=dropped)
            self._telling = False

    def _write_for_ever(self) -> None:
        line: bytes | None = b""
        while line is not None:
            lines = []
            line = self._lines.get()
            while line is not None:
                lines.append(line)
                if len(lines) >= _AT_ONCE or self._lines.empty():
                    break
                line = self._lines.get()
            with suppress(OSError, ValueError):
                self._stream.write(b"".join(lines))
                self._stream.flush()
            self._tell_of_dropped()


def _as_json(event: Any, **_: Any) -> str:  # noqa: ANN401 -- structlog's signature
    try:
        return printable_json(orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode())
    except TypeError:  # halves of surrogate pairs, which UTF-8 has not
        return json.dumps(event, default=str)


#: One for each stream, however often logs are configured.
_writer_to: Final = functools.cache(_Writer)


def _without_controls(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:  # noqa: ANN401 -- structlog's signature
    """Escape control characters in the texts of libraries and errors."""
    event["event"] = printable(event.get("event", ""))
    if "exception" in event:
        event["exception"] = printable(event["exception"], lines=True)
    return event


def _as_words(_: Any, __: str, event: structlog.typing.EventDict) -> str:  # noqa: ANN401 -- structlog's signature
    """Format a line for people. structlog's own console renderer takes five times as long, even without colours."""
    exception = event.pop("exception", None)
    head = f"{event.pop('timestamp', '')} [{event.pop('level', ''):<8}] {event.pop('event', ''):<12}"
    line = " ".join([head, *(f"{name}={_quoted(value)}" for name, value in event.items())])
    return line if exception is None else f"{line}\n{exception}"


def _quoted(value: object) -> object:
    """Quoted unless it is one word, so that no value can begin a line of its own."""
    return value if isinstance(value, str) and value.isprintable() and value and " " not in value else repr(value)


def _place_of(exc_info: Any) -> str:  # noqa: ANN401 -- structlog's type is private
    """Return the classes and tracebacks of an exception and its causes, the first cause first, without their texts."""
    parts: list[str] = []
    error: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"{frames}{type(error).__module__}.{type(error).__qualname__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(reversed(parts))


def _without_words(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:  # noqa: ANN401 -- structlog's signature
    """Celery's line about a task that failed, without what the exception says."""
    record: logging.LogRecord = event["_record"]
    if record.name == _TRACE and record.levelno >= logging.WARNING:
        event["event"] = "task_failed"
        data = getattr(record, "data", None) or {}
        event["task"] = data.get("name")
        event["error"] = type(record.exc_info[1]).__name__ if record.exc_info else None
    return event


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Log an uncaught exception of a thread, which Python would print with its text."""
    if failed.exc_value is not None:
        log.error(
            "thread_failed",
            thread=failed.thread.name if failed.thread else None,
            exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback),
        )
