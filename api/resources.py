"""Blueprints of resources: flask-smorest's, with arguments read by the contract."""

from typing import Any, Final

from flask_smorest import Blueprint
from marshmallow import RAISE
from webargs.flaskparser import FlaskParser

from api.bodies import read_json

#: The largest body of a request that is no event, in bytes.
_MAX_BODY: Final = 64 * 1024


class _StrictParser(FlaskParser):
    """Bodies through our own strict parser, and nothing unknown anywhere: no parameter is ignored or clamped."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}  # noqa: RUF012 -- webargs reads it from the class

    def load_json(self, req: Any, schema: Any) -> Any:  # noqa: ANN401 -- webargs' signature
        """The request's body, as parsed."""
        del req, schema
        return read_json(_MAX_BODY).document


class Resource(Blueprint):
    """The routes of one resource."""

    ARGUMENTS_PARSER = _StrictParser()
