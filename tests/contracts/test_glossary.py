"""The glossary: each word stands once, with one sentence; stored words and rooms are those of the code."""

import re
from enum import StrEnum

import pytest

from notifier.vocabulary import states
from tests.support.paths import ROOT

ENUMS = {
    name: each for name, each in vars(states).items() if isinstance(each, type) and each.__module__ == states.__name__
}


def _sections() -> dict[str, list[tuple[str, str]]]:
    """The rows of each section's table: word and meaning."""
    page = (ROOT / "docs/glossary.md").read_text()
    return {
        part.partition("\n")[0]: re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", part, re.MULTILINE)[1:]
        for part in page.split("\n## ")[1:]
    }


SECTIONS = _sections()


def test_each_word_stands_once_with_one_sentence() -> None:
    for name, rows in SECTIONS.items():
        words = [word.casefold() for word, _ in rows]
        assert len(set(words)) == len(words), name
        for word, meaning in rows:
            assert re.fullmatch(r"[A-Z].*[^.]\.", meaning), f"{word}: {meaning}"
            assert not re.search(r"\. [A-Z]", meaning), f"{word} has several sentences"


def test_the_words_are_in_order() -> None:
    words = [word.casefold().replace("-", " ") for word, _ in SECTIONS["Words"]]
    assert words == sorted(words)


@pytest.mark.parametrize("name", ENUMS)
def test_the_words_of_each_state_are_those_of_the_code(name: str) -> None:
    values: type[StrEnum] = ENUMS[name]
    assert [word for word, _ in SECTIONS[name]] == [f"`{each}`" for each in values]


def test_the_rooms_are_those_of_the_code() -> None:
    rooms = {path.parent.name for path in (ROOT / "notifier").glob("*/__init__.py")}
    assert sorted(word for word, _ in SECTIONS["Rooms"]) == sorted(f"`{each}`" for each in rooms)


def test_nothing_else_is_in_it() -> None:
    assert set(SECTIONS) == {"Words", "Rooms", *ENUMS}
