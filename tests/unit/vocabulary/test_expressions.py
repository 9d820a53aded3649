"""JMESPath over events ends soon, whatever it says."""

import pytest

from notifier.vocabulary.expressions import compiled, search

LIST = "`[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]`"
VIEW = {"payload": {"a": [1, 2, 3], "items": [{"n": number} for number in range(10_000)]}}


def _nested(depth: int) -> str:
    return "map(&" * depth + "a" + f", {LIST})" * depth


@pytest.mark.parametrize(
    "path",
    [
        " | ".join(["payload.a", *["[@,@][]"] * 20]),
        "[" * 12 + "@,@" + "],@" * 11 + "]",
        " | ".join(["payload", *["{a: @, b: @, c: @, d: @}"] * 6]),
    ],
)
def test_what_multiplies_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="multiply"):
        compiled(path)


@pytest.mark.parametrize("path", [_nested(8), " | ".join(["payload.items", *["[@,@][]"] * 9])])
def test_what_would_not_end_leads_nowhere(path: str) -> None:
    assert search(path, VIEW) is None


def test_what_a_filter_of_an_ordinary_kind_finds() -> None:
    assert search("payload.items[?n > `9998`].n", VIEW) == [9999]
    assert search("sort_by(payload.items, &n)[-1].n", VIEW) == 9999
    assert search("length(payload.items[].n)", VIEW) == 10_000
    assert search("{all: payload.a, most: max(payload.a)}", VIEW) == {"all": [1, 2, 3], "most": 3}
