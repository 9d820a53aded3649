"""Logging: structlog for everything, one wide line per unit of work. No payload and no address above debug."""

import logging
import sys

import structlog

from config.settings import Settings

_CHATTY = ("alembic", "celery.app.trace", "celery.beat", "celery.worker.strategy", "kombu", "tornado.access")


def configure_logs(settings: Settings) -> None:
    """Send structlog and the standard library's loggers to standard error, in the settings' format and level."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    if settings.log_level != "debug":
        # Several lines a task and a tick, beside the one that says what it did.
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
