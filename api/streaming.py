"""Streamed JSON answers."""

from collections.abc import Iterator

import structlog
from flask import Response
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger()


def document(pieces: Iterator[bytes]) -> Response:
    """Stream a JSON document of a person's data. No cache keeps it."""
    return Response(_until_it_breaks(pieces), mimetype="application/json", headers={"Cache-Control": "no-store"})


def _until_it_breaks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Break the answer off if Postgres fails. The server prints what is raised, so that must not contain data."""
    try:
        yield from pieces
    except SQLAlchemyError as error:
        log.warning("export_broken_off", error=type(getattr(error, "orig", None) or error).__name__)
        raise ConnectionError("Postgres went away in the middle of it.") from None
