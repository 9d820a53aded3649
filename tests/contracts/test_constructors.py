"""Constructors of more than four parameters take them by name: positions of so many are mixed up unseen."""

import ast
from collections.abc import Iterator

from tests.support.paths import ROOT

PACKAGES = ("api", "config", "deploy", "notifier", "tasks")
MOST = 4


def constructors() -> Iterator[tuple[str, ast.arguments]]:
    """Name and parameters of each constructor that is written by hand."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for each in ast.walk(ast.parse(path.read_text())):
                if isinstance(each, ast.ClassDef):
                    for member in each.body:
                        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                            yield f"{path.relative_to(ROOT)}: {each.name}", member.args


def test_no_constructor_takes_more_than_four_by_position() -> None:
    found = dict(constructors())
    assert len(found) > 50
    assert [name for name, each in found.items() if len(each.posonlyargs + each.args) - 1 > MOST] == []
