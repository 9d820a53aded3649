"""The built site: whole, loading nothing from elsewhere, to be searched, and laid out as GitHub shows the same pages.

`make docs` builds it and then runs these. mkdocs itself has checked each link and anchor.
"""

import re
from urllib.parse import unquote, urlsplit

import click
import pytest
from markdown_it import MarkdownIt

from api.description import operations
from config.settings import Settings
from deploy.commands.cli import cli
from deploy.site.http_reference import description, http_pages
from deploy.site.navigation import SECTIONS
from deploy.site.pages import written_pages
from tests.support.paths import ROOT
from tests.support.site_pages import SITE, all_pages, built_page, html_of, read_html, search_entries

WRITTEN = list(written_pages())
DESCRIPTION = description()
HTTP = [path for path in http_pages(DESCRIPTION) if path.endswith(".md")]
ALL = [*WRITTEN, "reference/cli.md", *HTTP]


@pytest.mark.parametrize("path", ALL)
def test_a_page_is_built_and_stands_in_the_navigation(path: str) -> None:
    assert built_page(path).text.strip()
    assert html_of(path) in _front_links()


def test_the_navigation_has_the_order_of_its_sections() -> None:
    order = [html_of(page) for pages in SECTIONS.values() for page in pages]
    assert [link for link in _front_links() if link in order] == order


def _front_links() -> list[str]:
    """The pages that the front page leads to, each once: the navigation comes first."""
    return list(dict.fromkeys(urlsplit(link).path for link in built_page("README.md").links))


def test_nothing_is_loaded_from_another_host() -> None:
    loaded = {(file.name, each) for file, page in all_pages().items() for each in page.loads}
    assert loaded
    assert not {(name, each) for name, each in loaded if urlsplit(each).netloc or each.startswith("//")}
    for sheet in SITE.rglob("*.css"):
        urls = re.findall(r"url\(([^)]*)\)|@import\s+([^;]+)", sheet.read_text(encoding="utf-8"))
        assert not [each for pair in urls for each in pair if re.match(r"""["']?(https?:)?//""", each)], sheet


def test_every_file_that_a_page_loads_is_there() -> None:
    for file, page in all_pages().items():
        for each in page.loads:
            path = unquote(urlsplit(each).path)
            if path and not each.startswith("data:") and file.name != "404.html":  # that one is for the top of a server
                assert (file.parent / path).exists(), f"{file.name}: {each}"


@pytest.mark.parametrize("path", ALL)
def test_the_words_of_a_page_are_in_the_search_index(path: str) -> None:
    own = [entry for entry in search_entries() if entry["location"].partition("#")[0] == html_of(path)]
    found = re.sub(r"<[^>]+>", "", " ".join(f"{entry['title']} {entry['text']}" for entry in own))
    words = set(re.findall(r"\w{3,}", built_page(path).text))
    assert len(words) > 5
    assert len(words & set(re.findall(r"\w{3,}", found))) > 0.9 * len(words)


def test_the_search_works_without_a_server() -> None:
    index = (SITE / "search/search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = {")
    assert "assets/iframe-worker.js" in built_page("README.md").loads


@pytest.mark.parametrize("path", WRITTEN)
def test_a_page_is_laid_out_as_github_shows_it(path: str) -> None:
    """Python-Markdown wants four spaces for what belongs to an item of a list, and an empty line before a list."""
    github = MarkdownIt("commonmark").enable("table").render((ROOT / path).read_text(encoding="utf-8"))
    assert built_page(path).blocks == read_html(github, whole=True).blocks


def test_each_operation_has_a_section() -> None:
    ids = {id_ for path in HTTP for id_ in built_page(path).ids}
    for operation in operations(DESCRIPTION):
        assert operation["operationId"] in ids
    schemas = built_page("reference/http/schemas.md").ids
    assert {name.lower() for name in DESCRIPTION["components"]["schemas"]} <= schemas


def test_each_command_has_a_section() -> None:
    page = built_page("reference/cli.md")
    context = click.Context(cli, info_name="manage.py")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert name in page.ids
        if isinstance(command, click.Group):
            assert {f"{name}-{each}" for each in command.list_commands(context)} <= page.ids


def test_each_setting_is_there() -> None:
    text = built_page("docs/settings.md").text
    for entry in Settings.__dataclass_fields__.values():
        assert entry.metadata["env"] in text
