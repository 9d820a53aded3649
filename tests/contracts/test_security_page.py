"""docs/security.md: each protection names tests that exist, and every party of the threat model has some."""

import ast
import re

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_each_test_that_it_names_is_there() -> None:
    assert len(NAMED) > 50
    there = {
        file: {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        for file in {file for file, _ in NAMED}
    }
    assert [f"{file}::{name}" for file, name in NAMED if name not in there[file]] == []


@pytest.mark.parametrize(
    "party",
    ["caller", "stranger", "person who receives", "receiver of webhooks", "vendor", "operator", "neighbour", "broker"],
)
def test_each_party_has_its_threats_and_their_tests(party: str) -> None:
    [section] = [each for each in PAGE.split("\n### ") if party in each.split("\n", 1)[0]]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert rows
    assert [row for row in rows if "::test_" not in row] == []
