"""Logs: one wide line for each unit of work, on standard error, as JSON or for people.

No payload and no address stands in a line above debug. What an exception says may be either (a server's answer, a row
that Postgres refuses), so that only its class and its place in the code are told.

Our own lines go straight to standard error: by way of the standard library's loggers each would cost four times as
much.
"""

import json
import logging
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, BinaryIO, Final, TextIO, cast

import orjson
import structlog

from config.settings import Settings

_CHATTY = ("alembic", "celery.app.trace", "celery.beat", "celery.worker.strategy", "kombu", "tornado.access")
_TRACE: Final = "celery.app.trace"

log = structlog.get_logger()


def configure_logs(settings: Settings) -> None:
    """Send structlog and the standard library's loggers to standard error, in the settings' format and level."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    in_full = level <= logging.DEBUG
    as_json = settings.log_format == "json"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if in_full else structlog.processors.ExceptionRenderer(_place_of),
    ]
    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_as_bytes) if as_json else for_people],
        logger_factory=_factory(as_json=as_json),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *([] if in_full else [_without_words]), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(_as_text) if as_json else for_people,
            ],
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


class _Unfailing:
    """A stream whose reader may have gone, or whose disk may be full: that is nothing to fail a request for."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 -- of text or of bytes
        self._stream = stream

    def write(self, line: Any) -> None:  # noqa: ANN401
        """Write it, if that can be done."""
        with suppress(OSError, ValueError):
            self._stream.write(line)

    def flush(self) -> None:
        """Flush, if that can be done."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def _factory(*, as_json: bool) -> Any:  # noqa: ANN401 -- structlog's factories have no type in common
    # Where standard error was replaced by something that takes text alone, as some test runners do, text it is.
    raw = getattr(sys.stderr, "buffer", None)
    if as_json and raw is not None:
        return structlog.BytesLoggerFactory(cast(BinaryIO, _Unfailing(raw)))
    return structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr)))


def _as_bytes(event: Any, **_: Any) -> bytes:  # noqa: ANN401 -- structlog's signature
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # halves of surrogate pairs, which UTF-8 has not
        return json.dumps(event, default=str).encode()


def _as_text(event: Any, **_: Any) -> str:  # noqa: ANN401 -- structlog's signature
    return _as_bytes(event).decode()


def _place_of(exc_info: Any) -> str:  # noqa: ANN401 -- structlog's type is private
    """An exception's class and traceback, without its words; and of those that it followed, the first one first."""
    parts: list[str] = []
    error: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"{frames}{type(error).__module__}.{type(error).__qualname__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(reversed(parts))


def _without_words(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:  # noqa: ANN401
    """Celery's line about a task that failed, without what the exception says."""
    record: logging.LogRecord = event["_record"]
    if record.name == _TRACE and record.levelno >= logging.WARNING:
        event["event"] = "task_failed"
        data = getattr(record, "data", None) or {}
        event["task"] = data.get("name")
        event["error"] = type(record.exc_info[1]).__name__ if record.exc_info else None
    return event


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """What Python would print with all that the exception says."""
    if failed.exc_value is not None:
        log.error(
            "thread_failed",
            thread=failed.thread.name if failed.thread else None,
            exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback),
        )
