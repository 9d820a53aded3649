"""Errors of templates, and things that no template may do."""

from collections.abc import Iterator
from typing import Any

import pytest

from notifier.content.template_process import Rendered, TemplateFailed, TemplateProcess, check
from tests.support.rendering import failure, new_process, pid_of, rendered, source


@pytest.fixture(scope="module")
def shared() -> Iterator[TemplateProcess]:
    """For the tests that leave its child alive, or do not mind. Filling its memory takes far less than its time."""
    yield from new_process(24 << 20)


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    yield from new_process()


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
        (LOOP + "\n{{ ['x' * 100000, i]|join }}{% endfor %}", ", line 2: made over 1 MiB"),
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
    """Leftovers of earlier jobs, constants that were compiled or cycles, is not counted against a later one."""
    cycle = source("{% set n = namespace() %}{% set n.me = n %}{% set n.a = 'x'|center(width) %}{{ width }}")
    assert process.render([(cycle, {"width": 9_000_000})] * 30) == [Rendered(None, "9000000", None)] * 30
    child = pid_of(process)
    for _ in range(2):
        constants = [source(f"{{% set a = 'x'|center({n}) %}}{{{{ n }}}}") for n in range(9_000_000, 9_000_020)]
        assert process.render([(one, {"n": 1}) for one in constants]) == [Rendered(None, "1", None)] * 20
    assert pid_of(process) != child  # it had kept too much, and was replaced
