"""The documents: each link leads somewhere, and each file that they name is there."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

_OTHERS = (ROOT / "benchmarks/README.md", ROOT / "clients/python/README.md")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *_OTHERS])
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_OURS = ("api", "benchmarks", "clients", "config", "deploy", "docs", "notifier", "tasks", "tests")


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in _anchors(other), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_each_file_that_is_named_is_there(page: Path) -> None:
    """The changelog names files of its day."""
    for path in re.findall(rf"`((?:{'|'.join(_OURS)})/[\w/.-]+\.(?:py|md|yml|json|html|js|conf))", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_changelog_has_each_kind_of_change_once_in_a_version() -> None:
    """As Keep a Changelog has it."""
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    for version in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        found = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert sorted(set(found)) == sorted(found)
        assert set(found) <= set(kinds)
