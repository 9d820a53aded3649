"""Strict JSON: what is checked is what is kept, whoever parses it."""

import contextlib
import json
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.request_bodies import parse
from notifier.planning import handlers
from notifier.planning.plans import Plan
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.strict_json import MAX_DEPTH, TWICE, NotJson, NotKept, items_in, names_twice, parse_object

DEEP = "[" * 60 + "]" * 60
#: Values that another parser would see if it takes the first of two members, or hands the text on.
HIDDEN = (r'"\ud800"', "1e999", "9" * 400, DEEP, r'"\u0000"', "1", "{}", r'{"\udfff": 1}')


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"payload": {"a": HIDDEN, "a": 1}}', "payload.a"),
        ('{"payload": {"a": 1, "a": HIDDEN}}', "payload.a"),
        ('{"payload": HIDDEN, "payload": {}}', "payload"),
        ('{"payload": {"x": [0, {"b": {"a": HIDDEN, "c": 2, "a": 1}}]}}', "payload.x.1.b.a"),
        (r'{"payload": {"a": HIDDEN, "\u0061": 1}}', "payload.a"),
        ('{"payload": {"": HIDDEN, "": 1}}', "payload."),
        ('{"event_type": "x", "event_type": "x", "payload": HIDDEN}', "event_type"),
    ],
)
def test_a_name_that_stands_twice_is_refused_by_its_path(text: str, path: str, hidden: str) -> None:
    with pytest.raises(NotKept) as refused:
        parse_object(text.replace("HIDDEN", hidden).encode())
    assert refused.value.errors[path] == [TWICE]


def test_several_are_named_but_not_thousands() -> None:
    text = '{"payload": {"a": 1, "a": 1, "b": {"c": 1, "c": 2, "c": 3}}, "x": 1, "x": 2}'
    with pytest.raises(NotKept) as refused:
        parse_object(text.encode())
    assert refused.value.errors == {"x": [TWICE], "payload.a": [TWICE], "payload.b.c": [TWICE]}
    many = ",".join(f'"{"n" * 300}{number}": 1, "{"n" * 300}{number}": 2' for number in range(1000))
    with pytest.raises(NotKept) as refused:
        parse_object(f"{{{many}}}".encode())
    assert len(str(refused.value)) < 10_000


@pytest.mark.parametrize("name", ["events", r"\u0065vents"])
def test_items_are_found_as_they_are_written(name: str) -> None:
    items = ['{"a": [1, {"b": "]}"}]}', "[]", r'"\ud800[,"', "-1.50", "{ }", "null", "1E999"]
    text = f' {{\n"{name}" :\t[ {" , ".join(items)} ]\r}} '
    assert items_in(text, "events") == items
    assert items_in('{"events":[]}', "events") == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"events": [1', NotJson),
        ('{"events": [1]} 2', NotJson),
        ("[]", NotKept),
        ("{}", NotKept),
        ('{"events": 5}', NotKept),
        ('{"events": [], "events": []}', NotKept),
        ('{"events": [], "more": 1}', NotKept),
        ('{"events": [' + "[" * 100_000, NotKept),
        ('{"events": [' + "9" * 5000 + "]}", NotKept),
    ],
)
def test_what_has_no_items_says_why(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        items_in(text, "events")


@pytest.mark.parametrize("text", ['{"a": ' + "[" * 100_000, '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"])
@pytest.mark.parametrize("before", ["", '"b": 1, "b": 2, '])
def test_what_is_much_too_deep_is_refused(text: str, before: str) -> None:
    with pytest.raises(NotKept) as refused:
        parse_object(text.replace("{", "{" + before).encode())
    assert refused.value.errors


@pytest.mark.parametrize(
    "text", ["", "{", "nothing", '{"a": NaN}', '{"a": 1, "a": NaN}', '{"a": 1, "a": 2', "\ufeff{}", '{"a": 01}']
)
def test_what_is_no_json_at_all_says_so(text: str) -> None:
    with pytest.raises(NotJson):
        parse_object(text.encode())


def test_as_deep_as_is_allowed_and_no_deeper() -> None:
    def nested(levels: int) -> bytes:
        return b'{"payload": ' + b"[" * levels + b"]" * levels + b"}"

    parse_object(nested(MAX_DEPTH))
    with pytest.raises(NotKept):
        parse_object(nested(MAX_DEPTH + 1))


#: Texts of JSON, hostile ones among them, written by hand since no library writes a name twice.
NAMES = st.sampled_from(["a", "b", "payload", "idempotency_key", r"\u0061", r"\ud800", r"\u0000", "é", r"\"", r"\\"])
LEAVES = st.one_of(
    st.sampled_from(
        ["1", "-0", "0.1", "1e5", "1E999", "-1e999", "1e-999", "null", "true", "9" * 400, str(2**64), str(-(2**63))]
    ),
    st.sampled_from([r'"\ud83d\ude00"', r'"\ud800"', r'"\u0000"', '"x:y\\"{"', r'"\\"', '""', DEEP]),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(max_size=5).map(json.dumps),
)


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members) + "}"


TEXTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda values: "[" + ",".join(values) + "]"),
        st.lists(st.tuples(NAMES, inner), max_size=4).map(_object),
    ),
    max_leaves=15,
)


@given(st.lists(st.tuples(NAMES, TEXTS), max_size=4).map(_object))
def test_what_is_accepted_is_the_same_to_every_parser(text: str) -> None:
    raw = text.encode()
    try:
        body = parse(raw)
    except (NotJson, Invalid):
        return
    assert json.loads(text) == body.document == msgspec.json.decode(raw) == orjson.loads(raw)
    assert not names_twice(raw)
    assert len(body.fingerprint("event")) == 32
    for name, value in body.document.items():
        assert orjson.loads(body.raw_member(name) or b"") == value

    def first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(pairs))

    assert json.loads(text, object_pairs_hook=first) == body.document


@given(st.binary(max_size=60))
def test_bytes_are_json_or_are_refused(raw: bytes) -> None:
    for wrapped in (raw, b'{"a": ' + raw + b"}", b'{"a": "' + raw + b'"}'):
        with contextlib.suppress(NotJson, Invalid):
            parse(wrapped).fingerprint("event")


@pytest.mark.parametrize(
    "content",
    [
        {"data": orjson.Fragment(b'{"a": 1e999, "a": 1}')},
        {"data": {"a": 2**63, "b": orjson.Fragment(b'{"c": 1, "c": 1}')}},
        {"body": "a\0b"},
        {"data": orjson.Fragment(DEEP.encode())},
        ["no object"],
    ],
)
def test_a_handlers_content_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    plan = Plan(user_id="u", content=content)
    monkeypatch.setattr(handlers, "_registered", lambda: (type("Entry", (), {"name": "x"})(),))
    monkeypatch.setattr(handlers, "_loaded", lambda _: lambda _: [plan])
    with pytest.raises(ValueError, match=r"."):
        handlers.plans({"event_type": "x"})
