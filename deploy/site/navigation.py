"""Where each page stands in the site's navigation; a page of docs/ that has no place here stops the build."""

from collections.abc import Iterable, Mapping
from typing import Final

#: Section → its pages, in the order in which a newcomer reads them.
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Start": ("README.md", "docs/concepts.md", "docs/guide.md", "docs/architecture.md"),
    "Recipes": (
        "docs/providers.md",
        "docs/handlers.md",
        "docs/receiving-webhooks.md",
        "clients/python/README.md",
        "docs/relay.md",
        "docs/production.md",
        "docs/kubernetes.md",
    ),
    "Reference": (
        "docs/errors.md",
        "docs/reasons.md",
        "reference/cli.md",
        "docs/settings.md",
        "docs/metrics.md",
        "docs/glossary.md",
    ),
    "Operating": (
        "docs/console.md",
        "docs/operating.md",
        "docs/runbook.md",
        "docs/security.md",
    ),
    "Promises and figures": (
        "docs/guarantees.md",
        "docs/performance.md",
        "docs/capacity.md",
    ),
    "Project": (
        "CONTRIBUTING.md",
        "docs/releasing.md",
        "docs/decisions.md",
        "docs/dependencies.md",
        "benchmarks/README.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ),
}
#: Titles in the navigation, where that of the page is too long or says too little there.
TITLES: Final = {
    "README.md": "Notifier in short",
    "docs/guide.md": "Guide",
    "docs/architecture.md": "A tour of the inside",
    "benchmarks/README.md": "Benchmarks",
    "clients/python/README.md": "The Python client",
    "reference/http/index.md": "All operations",
}
#: The section that has the pages written from the API's description, as one group.
_HTTP_SECTION: Final = "Reference"
_HTTP: Final = "HTTP"


class MisplacedError(Exception):
    """A page has no place in the navigation, or a place has no page. The message names it, in one line."""


def navigation(pages: Iterable[str], http_pages: Iterable[str]) -> list[object]:
    """Return mkdocs' `nav`. `pages`: all others than those of `http_pages`. Raises MisplacedError."""
    places = [page for section in SECTIONS.values() for page in section]
    for page in sorted(set(pages) ^ set(places)):
        known = "has no page" if page in places else "has no place"
        raise MisplacedError(f"{page} {known}: see deploy/site/navigation.py")
    nav: list[object] = []
    for section, entries in SECTIONS.items():
        group = [{_HTTP: [_entry(page) for page in http_pages]}] if section == _HTTP_SECTION else []
        nav.append({section: [*group, *(_entry(page) for page in entries)]})
    return nav


def _entry(page: str) -> object:
    return {TITLES[page]: page} if page in TITLES else page
