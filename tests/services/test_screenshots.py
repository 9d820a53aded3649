"""Pictures of the console's pages can be drawn, and the docs have all of them."""

from pathlib import Path

import pytest

from tests.services.screenshots import FOLDER, PICTURES, draw


@pytest.mark.timeout(180)
def test_a_picture_is_drawn(tmp_path: Path) -> None:
    [file] = draw(tmp_path / "new", only="overview")
    assert file.name == "overview.webp"
    assert file.read_bytes()[8:12] == b"WEBP"


def test_the_docs_have_each_picture() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == {each.name for each in PICTURES}
