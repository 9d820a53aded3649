"""Tests are found by their subject: a file has one, and what several files share stands in tests/support."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

FILES: Final = sorted((ROOT / "tests").rglob("*.py"))
#: Lines. A longer file has more than one subject.
LONGEST: Final = 500


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def test_nothing_is_imported_from_a_test_file() -> None:
    tests = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES if file.stem.startswith("test_")}
    assert not [(file.name, name) for file in FILES for name in imported(file) if name in tests]


def test_no_file_is_too_long() -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert not {name: count for name, count in lines.items() if count > LONGEST}
