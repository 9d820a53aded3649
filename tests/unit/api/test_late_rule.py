"""A rule compiles the code for its URLs when somebody asks for one, and makes the same as Werkzeug's."""

from typing import Any

import pytest
from werkzeug.routing import Map, Rule

from api.resources import LateRule, NameConverter

URLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}),
    ("plain", {"q": "a b", "more": ["1", "2"]}),
    ("named", {"user": "a/b", "append": "yes"}),
    ("numbered", {"number": 7, "rule": "x", "self": "y"}),
    ("first", {}),
)


def urls(kind: type[Rule]) -> list[tuple[str, str]]:
    """The URLs that rules of a kind make, with what is over in the query and without."""
    rules = [
        kind("/plain", endpoint="plain"),
        kind("/users/<name:user>", endpoint="named"),
        kind("/pages/<int:number>/", endpoint="numbered"),
        kind("/pages/", endpoint="first", defaults={"number": 1}),
    ]
    made = Map(rules, converters={"name": NameConverter}).bind("localhost")
    return [
        (made.build(endpoint, values, append_unknown=True), made.build(endpoint, values, append_unknown=False))
        for endpoint, values in URLS
    ]


def test_its_urls_are_those_of_any_rule() -> None:
    assert urls(LateRule) == urls(Rule)
    assert ("/plain?q=a+b&more=1&more=2", "/plain") in urls(LateRule)


def test_code_is_compiled_once_and_not_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []
    compile_builder = Rule._compile_builder

    def noting(rule: Rule, append_unknown: bool = True) -> Any:
        compiled.append(append_unknown)
        return compile_builder(rule, append_unknown)

    monkeypatch.setattr(Rule, "_compile_builder", noting)
    made = Map([LateRule("/plain", endpoint="plain")]).bind("localhost")
    assert made.match("/plain") == ("plain", {})
    assert compiled == []
    for _ in range(2):
        made.build("plain")
    assert compiled == [True]
