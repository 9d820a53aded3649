"""docs/guarantees.md: each promise names tests and faults that exist, and each fault shows something there."""

import ast
import re

from tests.chaos.every_fault import FAULTS
from tests.chaos.report import HEAD
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text()
PROMISES, REPORT = PAGE.split("<!-- report -->")
ROWS = [line for line in PROMISES.splitlines() if line.startswith("| ") and "shown by" not in line]
#: Faults have a hyphen, but for two; files, settings and headers have none, or capitals or points.
NAMED = set(re.findall(r"`([a-z]+-[a-z-]+|mix|migration)`", "\n".join(ROWS)))


def test_each_promise_names_a_test_or_a_fault() -> None:
    assert len(ROWS) > 15
    assert [row for row in ROWS if "::test_" not in row and not NAMED & set(re.findall(r"`([a-z-]+)`", row))] == []


def test_each_test_that_it_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    there = {
        file: {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        for file in {file for file, _ in named}
    }
    assert [f"{file}::{name}" for file, name in named if name not in there[file]] == []


def test_it_names_each_fault_and_no_others() -> None:
    assert set(FAULTS) == NAMED - {"webhook-id"}


def test_the_last_report_has_each_fault() -> None:
    assert HEAD in REPORT
    reported = {line.split(" | ")[0].removeprefix("| ") for line in REPORT.splitlines() if line.startswith("| ")}
    assert set(FAULTS) - reported == set()
