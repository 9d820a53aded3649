"""The HTTP reference: pages written from the API's own OpenAPI description, one for each of its tags."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from api.app import create_app
from api.problem_types import ABOUT
from config.settings import read_settings
from config.wiring import Wiring
from deploy.site import schema_words
from deploy.site.templates import rendered

Document = dict[str, Any]

_FOLDER: Final = "reference/http"
#: Nothing is asked of it: the description is made of schemas and settings.
_NO_DATABASE: Final = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
_METHODS: Final = frozenset({"get", "put", "post", "patch", "delete"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: where it is, and its part of the document."""

    method: str
    path: str
    about: Document

    @property
    def title(self) -> str:
        """Return its summary as a heading."""
        return str(self.about["summary"]).rstrip(".")

    @property
    def answers(self) -> dict[str, Document]:
        """Return its answers that are no errors, by status."""
        return {status: each for status, each in sorted(self.about["responses"].items()) if int(status) < 400}

    @property
    def errors(self) -> dict[str, Document]:
        """Return its errors, by status."""
        return {status: each for status, each in sorted(self.about["responses"].items()) if int(status) >= 400}


def description() -> Document:
    """Return the OpenAPI document of an API that has every setting's default."""
    app = create_app(Wiring(read_settings(_NO_DATABASE)))
    document: Document = json.loads(json.dumps(app.extensions["openapi"].document()))
    return document


def http_pages(document: Document) -> dict[str, str]:
    """Return the pages of the reference, in their order: path → content."""
    by_tag = {tag["name"]: list(_of_tag(document, tag["name"])) for tag in document["tags"]}
    tags = {tag["name"]: tag for tag in document["tags"]}
    pages = {"index.md": rendered("http_index.md.jinja", document=document, by_tag=by_tag, tags=tags, file_of=_file_of)}
    for name, found in by_tag.items():
        pages[_file_of(name)] = rendered(
            "http_tag.md.jinja", tag=tags[name], operations=found, words=schema_words, problems_of=_problems_of
        )
    components = document["components"]
    pages["schemas.md"] = rendered("http_schemas.md.jinja", schemas=components["schemas"], words=schema_words)
    pages["errors.md"] = rendered(
        "http_errors.md.jinja", about=ABOUT, examples=components["examples"], words=schema_words
    )
    pages["openapi.json"] = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    return {f"{_FOLDER}/{name}": content for name, content in pages.items()}


def _of_tag(document: Document, tag: str) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method in item:
            if method in _METHODS and item[method]["tags"] == [tag]:
                yield Operation(method.upper(), path, item[method])


def _file_of(tag: str) -> str:
    return f"{tag.replace(' ', '-')}.md"


def _problems_of(error: Document) -> list[str]:
    """Return the kinds of problems that an error's examples show."""
    kinds = [
        each["$ref"].rpartition("/")[2]
        for content in error.get("content", {}).values()
        for each in content.get("examples", {}).values()
    ]
    return list(dict.fromkeys(kind if kind in ABOUT else kind.rpartition("-")[0] for kind in kinds))
