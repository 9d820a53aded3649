"""The built site: its pages as a browser has them, read by Python's own parser."""

import json
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

from tests.support.paths import ROOT

SITE: Final = ROOT / "build" / "site"
#: Attributes by which a browser loads something by itself; those of `a` lead elsewhere only when they are clicked.
_LOADING: Final = {"src", "srcset", "href", "data", "poster", "action", "xlink:href"}
#: The blocks that show how a text is laid out. Paragraphs are left out: lists have them or not, and look the same.
BLOCKS: Final = frozenset({"h1", "h2", "h3", "h4", "ul", "ol", "li", "pre", "table", "tr", "th", "td", "blockquote"})
_VOID: Final = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "path", "source", "wbr"}


@dataclass(slots=True)
class Page:
    """One page: what it loads, its ids, and the blocks and the text of its article."""

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    blocks: list[str] = field(default_factory=list)
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.page = Page()
        self._within = 1 if whole else 0
        self._skipped = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.page.ids |= {given["id"]} if "id" in given else set()
        where = self.page.links if tag == "a" else self.page.loads
        where += [value for name, value in given.items() if name in _LOADING]
        if tag == "article" or (self._within and tag not in _VOID):
            self._within += 1
        if self._within and tag in BLOCKS:
            self.page.blocks.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._within and tag not in _VOID:
            self._within -= 1

    def handle_data(self, data: str) -> None:
        if self._within:
            self.page.text += data


def read_html(html: str, *, whole: bool = False) -> Page:
    """Read a page, of which the article counts, or a fragment, which counts as a whole."""
    reader = _Reader(whole=whole)
    reader.feed(html)
    return reader.page


@cache
def all_pages() -> dict[Path, Page]:
    """Return every HTML file of the site, by its path."""
    return {file: read_html(file.read_text(encoding="utf-8")) for file in sorted(SITE.rglob("*.html"))}


def built_page(path: str) -> Page:
    """Return a page of the site by the path of its source, such as docs/guide.md."""
    return all_pages()[SITE / html_of(path)]


def html_of(path: str) -> str:
    """Return the path of the HTML that a source becomes."""
    source = Path(path)
    name = "index" if source.stem == "README" else source.stem
    return str(source.with_name(f"{name}.html"))


@cache
def search_entries() -> list[dict[str, Any]]:
    """Return the entries of the search index: pages and their sections."""
    entries: list[dict[str, Any]] = json.loads((SITE / "search/search_index.json").read_text(encoding="utf-8"))["docs"]
    return entries
