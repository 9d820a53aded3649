"""A walk through the console: from page to page by its links, each looked at as people with different needs see it."""

import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from tests.services.browser import DESK, TELEPHONE, Browser
from tests.services.samples import MARKUP

#: Pages that differ by their ids and values alone: so many of each are looked at, and the others only loaded.
_OF_A_SHAPE: Final = 2
#: Paths of the console are its sections, each with the pages of single things below it.
_SECTION: Final = 2
#: A message in its frame is markup of others, which its policy keeps from doing anything; the browser says so.
_IN_A_FRAME: Final = re.compile(r"/message\?|sandboxed|about:srcdoc")
#: All texts of a page, also those in fields.
_TEXTS: Final = """
    const fields = Array.from(document.querySelectorAll("textarea, input"), (each) => each.value)
    return [document.body.innerText, ...fields].join("\\n")
"""
_TAKEN_FOR_MARKUP: Final = """
    const found = Array.from(document.querySelectorAll("x-pwned, img[src=x], svg[onload]"), (each) => each.outerHTML)
    if (window.pwned !== undefined) found.push("a script ran")
    for (const each of document.querySelectorAll("*"))
        for (const {name} of each.attributes)
            if (name.startsWith("on") || name === "style") found.push(`${each.tagName} has an attribute ${name}`)
    return found
"""


@dataclass(slots=True)
class Walk:
    """The faults of each page by its path, by the kind of fault, and the paths of all pages."""

    loading: dict[str, list[str]] = field(default_factory=dict)
    axe: dict[str, list[str]] = field(default_factory=dict)
    narrow: dict[str, list[str]] = field(default_factory=dict)
    markup: dict[str, list[str]] = field(default_factory=dict)
    structure: dict[str, list[str]] = field(default_factory=dict)
    #: Path → bytes.
    weights: dict[str, int] = field(default_factory=dict)
    #: Paths of pages on which the markup of others stands as text.
    marked: set[str] = field(default_factory=set)

    @property
    def paths(self) -> list[str]:
        """All pages that were looked at."""
        return list(self.weights)


def shape(path: str) -> str:
    """A path without ids, names and values: pages of one shape come from one template."""
    parts = urlsplit(path)
    steps = parts.path.strip("/").split("/")
    kept = [step if number < _SECTION else "*" for number, step in enumerate(steps)]
    names = sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)})
    return "/".join(kept) + "?" + ",".join(names)


def walk(browser: Browser, seeds: Iterable[str]) -> Walk:
    """Go from `/console` and the seeds to each page that links lead to."""
    found, seen = Walk(), dict.fromkeys(["/console", *seeds])
    waiting, shapes, always = deque(seen), Counter[str](), set(seen)
    while waiting:
        path = waiting.popleft()
        shapes[shape(path)] += 1
        if path not in always and shapes[shape(path)] > _OF_A_SHAPE:
            continue
        for link in _look(browser, path, found):
            if link not in seen:
                seen[link] = None
                waiting.append(link)
    return found


def _look(browser: Browser, path: str, found: Walk) -> list[str]:
    """Note what is wrong with a page; returns the paths that its links lead to."""
    browser.resize(DESK)
    browser.prefer("light")
    visit = browser.visit(path)
    found.weights[path] = visit.weight
    _note(found.loading, path, [each for each in visit.faults() if not _IN_A_FRAME.search(each)])
    _note(found.structure, path, structure(browser))
    _note(found.markup, path, browser.run(_TAKEN_FOR_MARKUP))
    if MARKUP in browser.run(_TEXTS):
        found.marked.add(path)
    links = _own(browser.links())
    _note(found.axe, path, [f"light, wide: {each}" for each in browser.findings()])
    browser.resize(TELEPHONE)
    browser.prefer("dark")
    _note(found.narrow, path, browser.overflow())
    _note(found.axe, path, [f"dark, narrow: {each}" for each in browser.findings()])
    return links


def structure(browser: Browser) -> list[str]:
    """Everything that a page lacks of what all pages have."""
    counts = {css: len(browser.all(css)) for css in ("h1", "main#main", "nav", "form[role=search]", "html[lang]")}
    faults = [f"has {count} of {css}" for css, count in counts.items() if count != 1]
    heading = browser.text("h1") if counts["h1"] else ""
    faults += [] if heading.strip() else ["has an empty h1"]
    faults += [] if browser.driver.title.endswith(" · Notifier") else [f"has the title {browser.driver.title!r}"]
    return faults


def _note(where: dict[str, list[str]], path: str, faults: list[str]) -> None:
    if faults:
        where.setdefault(path, []).extend(faults)


def _own(links: list[str]) -> list[str]:
    paths = []
    for link in links:
        parts = urlsplit(link)
        if parts.path == "/console" or parts.path.startswith("/console/"):
            paths.append(parts.path + (f"?{parts.query}" if parts.query else ""))
    return paths
