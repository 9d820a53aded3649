"""Blueprints of resources: flask-smorest's, with arguments read by the contract."""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import marshmallow as ma
from flask import request
from flask_smorest import Blueprint
from marshmallow import RAISE
from webargs.flaskparser import FlaskParser
from werkzeug.routing import BaseConverter

from api.bodies import is_empty, read_json
from api.problems import MEDIA_TYPE, ProblemSchema, flattened
from notifier.errors import Invalid
from notifier.strict_json import check_text

#: The largest body of a request that is no event, in bytes: a template's three parts fit.
_MAX_BODY: Final = 1024 * 1024

_TOO_OFTEN: Final[dict[str, Any]] = {
    "content_type": MEDIA_TYPE,
    "description": "More requests a second than this key may make.",
    "headers": {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}},
}

View = TypeVar("View", bound=Callable[..., Any])


class OptionalBody(ma.Schema):
    """A body that may be left out."""


class _StrictParser(FlaskParser):
    """Bodies through our own strict parser, and nothing unknown anywhere: no parameter is ignored or clamped."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}  # noqa: RUF012 -- webargs reads it from the class

    def load_json(self, req: Any, schema: Any) -> Any:  # noqa: ANN401 -- webargs' signature
        """The request's body, as parsed."""
        if isinstance(schema, OptionalBody) and is_empty(_MAX_BODY):
            return {}
        return read_json(_MAX_BODY).document

    def load_querystring(self, req: Any, schema: Any) -> Any:  # noqa: ANN401 -- webargs' signature
        """The query's parameters. Raises Invalid."""
        for name, value in req.args.items(multi=True):
            _check_parameter(name, value)
        return super().load_querystring(req, schema)


def _check_parameter(name: str, value: str) -> None:
    try:
        check_text(name)
        check_text(value)
    except ValueError as error:
        raise Invalid({name.replace("\0", ""): [str(error)]}) from None


class Resource(Blueprint):
    """The routes of one resource."""

    ARGUMENTS_PARSER = _StrictParser()

    def route(self, rule: str, **options: Any) -> Callable[[View], View]:  # noqa: ANN401 -- flask-smorest's
        """Serve a view at a path. Every view that wants a key can be called too often."""
        add = super().route(rule, **options)

        def declare(view: View) -> View:
            scope = getattr(view, "scope", None)
            if scope is None:
                return cast(View, add(view))
            view = self.doc(**{"x-required-scope": str(scope)})(view)
            return cast(View, add(self.alt_response(429, schema=ProblemSchema, **_TOO_OFTEN)(view)))

        return declare


class NameConverter(BaseConverter):
    """A name in a path, as callers chose it: 1 to 255 characters, any but a slash and control characters."""

    regex = r"[^/\x00-\x1f\x7f]{1,255}"
    part_isolating = True


def read_arguments(schema: ma.Schema, location: str) -> dict[str, Any]:
    """The arguments of a route that takes them from its query or from its body. Raises Invalid."""
    given = request.args.to_dict() if location == "query" else read_json(_MAX_BODY).document
    for name, value in request.args.items(multi=True):
        _check_parameter(name, value)
    try:
        fields: dict[str, Any] = schema.load(given)
    except ma.ValidationError as error:
        raise Invalid(flattened(error.messages)) from None
    return fields
