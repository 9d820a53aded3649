"""All pages of the site: those of git, as they stand there, so that their links hold; and those of the code."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml

from deploy.site.cli_reference import cli_page
from deploy.site.http_reference import description, http_pages
from deploy.site.navigation import TITLES, navigation

ROOT: Final = Path(__file__).resolve().parents[2]
_THEME: Final = Path(__file__).with_name("theme")
#: Files that pages link to and that are no pages.
_FILES: Final = ("LICENSE",)
#: Folders of pictures that pages show.
_PICTURES: Final = ("docs/flames", "docs/screenshots")
#: Pages outside docs/.
_OUTSIDE: Final = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "clients/python/README.md",
)

#: A link whose words are the name of its page: the name, and the page.
_NAMED_LINK: Final = re.compile(r"\[(?:docs/)?([\w-]+\.md)\](\([\w./-]+(?:#[\w-]+)?\))")


def written_pages() -> Iterator[str]:
    """Yield the pages of git, by their paths."""
    yield from _OUTSIDE
    yield from sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))


def gather(folder: Path) -> None:
    """Write all pages below `folder`, and mkdocs' configuration beside them. Raises MisplacedError."""
    http = http_pages(description())
    generated = {"reference/cli.md": cli_page(), **http}
    # Asked for first: a page without a place changes nothing.
    nav = navigation([*written_pages(), "reference/cli.md"], [path for path in http if path.endswith(".md")])
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    titles = {Path(path).name: title_of(path) for path in written_pages() if Path(path).stem != "README"}
    for path, content in [*generated.items(), *((path, _text_of(path)) for path in written_pages())]:
        _write(source / path, with_titles(content, titles) if path.endswith(".md") else content)
    for path in _FILES:
        _write(source / path, _text_of(path))
    for path in _PICTURES:
        shutil.copytree(ROOT / path, source / path)
    shutil.copytree(_THEME / "assets", source / "assets")
    _write(folder / "mkdocs.yml", _configuration(folder, nav))


def _configuration(folder: Path, nav: list[object]) -> str:
    """Return mkdocs' configuration: the one of this folder, and what depends on the pages."""
    base = Path(__file__).with_name("mkdocs.yml")
    ours = {"INHERIT": os.path.relpath(base, folder), "docs_dir": "source", "site_dir": "../site", "nav": nav}
    return yaml.safe_dump(ours, sort_keys=False, allow_unicode=True)


def with_titles(text: str, titles: Mapping[str, str]) -> str:
    """Have links say the titles of pages, where GitHub's readers know them by the names of their files."""
    return _NAMED_LINK.sub(lambda found: f"[{titles.get(found[1], found[1])}]{found[2]}", text)


def title_of(path: str) -> str:
    """Return the title of a page of git, as the navigation has it."""
    return TITLES.get(path) or _text_of(path).partition("\n")[0].removeprefix("# ")


def _text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
