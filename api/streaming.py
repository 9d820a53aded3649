"""Answers that are made while they are read."""

from collections.abc import Iterator

import structlog
from flask import Response
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger()


def document(pieces: Iterator[bytes]) -> Response:
    """Answer with a JSON document of a person's data, in pieces. No cache keeps it."""
    return Response(_until_it_breaks(pieces), mimetype="application/json", headers={"Cache-Control": "no-store"})


def _until_it_breaks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """An answer that has begun can only be broken off. The server prints what is raised then, and all that it says."""
    try:
        yield from pieces
    except SQLAlchemyError as error:
        log.warning("export_broken_off", error=type(getattr(error, "orig", None) or error).__name__)
        raise ConnectionError("Postgres went away in the middle of it.") from None
