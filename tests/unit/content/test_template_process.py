"""Templates in their child process: what they make, what they may not, and what stops them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from notifier.content import template_process as module
from notifier.content.template_process import Rendered, Source, TemplateFailed, TemplateProcess, check
from tests.support.paths import ROOT

#: Comparing these two takes 2**60 steps of C, in which Python looks at no signal: only a kill ends it.
UNSTOPPABLE = (
    "{% set ns = namespace(a=[], b=[]) %}"
    "{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
    "{{ ns.a == ns.b }}"
)
#: As endless as `loops` says.
ENDLESS = "{% for i in range(loops) %}\n{% for j in range(loops) %}{% endfor %}{% endfor %}done"
SECONDS = 0.2


@pytest.fixture(scope="module")
def shared() -> Iterator[TemplateProcess]:
    """For the tests that leave its child alive, or do not mind. Filling its memory takes far less than its time."""
    yield from _new_process(24 << 20)


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    yield from _new_process()


def _new_process(memory_bytes: int = 64 << 20) -> Iterator[TemplateProcess]:
    process = TemplateProcess(seconds=SECONDS, memory_bytes=memory_bytes)
    yield process
    process.close()


def source(text: str | None = None, *, subject: str | None = None, html: str | None = None) -> Source:
    return Source(uuid4(), "welcome", 3, subject, text, html)


def answer(process: TemplateProcess, text: str, **data: Any) -> Rendered | TemplateFailed:
    [only] = process.render([(source(text), data)])
    return only


def rendered(process: TemplateProcess, text: str, **data: Any) -> str:
    made = answer(process, text, **data)
    assert isinstance(made, Rendered), made
    assert made.text is not None
    return made.text


def failure(process: TemplateProcess, text: str, **data: Any) -> str:
    failed = answer(process, text, **data)
    assert isinstance(failed, TemplateFailed), failed
    return str(failed)


def pid_of(process: TemplateProcess) -> int:
    assert process._child is not None
    return process._child.process.pid


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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


# ── What is wrong with them ──


@pytest.mark.parametrize(
    ("text", "where_and_why"),
    [
        ("\n{{ nam }}", "line 2: 'nam' is undefined"),
        ("{{ user\n.nam }}\n", "line 2: 'dict object' has no attribute 'nam'"),
        ("\n\n{{ user['nam'] }}", "line 3: 'dict object' has no attribute 'nam'"),
        ("a\n{% for x in user %}\n{{ x }}\n{{ nam }}{% endfor %}", "line 4: 'nam' is undefined"),
        ("a\n{% if user %}\n\n{{ nam }}{% endif %}", "line 4: 'nam' is undefined"),
        ("\n{% if nam %}{% endif %}", "line 2: 'nam' is undefined"),
        ("\n{% if not user %}\n{% elif nam %}{% endif %}", "line 3: 'nam' is undefined"),
        ("{% if not user %}\na{% else %}\n{{ nam }}{% endif %}", "line 3: 'nam' is undefined"),
        ("{{ user.name }}\n{% for x in\n nam %}{{ x }}{% endfor %}", "line 2: 'nam' is undefined"),
        ("{% macro m(a) %}{{ a }}{% endmacro %}\n{{ m() }}", "line 1: parameter 'a' was not provided"),
        ("{% call user() %}{% endcall %}", "line 1: TypeError"),
        ("{% macro m() %}\n\n{{ nam }}{% endmacro %}\n\n\n{{ m() }}", "line 3: 'nam' is undefined"),
        ("{% set a %}\n{{ nam }}\n{% endset %}", "line 2: 'nam' is undefined"),
        ("\n{% block b %}\n{{ nam }}{% endblock %}", "line 3: 'nam' is undefined"),
        ("\n{% filter upper %}\n{{ nam }}\n{% endfilter %}", "line 3: 'nam' is undefined"),
        ("\n{{ user.name|sort(attribute='nam') }}", "line 2: 'str object' has no attribute 'nam'"),
        ("\n{{ 1 // user.zero }}", "line 2: ZeroDivisionError"),
        ("\n{{ user.name + 1 }}", "line 2: TypeError"),
        ("\n{{ broken }", "line 2: unexpected '}'"),
        ("\n{{ user|nofilter }}", "line 2: No filter named 'nofilter'."),
        ("\n{% include 'other' %}", "line 2: include, import and extends are not available"),
        ("\n{% import 'other' as o %}", "line 2: include, import and extends are not available"),
        ("\n{% extends 'other' %}", "line 2: include, import and extends are not available"),
        ("\n{% macro m() %}\n{{ m() }}{% endmacro %}{{ m() }}", "line 3: nested too deeply"),
    ],
)
def test_an_error_says_where_and_what(shared: TemplateProcess, text: str, where_and_why: str) -> None:
    assert failure(shared, text, user={"name": "Ada", "zero": 0}) == f"welcome v3, text, {where_and_why}"


def test_an_error_names_its_part(shared: TemplateProcess) -> None:
    jobs = [(source("fine", subject="{{ a }}"), {}), (source("{{ a }}", subject="b", html="\n{{ c }}"), {"a": 1})]
    assert [str(failed) for failed in shared.render(jobs)] == [
        "welcome v3, subject, line 1: 'a' is undefined",
        "welcome v3, html, line 2: 'c' is undefined",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "{{ prices[plan] }}",
        "{{ prices|attr(plan) }}",
        "{{ [prices]|map(attribute=plan)|join }}",
        "{{ [prices]|map(plan)|list }}",
        "{{ ('{0[' ~ plan ~ ']}').format(prices) }}",
        "{{ [1][code] }}",
        "{{ plan|round(1) }}",
        "{{ plan + 1 }}",
        "{{ prices.x() }}",
        "{{ namespace(unsafe_callable=True, x=plan)() }}",
        "{{ {}[[plan]] }}",
    ],
)
def test_an_error_shows_no_data(shared: TemplateProcess, text: str) -> None:
    message = failure(shared, text, prices={"x": "hunter2"}, plan="hunter2", code=1234567)
    assert "hunter2" not in message
    assert "1234567" not in message
    assert message.startswith("welcome v3, text, line 1: ")


def test_what_cannot_be_passed_on_costs_its_job(shared: TemplateProcess) -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": deep}
    levels: dict[str, Any] = {}
    for _ in range(200):
        levels = {"a": levels}
    text = source("{{ a|string|length }}")
    answers = shared.render([(text, deep), (text, levels), (text, {"a": 2**64}), (text, {"a": "\ud800"})])
    assert [type(one) for one in answers] == [TemplateFailed, Rendered, TemplateFailed, TemplateFailed]
    assert str(answers[0]) == "welcome v3: its data cannot be passed on: Recursion limit reached"
    assert answers[1] == Rendered(None, str(len(str(levels["a"]))), None)


def test_syntax_is_checked_without_data() -> None:
    assert check("{{ a }}", "{% if b %}{{ c|upper }}{% endif %}", None) == {}
    assert check("{{ a", "\n{{ a }", "{{ b }}") == {
        "subject": ["line 1: unexpected end of template, expected 'end of print statement'."],
        "text": ["line 2: unexpected '}'"],
    }
    assert check(None, "\n{% if a is nice %}\n{{ a|b }}{% endif %}", "{% include 'a' %}") == {
        "text": ["line 2: no test named 'nice'", "line 3: no filter named 'b'"],
        "html": ["line 1: include, import and extends are not available"],
    }
    assert check("{{ " + "(" * 5_000, "{{ " + "1" * 5_000 + " }}", "{{ 'x'|center(10**10) }}") == {
        "subject": ["nested too deeply"],
        "text": ["a number has too many digits"],
    }


# ── What they may not ──


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ payload.__init__.__globals__ }}",
        "{{ payload['__class__'] }}",
        "{{ payload|attr('__class__')|attr('__mro__') }}",
        "{{ [payload]|map(attribute='__class__')|join }}",
        "{{ '{0.__class__}'.format(payload) }}",
        "{{ '{a.__class__}'.format_map({'a': payload}) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum.__globals__ }}",
        "{{ range.__globals__ }}",
        "{{ dict.mro() }}",
        "{{ payload.list.append(1) }}",
        "{{ payload.update({'a': 1}) }}",
        "{% set payload.a = 1 %}",
    ],
)
def test_an_escape_is_refused(shared: TemplateProcess, text: str) -> None:
    assert failure(shared, text, payload={"list": [1]}).startswith("welcome v3, text, line 1: ")


LOOP = "{% for i in range(100000) %}"


@pytest.mark.parametrize(
    ("text", "where_and_why"),
    [
        ("{{ 'x' * 10**9 }}", ", line 1: '*' would make too large a value"),
        ("{{ 10**9 * [0] }}", ", line 1: '*' would make too large a value"),
        ("\n{{ 10**(10**8) }}", ", line 2: '**' would make too large a value"),
        ("{{ 2**30000 * 2**30000 * 2**30000 }}", ", line 1: '*' would make too large a value"),
        ("{{ ('f' * 20000)|int(base=16) % 7 }}", ", line 1: '%' would make too large a value"),
        ("{{ range(10**30) }}", ", line 1: range() is limited to 100000 numbers"),
        ("\n{{ 'x'|center(10**9) }}", ", line 2: needed too much memory"),
        ("\n{{ '%1000000000d'|format(1) }}", ", line 2: needed too much memory"),
        (
            "{% set n = namespace(a='xx') %}\n{% for i in range(50) %}\n{% set n.a = n.a ~ n.a %}{% endfor %}",
            ", line 3: needed too much memory",
        ),
        (
            "{% set n = namespace(a=[1]) %}{% for i in range(50) %}\n{% set n.a = n.a + n.a %}{% endfor %}",
            ", line 2: needed too much memory",
        ),
        (LOOP + "\n{{ range(100000)|list|join }}{% endfor %}", ", line 2: made over 1 MiB"),
        (LOOP + "{{ i }}{{ 'é' * 9 }}{% endfor %}", ", line 1: made over 1 MiB"),
        (LOOP + "\n" + LOOP + "{% endfor %}{% endfor %}", ", line 2: took over 0.2 s"),
        (LOOP + LOOP + "{{ '' }}{% endfor %}{% endfor %}", ", line 1: took over 0.2 s"),
        ("{{ 5|round(x) }}", ", line 1: took over 0.2 s"),
        ("{{ 5|round(-1000000000) }}", ", line 1: took over 0.2 s"),
    ],
)
def test_what_is_too_much_is_stopped(shared: TemplateProcess, text: str, where_and_why: str) -> None:
    assert failure(shared, text, x=-1_000_000_000) == f"welcome v3, text{where_and_why}"
    assert rendered(shared, "{{ n }}", n=1) == "1"


def test_output_is_counted_in_bytes_and_by_part() -> None:
    small = TemplateProcess(output_bytes=10)
    twice = source("{{ t }}{{ t }}", subject="{{ t }}", html="{{ t }}")
    fits, fails = small.render([(twice, {"t": "é123"}), (twice, {"t": "éé12"})])
    small.close()
    assert fits == Rendered("é123", "é123é123", "é123")
    assert str(fails) == "welcome v3, text, line 1: made over 10 bytes"


def test_memory_is_each_jobs_own(process: TemplateProcess) -> None:
    """What earlier jobs leave, constants that were compiled or cycles, is not counted against a later one."""
    cycle = source("{% set n = namespace() %}{% set n.me = n %}{% set n.a = 'x'|center(width) %}{{ width }}")
    assert process.render([(cycle, {"width": 9_000_000})] * 30) == [Rendered(None, "9000000", None)] * 30
    child = pid_of(process)
    for _ in range(2):
        constants = [source(f"{{% set a = 'x'|center({n}) %}}{{{{ n }}}}") for n in range(9_000_000, 9_000_020)]
        assert process.render([(one, {"n": 1}) for one in constants]) == [Rendered(None, "1", None)] * 20
    assert pid_of(process) != child  # it had kept too much, and was replaced


# ── Its process ──


def test_a_job_that_kills_the_child_costs_itself_alone(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.5)
    good, bad = source("{{ n }}"), source(UNSTOPPABLE)
    jobs = [(bad if n == 70 else good, {"n": n}) for n in range(140)]
    answers = process.render(jobs)
    assert str(answers.pop(70)) == "welcome v3: took over 0.2 s"
    assert answers == [Rendered(None, str(n), None) for n in range(140) if n != 70]


def test_a_child_that_is_killed_at_a_job_costs_that_job_alone(process: TemplateProcess) -> None:
    """As by the kernel, where memory is short."""
    good, slow = source("{{ n }}"), source(UNSTOPPABLE)
    answers: list[Rendered | TemplateFailed] = []
    jobs = [(good, {"n": 0}), (slow, {}), (good, {"n": 2})]
    thread = threading.Thread(target=lambda: answers.extend(process.render(jobs)))
    process.render([(good, {"n": 0})])
    child = pid_of(process)
    before = _cpu_ticks(child)
    thread.start()
    until(lambda: _cpu_ticks(child) > before + 5)
    os.kill(child, signal.SIGKILL)
    thread.join(60)
    assert answers[0] == Rendered(None, "0", None)
    assert str(answers[1]) == "welcome v3: its renderer ended (-9)"
    assert answers[2] == Rendered(None, "2", None)


def _cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_child_that_is_killed_between_two_calls_is_replaced(process: TemplateProcess) -> None:
    text = source("{{ n }}")
    for n in range(3):
        assert process.render([(text, {"n": n})]) == [Rendered(None, str(n), None)]
        child = pid_of(process)
        os.kill(child, signal.SIGKILL)  # it may look alive for a while yet
    until(lambda: not is_running(child))
    assert process.render([(text, {"n": 9})]) == [Rendered(None, "9", None)]
    assert pid_of(process) != child


def test_a_stopped_job_leaves_its_neighbours_alone(process: TemplateProcess) -> None:
    good, hungry, endless = source("{{ n }}"), source("{{ 'x'|center(n * 10**9) }}"), source(ENDLESS)
    process.render([(good, {"n": 0})])
    child = pid_of(process)
    jobs = [(good, {"n": 1}), (endless, {"loops": 10**5}), (hungry, {"n": 1}), (good, {"n": 2}), (hungry, {"n": 0})]
    assert [str(one) if isinstance(one, TemplateFailed) else one.text for one in process.render(jobs)] == [
        "1",
        "welcome v3, text, line 2: took over 0.2 s",
        "welcome v3, text, line 1: needed too much memory",
        "2",
        "x",
    ]
    assert pid_of(process) != child  # where the time was up, something of Jinja's may be half done


def test_a_template_that_is_stopped_again_and_again_gets_less_time(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless, other = source(ENDLESS), source(ENDLESS)
    jobs = [(endless, {"loops": loops}) for loops in (10**5, 1, 10**5, 10**5, 10**5, 1)]
    made = Rendered(None, "\ndone", None)
    assert [one if isinstance(one, Rendered) else str(one).partition(" over ")[2] for one in process.render(jobs)] == [
        *("0.2 s", made, "0.2 s", "0.2 s", "0.02 s", made),
    ]
    assert str(process.render([(other, {"loops": 10**5})])[0]).endswith("over 0.2 s")
    monkeypatch.setattr(module, "_STOPS_SECONDS", 0.0)  # the minute is over
    assert str(process.render([(endless, {"loops": 10**5})])[0]).endswith("over 0.2 s")


def test_threads_share_the_child(process: TemplateProcess) -> None:
    answers: dict[int, list[Rendered | TemplateFailed]] = {}

    def run(number: int) -> None:
        mine = source(f"{number} {{{{ n }}}}")
        answers[number] = [one for _ in range(3) for one in process.render([(mine, {"n": n}) for n in range(120)])]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: [Rendered(None, f"{number} {n}", None) for n in range(120)] * 3 for number in range(8)}


@pytest.mark.parametrize(("text", "rows", "turns"), [(ENDLESS, 12, 3), ("{{ loops }}", 20_000, 10)])
def test_a_big_batch_lets_others_between(process: TemplateProcess, text: str, rows: int, turns: int) -> None:
    good, of_many = source("{{ n }}"), source(text)
    many: list[Any] = []
    thread = threading.Thread(target=lambda: many.extend(process.render([(of_many, {"loops": 10**5})] * rows)))
    thread.start()
    until(process._lock.locked)
    for n in range(turns):
        assert process.render([(good, {"n": n})]) == [Rendered(None, str(n), None)]
    assert thread.is_alive()
    thread.join(60)
    assert len(many) == rows


def test_an_interrupted_caller_leaves_no_answers_behind(process: TemplateProcess) -> None:
    process.render([(source("a"), {})])
    child = pid_of(process)
    before = _cpu_ticks(child)

    def interrupt() -> None:
        until(lambda: not is_running(child) or _cpu_ticks(child) > before + 3)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        process.render([(source(ENDLESS), {"loops": 10**5})] * 20)
    signal.signal(signal.SIGUSR1, previous)
    thread.join()
    assert rendered(process, "{{ n }}", n=1) == "1"


def test_the_child_has_no_secrets_and_one_session_of_its_own(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@db/notifier")
    monkeypatch.chdir(tmp_path)  # it finds its module from anywhere, and nothing that lies there instead
    (tmp_path / "jinja2.py").write_text("raise SystemExit")
    assert rendered(process, "{{ n }}", n=1) == "1"
    child = Path(f"/proc/{pid_of(process)}")
    names = {line.partition(b"=")[0] for line in (child / "environ").read_bytes().split(b"\0") if line}
    assert names <= {b"PATH", b"PYTHONPATH", b"LD_LIBRARY_PATH", b"PYTHONHOME"}
    assert os.getsid(pid_of(process)) == pid_of(process)
    assert str((child / "fd/2").readlink()) == os.devnull
    limits = (child / "limits").read_text().splitlines()
    assert next(line.split()[4:6] for line in limits if line.startswith("Max core")) == ["0", "0"]


PARENT = """
import sys, uuid
from notifier.content.template_process import Source, TemplateProcess
process = TemplateProcess()
made = process.render([(Source(uuid.uuid4(), "a", 1, None, "{{ n }}", None), {"n": 1})])
print(process._child.process.pid, made[0].text, flush=True)
if sys.argv[1] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("ending", ["wait", "exit"])
def test_the_child_ends_with_its_parent(ending: str) -> None:
    root = str(ROOT)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={**os.environ, "PYTHONPATH": root},
    )
    with parent:
        assert parent.stdout is not None
        pid, text = parent.stdout.readline().split()
        assert text == b"1"
        if ending == "wait":
            assert is_running(int(pid))
            parent.kill()
    until(lambda: not is_running(int(pid)))


