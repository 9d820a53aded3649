"""Silenced lints: each names its rule, and has its reason on its line or in pyproject.toml."""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SILENCED = re.compile(r"#\s*(ruff:\s*)?noqa|#\s*type:\s*ignore|#\s*mypy:", re.IGNORECASE)
WITH_REASON = re.compile(r"# (noqa: [A-Z]+\d+(, [A-Z]+\d+)*|type: ignore\[[a-z-]+(, [a-z-]+)*\]) +(--?|#) \w+")


def comments() -> Iterator[tuple[Path, int, str]]:
    """Return the comments of all Python files: the file, the line and the text."""
    folders = [each for each in ROOT.iterdir() if each.is_dir() and not each.name.startswith(".")]
    for path in sorted([*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]):
        if "node_modules" not in path.parts:
            with tokenize.open(path) as file:
                for token in tokenize.generate_tokens(file.readline):
                    if token.type == tokenize.COMMENT:
                        yield path.relative_to(ROOT), token.start[0], token.string


def has_reason(comment: str) -> bool:
    """Return whether a comment silences nothing, or says what and why."""
    return not SILENCED.search(comment) or WITH_REASON.search(comment) is not None


def test_each_has_its_reason_on_its_line() -> None:
    found = list(comments())
    assert sum(SILENCED.search(text) is not None for _, _, text in found) > 100
    assert [f"{path}:{line}: {text}" for path, line, text in found if not has_reason(text)] == []


@pytest.mark.parametrize(
    ("comment", "good"),
    [
        ("# noqa: S603 -- our own command", True),
        ("# noqa: ANN401, N805 -- Jinja's", True),
        ("# type: ignore[arg-type, unused-ignore]  # decoded", True),
        ("# noqa is a word of Ruff's", False),
        ("# a plain comment", True),
        ("# noqa", False),
        ("# noqa: S603", False),
        ("# noqa: S603 our own command", False),
        ("# type: ignore", False),
        ("# type: ignore  # why", False),
        ("# type: ignore[arg-type]", False),
        ("# ruff: noqa: S603 -- a whole file", False),
        ("# mypy: ignore-errors", False),
    ],
)
def test_a_comment_is_read_as_ruff_and_mypy_read_it(comment: str, good: bool) -> None:
    assert has_reason(comment) is good


def test_each_rule_that_is_off_for_files_or_everywhere_has_its_reason() -> None:
    """In pyproject.toml: beside the rule, or beside the files where the rules stand on one line."""
    text = (ROOT / "pyproject.toml").read_text()
    lint = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.pylint]")]
    off = [line for line in lint.splitlines() if re.search(r'"[A-Z]+\d*",?\s*(#|$)|= \["[^\]]*"\]', line)]
    off = [line for line in off if not line.startswith("select")]
    assert len(off) > 10
    assert [line for line in off if not re.search(r"# \w+", line)] == []
    overrides = re.findall(r"^\[\[tool\.mypy\.overrides\]\]\n(.*)$", text, re.MULTILINE)
    assert overrides
    assert [line for line in overrides if not line.startswith("# ")] == []
