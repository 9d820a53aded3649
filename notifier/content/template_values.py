"""Values as templates write them: texts, numbers, lists and objects of these, and null as nothing.

Other values are refused. Python would write a method, a generator or a loop as its type and address, which means
nothing to a reader and may reveal internals; `None` is Python's own word.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jinja2 import Undefined, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, do_join, do_urlencode, do_xmlattr, make_attrgetter
from jinja2.nodes import EvalContext
from markupsafe import Markup

#: Filters that make text of their first value, whatever it is.
_TEXT_FILTERS: Final = (
    *("capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "pprint", "replace", "safe"),
    *("string", "striptags", "title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap"),
)
#: Filters whose further arguments go into the text.
_WHOLE_FILTERS: Final = frozenset({"format", "replace"})
#: Methods of texts for which None means the default.
_NONE_IS_DEFAULT: Final = frozenset({"split", "rsplit", "strip", "lstrip", "rstrip"})
_HINTS: Final = {"generator": "; write |list or |join behind it", "range": "; write |list behind it"}


def shown(value: Any, expression: str = "") -> Any:  # noqa: ANN401 -- any value of a template's
    """Return a value as it may be written: None as an empty text, all else as it is. Raises SecurityError.

    `expression`: its source in the template, for the error.
    """
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return value
    try:
        _check(value)
    except SecurityError as error:
        raise SecurityError(f"{expression}: {error}" if expression else str(error)) from None
    return _unmarked(value)


def _unmarked(value: object) -> object:
    """Return a value whose texts within are plain: Python would write one that is escaped as `Markup('…')`."""
    if isinstance(value, Markup):
        return str.__str__(value)
    if isinstance(value, dict):
        return {_unmarked(name): _unmarked(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_unmarked(each) for each in value]
    return tuple(_unmarked(each) for each in value) if isinstance(value, tuple) else value


def _check(value: object) -> None:
    if value is None or isinstance(value, str | int | float):
        return
    if isinstance(value, Undefined):
        str(value)  # raises what says which name is missing
    elif isinstance(value, dict):
        for name, member in value.items():
            _check(name)
            _check(member)
    elif isinstance(value, list | tuple):
        for element in value:
            _check(element)
    else:
        kind = type(value).__name__
        named = "method" if kind == "builtin_function_or_method" else kind
        raise SecurityError(f"a {named} cannot be written{_HINTS.get(kind, '')}")


def shown_operand(value: object) -> object:
    """Return the right operand of `%` behind a text as it may be written. Raises SecurityError."""
    if isinstance(value, tuple):
        return tuple(map(shown, value))
    if isinstance(value, dict):
        return {name: shown(member) for name, member in value.items()}
    return shown(value)


def shown_arguments(method: str, arguments: Iterable[object]) -> list[object]:
    """Return the arguments of a text's method as they may be written. Raises SecurityError."""
    given = list(arguments)
    if method == "join" and given and isinstance(given[0], Iterable):
        return [[shown(each) for each in given[0]], *given[1:]]
    if method in _NONE_IS_DEFAULT:
        for each in given:
            _check(each)
        return given
    return [shown(each) for each in given]


def _of_text(filter_: Callable[..., Any], *, whole: bool) -> Callable[..., Any]:
    """Make a filter see its value as it may be written; with `whole`, all its arguments."""
    at = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @functools.wraps(filter_)
    def filtered(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 -- any filter's
        before, value, rest = arguments[:at], arguments[at], arguments[at + 1 :]
        if whole:
            rest, options = tuple(map(shown, rest)), {name: shown(each) for name, each in options.items()}
        for each in (*rest, *options.values()):  # None is a default there
            _check(each)
        return filter_(*before, shown(value), *rest, **options)

    return filtered


@pass_eval_context
def _join(context: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    joined: str = do_join(context, map(shown, value), shown(d))
    return joined


def _urlencode(value: Any) -> str:  # noqa: ANN401 -- a text, an object, or pairs
    if isinstance(value, str):
        return do_urlencode(value)
    if isinstance(value, Mapping):
        return do_urlencode([(shown(name), shown(member)) for name, member in value.items()])
    if isinstance(value, list | tuple):
        return do_urlencode([(shown(name), shown(member)) for name, member in value])
    return do_urlencode(str(shown(value)))


@pass_eval_context
def _xmlattr(context: EvalContext, d: Mapping[str, Any], autospace: bool = True) -> str:
    for member in d.values():
        if not isinstance(member, Undefined):  # left out, like None
            _check(member)
    return do_xmlattr(context, d, autospace)


def filters() -> dict[str, Callable[..., Any]]:
    """Return Jinja's filters, with those that make text of values in forms that refuse other types."""
    texts = {name: _of_text(FILTERS[name], whole=name in _WHOLE_FILTERS) for name in _TEXT_FILTERS}
    return {**FILTERS, **texts, "join": _join, "urlencode": _urlencode, "xmlattr": _xmlattr}
