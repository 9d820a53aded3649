"""Rendered templates: text, escaped HTML, and no object of Python."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from notifier.content import template_process as module
from notifier.content.template_process import Rendered, Source, TemplateProcess
from tests.support.rendering import failure, new_process, rendered, source


@pytest.fixture(scope="module")
def shared() -> Iterator[TemplateProcess]:
    """For the tests that leave its child alive, or do not mind. Filling its memory takes far less than its time."""
    yield from new_process(24 << 20)


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    yield from new_process()


# ── What they make ──


def test_three_parts_are_rendered_and_html_alone_is_escaped(shared: TemplateProcess) -> None:
    welcome = source("Hi {{ name }}!\n\nBye\n", subject="For\n {{ name }}\n", html="<b>{{ name }}</b>{{ name|safe }}")
    assert shared.render([(welcome, {"name": "Ada <a&b>"}), (source(html="{{ n }}"), {"n": None})]) == [
        Rendered("For Ada <a&b>", "Hi Ada <a&b>!\n\nBye", "<b>Ada &lt;a&amp;b&gt;</b>Ada <a&b>"),
        Rendered(None, None, ""),
    ]
    assert shared.render([]) == []


def test_a_subject_is_one_line_whatever_the_data(shared: TemplateProcess) -> None:
    hostile = {"name": "Ada\r\nBcc: all@x.test\u2028\v\x85x"}
    assert shared.render([(source(subject="Hi {{ name }}"), hostile)]) == [
        Rendered("Hi Ada Bcc: all@x.test x", None, None)
    ]


def test_data_arrive_as_they_are(shared: TemplateProcess) -> None:
    data = {"big": 2**64 - 1, "f": 1e2, "list": [1, "é😀", None, True], "self": {"items": 5}, "environment": 1}
    assert rendered(shared, "{{ big }} {{ f }} {{ list }} {{ environment }}", **data) == (
        "18446744073709551615 100.0 [1, 'é😀', None, True] 1"
    )


#: Names of a dict's methods and attributes, as an order or a shopping cart may well have them.
METHODS = sorted(name for name in dir(dict) if not name.startswith("_"))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "text",
    [
        "{{ payload.NAME }}",
        "{{ payload['NAME'] }}",
        "{{ payload|attr('NAME') }}",
        "{{ [payload]|map(attribute='NAME')|join }}",
        "{{ [payload]|map(attribute='NAME')|list|first }}",
        "{{ [payload]|sort(attribute='NAME')|map(attribute='NAME')|first }}",
        "{{ ([payload]|groupby('NAME')|first).grouper }}",
        "{{ [payload]|sum(attribute='NAME', start='') if false else payload.NAME }}",
        "{{ ([payload]|selectattr('NAME')|first).NAME }}",
        "{{ [payload]|join(attribute='NAME') }}",
        "{{ '{0.NAME}'.format(payload) }}",
        "{% set found = payload %}{% for each in [found] %}{{ each.NAME }}{% endfor %}",
    ],
)
def test_a_member_goes_before_a_method(shared: TemplateProcess, text: str, name: str) -> None:
    assert rendered(shared, text.replace("NAME", name), payload={name: "2 pens"}) == "2 pens"


def test_methods_are_there_where_no_member_has_their_name(shared: TemplateProcess) -> None:
    text = "{% for key, value in payload.items() %}{{ key }}={{ value }};{% endfor %}{{ payload.get('c', 'none') }}"
    assert rendered(shared, text, payload={"a": 1, "b": 2}) == "a=1;b=2;none"
    text = "{% for key, value in payload|items %}{{ key }}={{ value }};{% endfor %}"
    assert rendered(shared, text, payload={"items": 1, "b": 2}) == "items=1;b=2;"


#: Expressions whose value has no text of its own.
OBJECTS = [
    *("payload.items", "payload['items']", "payload|attr('items')", "payload.items()", "'x'.upper", "[].count"),
    *("range(3)", "['a']|map('upper')", "['a']|reverse", "namespace(a=1)", "cycler('a')", "joiner()", "made", "loop"),
    *("['a']|select", "{'a': payload.keys}", "[payload.values]", "dict", "self"),
]


WRITTEN = [
    *(
        "{{ X }}",
        "{{ 'x' ~ X }}",
        "{{ X ~ 'x' }}",
        "{{ X|string }}",
        "{{ X|safe }}",
        "{{ X|e }}",
        "{{ X|forceescape }}",
    ),
    *(
        "{{ X|upper }}",
        "{{ X|title }}",
        "{{ X|trim }}",
        "{{ X|center(80) }}",
        "{{ X|replace('a', 'b') }}",
        "{{ X|pprint }}",
    ),
    *(
        "{{ 'a'|replace('a', X) }}",
        "{{ [X]|join }}",
        "{{ ['a', X]|join(', ') }}",
        "{{ '%s' % X }}",
        "{{ '%s' % (X,) }}",
    ),
    *("{{ '%(a)s' % {'a': X} }}", "{{ '%s'|format(X) }}", "{{ '{}'.format(X) }}", "{{ '{!r}'.format(X) }}"),
    *("{{ '{a}'.format(a=X) }}", "{{ '{a}'.format_map({'a': X}) }}", "{{ X|urlencode }}", "{{ {'a': X}|urlencode }}"),
    *("{{ {'a': X}|xmlattr }}", "{{ X|wordcount }}", "{{ X|striptags }}", "{{ X|indent }}", "{{ X|urlize }}"),
    *("{{ ('a'|safe).replace('a', X) }}", "{{ (','|safe).join(['a', X]) }}", "{{ ('%s'|safe) % X }}"),
    *("{{ ('{}'|safe).format(X) }}", "{{ [[X]] }}", "{% filter upper %}{{ X }}{% endfilter %}", "{{ X|capitalize }}"),
    *("{% set a %}{{ X }}{% endset %}{{ a }}", "{% call made() %}{{ X }}{% endcall %}", "{{ X|truncate(99) }}"),
    *("{{ [1, 2]|join(X) }}", "{{ {X: 1}|urlencode }}", "{{ [(X, 1)]|urlencode }}", "{{ {'a': 1}|dictsort|join(X) }}"),
    *("{{ [X]|map('string')|join }}", "{{ X|lower }}", "{{ X|wordwrap }}", "{{ {'a': [X]} }}"),
]


#: Of what Python makes of an object, also where it was escaped.
SIGNS = ("<", "&lt;", "%3c", " at 0x", "range(", "dict_", "function")
_AROUND = "{% macro made() %}{{ caller() if caller else '' }}{% endmacro %}{% for n in [1] %}TEXT{% endfor %}"


@pytest.mark.parametrize("text", WRITTEN)
def test_no_object_is_ever_written(shared: TemplateProcess, text: str) -> None:
    for value in OBJECTS:
        written = _AROUND.replace("TEXT", text.replace("X", f"({value})"))
        for part in ("text", "html"):
            made = Source(uuid4(), "welcome", 3, None, *((written, None) if part == "text" else (None, written)))
            [answer] = shared.render([(made, {"payload": {"a": 1}})])
            if isinstance(answer, Rendered):
                shown = f"{answer.text}{answer.html}".lower()
                assert not any(sign in shown for sign in SIGNS), (value, shown)


def test_what_cannot_be_written_is_named(shared: TemplateProcess) -> None:
    assert failure(shared, "a\n{{ payload.items }}", payload={}) == (
        "welcome v3, text, line 2: payload.items: a method cannot be written"
    )
    assert failure(shared, "{{ ['a']|map('upper') }}").endswith(
        "a generator cannot be written; write |list or |join behind it"
    )
    named = failure(shared, "{{ payload.rows[0].get('a')|list|batch(2) }}", payload={"rows": [{"a": "bc"}]})
    assert "payload.rows[0].get(…)|list|batch: a generator cannot be written" in named
    assert failure(shared, "{{ ['a'] ~ [nothing] }}").endswith("'nothing' is undefined")


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'http://a.com'|urlize(target=X) }}",
        "{{ ('%r'.encode() % X).decode() }}",
        "{{ ('%(a)r'.encode() % {'a'.encode(): X}).decode() }}",
        "{{ [[1, 2]]|map('join', X)|list }}",
        "{{ ('{}'|attr('format'))(X) }}",
        "{{ 'a b'|wordwrap(1, wrapstring=X) }}",
    ],
)
def test_no_object_is_written_by_what_else_a_filter_or_a_method_takes(shared: TemplateProcess, text: str) -> None:
    for value in OBJECTS:
        written = _AROUND.replace("TEXT", text.replace("X", f"({value})"))
        [answer] = shared.render([(source(written), {"payload": {"a": 1}})])
        if isinstance(answer, Rendered):
            assert " at 0x" not in str(answer.text), (value, answer.text)
            assert "function" not in str(answer.text), (value, answer.text)


@pytest.mark.parametrize("text", ["{{ [X] }}", "{{ [X]|string }}", "{{ {'a': (X,)} }}", "{{ ['b', X]|map('e')|list }}"])
def test_escaped_texts_in_a_list_are_written_as_texts(shared: TemplateProcess, text: str) -> None:
    for value in ("payload.a|e", "payload.a|safe", "word()"):
        written = "{% macro word() %}w{% endmacro %}" + text.replace("X", value)
        made = Source(uuid4(), "welcome", 3, None, written, written)
        [answer] = shared.render([(made, {"payload": {"a": "b"}})])
        assert isinstance(answer, Rendered), answer
        assert "Markup" not in f"{answer.text}{answer.html}"


@pytest.mark.parametrize("text", WRITTEN)
def test_null_is_written_as_nothing(shared: TemplateProcess, text: str) -> None:
    nested = "[[X]]" in text or "[X]}" in text  # a list is written as Python writes it: |tojson says null
    written = _AROUND.replace("TEXT", text.replace("X", "name"))
    [plain] = shared.render([(source(written), {"name": None})])
    assert isinstance(plain, Rendered), plain
    assert ("none" in (plain.text or "").lower()) == nested


def test_null_can_be_asked_for(shared: TemplateProcess) -> None:
    text = (
        "Dear {{ name or 'customer' }}{{ name|default('x', true) }}{% if name is none %}!{% endif %}{{ [name]|tojson }}"
    )
    assert rendered(shared, text, name=None) == "Dear customerx![null]"
    assert rendered(shared, "Dear {{ name }}{{ ' ' ~ name }}.", name=None) == "Dear  ."


def test_surrogates_that_a_template_spells_become_characters(shared: TemplateProcess) -> None:
    assert rendered(shared, r"""{{ "\ud83d\ude00 \ud800 é" }}{{ n }}""", n="😀") == "😀 \ufffd é😀"


def test_a_template_is_compiled_once_and_known_by_its_id(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = source("{{ n }} one")
    assert process.render([(first, {"n": 1})])[0] == Rendered(None, "1 one", None)
    # Not sent again: a version never changes.
    again = Source(first.id, "welcome", 3, None, "other", None)
    assert process.render([(again, {"n": 2})])[0] == Rendered(None, "2 one", None)
    # Forgotten with the least recently used, and sent again.
    monkeypatch.setattr(module, "_KNOWN", 2)
    process.render([(source("a"), {}), (source("b"), {})])
    assert process.render([(again, {})])[0] == Rendered(None, "other", None)
    process.close()
    assert process.render([(first, {"n": 3})])[0] == Rendered(None, "3 one", None)
