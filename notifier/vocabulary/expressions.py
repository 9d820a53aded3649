"""JMESPath over events (https://jmespath.org/specification.html), with bounded evaluation time.

Administrators write the expressions, and they are applied to payloads from any caller. Some expressions double their
data with every step, or repeat a list within a list, so that a single line could keep a worker busy for hours.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.parser import ParsedResult
from jmespath.visitor import TreeInterpreter

_LONGEST: Final = 2000
#: How often `[a, b]` and `{a: b}` may multiply their selection, taken together.
_MOST_COPIES: Final = 1000
#: Nodes visited and elements looked at in one search: some tenths of a second. The largest event has half as many.
_MOST_STEPS: Final = 500_000


class _TooMuch(Exception):
    """A search takes more than _MOST_STEPS."""


class _Counted(TreeInterpreter):
    """Evaluates an expression, and gives up where that takes too long."""

    def __init__(self) -> None:
        super().__init__()
        self._left = _MOST_STEPS

    def visit(self, node: Any, value: Any) -> Any:  # noqa: ANN401 -- JSON, or an expression
        self._left -= 1
        if self._left < 0:
            raise _TooMuch
        return super().visit(node, value)

    def visit_flatten(self, node: Any, value: Any) -> Any:  # noqa: ANN401 -- JMESPath's visitors take any JSON
        return self._sized(super().visit_flatten(node, value))

    def visit_function_expression(self, node: Any, value: Any) -> Any:  # noqa: ANN401 -- JMESPath's visitors take any JSON
        return self._sized(super().visit_function_expression(node, value))

    def _sized(self, result: Any) -> Any:  # noqa: ANN401 -- any JSON
        """Count the elements of a new list too, because they are created without a visit."""
        if isinstance(result, list):
            self._left -= len(result)
        return result


@functools.lru_cache(maxsize=10_000)
def compiled(path: str) -> ParsedResult:
    """Compile a JMESPath expression. Raises ValueError with a sentence for the caller as its message."""
    if len(path) > _LONGEST:
        raise ValueError(f"Longer than {_LONGEST} characters.")
    try:
        expression = jmespath.compile(path)
        nodes = list(_nodes(expression.parsed))
    except JMESPathError as error:
        raise ValueError(f"Not a JMESPath expression: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("Not a JMESPath expression: nested too deeply.") from None
    unknown = {node["value"] for node in nodes if node["type"] == "function_expression"} - set(Functions.FUNCTION_TABLE)
    if unknown:
        raise ValueError(f"Not a JMESPath expression: there is no function {sorted(unknown)[0]}().")
    if math.prod(len(node["children"]) for node in nodes if node["type"].startswith("multi_select")) > _MOST_COPIES:
        raise ValueError("Its selections multiply what they select from too often.")
    return expression


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a parsed expression and all its nodes."""
    yield node
    for child in node["children"]:
        if isinstance(child, dict):
            yield from _nodes(child)


def search(path: str, view: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- whatever stands there
    """Return the value at a path in an event; None if there is none, or if the evaluation takes too long."""
    try:
        return _Counted().visit(compiled(path).parsed, view)
    except Exception:
        # The path does not fit this event's data; besides its own errors JMESPath lets Python's through.
        return None


def is_false(found: object) -> bool:
    """Return whether a filter's result is false by JMESPath's rules. A number is true, even zero."""
    return found is None or found is False or (isinstance(found, str | list | dict) and not found)