FORKING = """
import os, sys, uuid
from notifier.content.template_process import Rendered, Source, TemplateProcess
process, template = TemplateProcess(), Source(uuid.uuid4(), "a", 1, None, "{{ n }}", None)
process.render([(template, {"n": 1})])
forked = os.fork()
mine = [Rendered(None, str(n), None) for n in range(200)] if forked else [Rendered(None, "forked", None)] * 200
same = all(process.render([(template, {"n": one.text}) for one in mine]) == mine for _ in range(20))
if forked:
    same &= os.waitpid(forked, 0)[1] == 0
sys.exit(not same)
"""


def test_a_forked_process_has_a_child_of_its_own() -> None:
    root = str(ROOT)
    subprocess.run([sys.executable, "-c", FORKING], env={**os.environ, "PYTHONPATH": root}, timeout=60, check=True)


def test_it_closes_and_starts_again(process: TemplateProcess) -> None:
    process.close()
    assert rendered(process, "{{ n }}", n=1) == "1"
    child = pid_of(process)
    process.close()
    assert not is_running(child)
    assert rendered(process, "{{ n }}", n=2) == "2"


def test_a_child_that_cannot_start_is_nobodys_fault(process: TemplateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConnectionError, match="does not start"):
        process.render([(source("a"), {})])
    monkeypatch.undo()
    assert rendered(process, "a") == "a"
