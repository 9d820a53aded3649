"""Blueprints of resources: flask-smorest's, with arguments read by the contract."""

import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, TypeVar, cast

import marshmallow as ma
from flask import Flask, g, request
from flask_smorest import Blueprint
from marshmallow import RAISE
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict
from werkzeug.routing import BaseConverter, Rule

from api.database import giving_back
from api.description import TAKES_REVEAL, operation_id
from api.problems import ProblemApi, flattened
from api.request_bodies import is_empty, read_json
from api.request_heads import MAX_BODY
from api.visibility import REVEAL, remember_given
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.event_types import USER_ID
from notifier.vocabulary.strict_json import check_text, shown_name

_ENDS_IN_NAME: Final = re.compile(r"<name:\w+>$")

View = TypeVar("View", bound=Callable[..., Any])


class OptionalBody(ma.Schema):
    """A body that may be left out."""


class _StrictParser(FlaskParser):
    """Bodies through our own strict parser, and nothing unknown anywhere: no parameter is ignored or clamped."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}  # noqa: RUF012 -- webargs reads it from the class

    def parse(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- webargs' signature
        """Parse the arguments of a request, and remember them: the answer may show them."""
        arguments = super().parse(*args, **kwargs)
        if isinstance(arguments, dict):
            remember_given(arguments)
        return arguments

    def load_querystring(self, req: Any, schema: ma.Schema) -> Any:  # noqa: ANN401 -- webargs' signature
        """Return the query's parameters, except `reveal`, which every reading route takes."""
        given = MultiDict((name, value) for name, value in req.args.items(multi=True) if name != REVEAL)
        return self._makeproxy(given, schema)

    def load_json(self, req: Any, schema: Any) -> Any:  # noqa: ANN401 -- webargs' signature
        """Return the request's parsed body."""
        if isinstance(schema, OptionalBody) and is_empty(MAX_BODY):
            return {}
        return read_json(MAX_BODY).document


def _check_parameters() -> None:
    """Raise Invalid where a query parameter cannot be kept, or comes twice, so that one of them would be ignored."""
    errors: dict[str, list[str]] = {}
    for name, values in request.args.lists():
        try:
            for text in (name, *values):
                check_text(text)
        except ValueError as error:
            errors[shown_name(name)] = [str(error)]
        else:
            if len(values) > 1:
                errors[name] = ["Given more than once."]
    if errors:
        raise Invalid(errors)


def check_queries(app: Flask) -> None:
    """Check the query of every request that wants a key, also where a route takes no parameters.

    Providers' callbacks and links in messages are not ours to judge: others add to them.
    """

    def check() -> None:
        if request.query_string and "caller" in g:
            _check_parameters()

    app.before_request(check)


class Resource(Blueprint):
    """The routes of one resource."""

    ARGUMENTS_PARSER = _StrictParser()

    def __init__(self, *args: Any, shows_credentials: bool = True, **kwargs: Any) -> None:  # noqa: ANN401 -- flask-smorest's
        """`shows_credentials`: its reading routes take `reveal=1`, since they have credentials to show."""
        super().__init__(*args, **kwargs)
        self._shows_credentials = shows_credentials

    def response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- flask-smorest's
        """Serialize what a view returns, once its session has given its connection back."""
        serialize = super().response(*args, **kwargs)
        return lambda view: serialize(giving_back(view))

    def route(self, rule: str, **options: Any) -> Callable[[View], View]:  # noqa: ANN401 -- flask-smorest's
        """Serve a view at a path."""
        if _ENDS_IN_NAME.search(rule):
            options["strict_slashes"] = True  # `users/a%2F` is not the user `a`
        add = super().route(rule, **options)

        def declare(view: View) -> View:
            view = self.doc(operationId=operation_id(view.__name__))(view)
            view.body_types = self._body_types(view)  # type: ignore[attr-defined]  # views carry their marks
            scope = getattr(view, "scope", None)
            if scope is None:
                return cast(View, add(view))
            view = self.doc(**{"x-required-scope": str(scope)})(view)
            if self._shows_credentials and "GET" in options.get("methods", ["GET"]):
                view.takes_reveal = True  # type: ignore[attr-defined]  # views carry their marks
                view = self.doc(**{TAKES_REVEAL: True})(view)
            return cast(View, add(view))

        return declare

    def _body_types(self, view: Callable[..., Any]) -> frozenset[str] | None:
        """Return the media types of the body that a view describes; None if it describes none.

        Read where flask-smorest keeps the parts of the description, as an API process does not make the whole of it
        before somebody asks.
        """
        parts = view._apidoc  # type: ignore[attr-defined]  # flask-smorest tells of them nowhere else
        by_hand = parts.get("manual_doc", {}).get("requestBody", {}).get("content", ())
        by_location = self.DEFAULT_LOCATION_CONTENT_TYPE_MAPPING
        read = parts.get("arguments", {}).get("parameters", ())
        types = {each.get("content_type") or by_location[each["in"]] for each in read if each["in"] in by_location}
        return frozenset(types.union(by_hand)) or None

    def register_views_in_doc(self, api: ProblemApi, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- flask-smorest's
        """Leave the description of these routes to the moment when somebody asks for it."""
        api.describe_later(lambda: super(Resource, self).register_views_in_doc(api, *args, **kwargs))


class LateRule(Rule):
    """A route's rule that compiles the code which makes its URL when a URL of it is first asked for.

    Werkzeug compiles the code for both kinds of URLs of every rule at once: a third of the time it takes to create the
    application, while only the console's redirects ask for any.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        """Return a method that compiles the real one at its first call, and calls it."""
        compiled = cache(partial(super()._compile_builder, append_unknown))
        return lambda rule, /, **values: compiled()(rule, **values)


class NameConverter(BaseConverter):
    """A name in a path, as callers chose it: what `notifier.vocabulary.event_types.USER_ID` says."""

    regex = USER_ID.pattern.removeprefix("^").removesuffix("$")
    part_isolating = True


def read_arguments(schema: ma.Schema, location: str) -> dict[str, Any]:
    """Return the arguments of a route that takes them from its query or its body. Raises Invalid."""
    given = request.args.to_dict() if location == "query" else read_json(MAX_BODY).document
    try:
        fields: dict[str, Any] = schema.load(given)
    except ma.ValidationError as error:
        raise Invalid(flattened(error.messages)) from None
    return fields
