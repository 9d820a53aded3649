"""Pictures of the console: all are shown, and each is light."""

from typing import Final

from tests.support.paths import ROOT

PAGE: Final = (ROOT / "docs/console.md").read_text(encoding="utf-8")
PICTURES: Final = sorted((ROOT / "docs/screenshots").iterdir())
#: Bytes.
LARGEST: Final = 100_000


def test_each_picture_is_shown() -> None:
    assert PICTURES
    assert [file.name for file in PICTURES if f"(screenshots/{file.name})" not in PAGE] == []


def test_each_picture_is_light() -> None:
    assert {file.name: size for file in PICTURES if (size := file.stat().st_size) > LARGEST} == {}
