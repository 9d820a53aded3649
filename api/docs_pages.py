"""Pages that describe the API: the interactive description, the OpenAPI document, and a page for each problem type."""

from pathlib import Path
from typing import Final

import flask_swagger_ui
from flask import Blueprint, Response, abort, current_app, jsonify, send_from_directory

from api.auth import is_open
from api.browser_security import STATIC, Page, policy
from api.problem_types import ABOUT, ProblemType

pages = Blueprint("pages", __name__)

#: Swagger UI's files, as the flask-swagger-ui package ships them; and ours.
_DIST: Final = Path(flask_swagger_ui.__file__).parent / "dist"
#: Swagger UI's files that the page loads. Others are pages of their own, with scripts in them.
_LOADED: Final = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-16x16.png", "favicon-32x32.png"})
#: For the interactive description: it loads our files, and sends requests to this server alone.
_DOCS_POLICY: Final = policy(
    "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'", "form-action 'none'"
)
_PROBLEMS: Final = Page("problems.html")


@pages.get("/")
@is_open
def index() -> Response:
    """Redirect from the root to the interactive description."""
    return Response(status=302, headers={"Location": "/docs"})


@pages.get("/problems")
@is_open
def problem_types() -> Response:
    """Show all types of problems."""
    return _PROBLEMS.response(kinds=list(ProblemType), about=ABOUT)


@pages.get("/problems/<kind>")
@is_open
def problem_type(kind: str) -> Response:
    """Show the page that a problem's `type` leads to."""
    if kind not in list(ProblemType):
        abort(404, "There is no such type of problem.")
    return _PROBLEMS.response(kinds=[ProblemType(kind)], about=ABOUT)


@pages.get("/docs")
@is_open
def docs() -> Response:
    """Show the interactive description; everything it loads comes from here."""
    page = send_from_directory(STATIC, "docs.html", conditional=False)
    page.headers["Content-Security-Policy"] = _DOCS_POLICY
    return page


@pages.get("/docs/<path:name>")
@is_open
def docs_file(name: str) -> Response:
    """Serve the scripts and styles of the interactive description."""
    if name != "docs.js" and name not in _LOADED:
        abort(404)
    folder = STATIC if name == "docs.js" else _DIST
    return send_from_directory(folder, name, max_age=3600, conditional=False)


@pages.get("/openapi.json")
@is_open
def openapi() -> Response:
    """Return the OpenAPI description, made from the schemas that validate."""
    return jsonify(current_app.extensions["openapi"].document())
