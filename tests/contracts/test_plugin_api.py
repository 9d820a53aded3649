"""The public face of Notifier: the documented examples import it and nothing else of ours."""

import ast
import re

import pytest

from notifier import plugin_api
from tests.support.paths import ROOT

OURS = {"api", "config", "deploy", "notifier", "tasks"}


def examples() -> list[tuple[str, str]]:
    """(page, code) of each Python example in the docs that imports something of ours."""
    pages = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    found = [
        (page.name, code)
        for page in pages
        for code in re.findall(r"^```py\w*\n(.*?)^```", page.read_text(), re.S | re.M)
    ]
    return [(page, code) for page, code in found if imported(code)]


def imported(code: str) -> list[tuple[str, list[str]]]:
    """(module, names) of each import of ours."""
    return [
        (node.module or "", [each.name for each in node.names])
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OURS
    ]


def test_there_are_examples() -> None:
    assert {page for page, _ in examples()} >= {"handlers.md", "providers.md"}


@pytest.mark.parametrize(("page", "code"), examples())
def test_examples_import_the_public_face_alone(page: str, code: str) -> None:
    for module, names in imported(code):
        assert module == "notifier.plugin_api", page
        assert set(names) <= set(plugin_api.__all__), page


def test_each_name_is_there_and_is_told_of() -> None:
    for name in plugin_api.__all__:
        assert hasattr(plugin_api, name)
        assert f"`{name}`" in (plugin_api.__doc__ or ""), name
