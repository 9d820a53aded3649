"""JMESPath over events (https://jmespath.org/specification.html), bounded: whoever wrote it, it ends soon.

Paths come from those who administer, and meet what anybody sends. Some expressions double what they work on with every
step, or repeat a list within a list, so that a line of text would keep a worker busy for hours.
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
#: How often `[a, b]` and `{a: b}` may multiply what they select from, taken together.
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

    def visit_flatten(self, node: Any, value: Any) -> Any:  # noqa: ANN401
        return self._sized(super().visit_flatten(node, value))

    def visit_function_expression(self, node: Any, value: Any) -> Any:  # noqa: ANN401
        return self._sized(super().visit_function_expression(node, value))

    def _sized(self, result: Any) -> Any:  # noqa: ANN401
        """What no visit stands for, the elements of a new list, counts as well."""
        if isinstance(result, list):
            self._left -= len(result)
        return result


@functools.lru_cache(maxsize=10_000)
def compiled(path: str) -> ParsedResult:
    """A JMESPath expression, compiled. Raises ValueError, its message a sentence for the caller."""
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
    """A parsed expression and all that is in it."""
    yield node
    for child in node["children"]:
        if isinstance(child, dict):
            yield from _nodes(child)


def search(path: str, view: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- whatever stands there
    """What a path leads to in an event; None where it leads nowhere, or that takes too long to find out."""
    try:
        return _Counted().visit(compiled(path).parsed, view)
    except Exception:
        # The path does not fit what this event holds; besides its own errors JMESPath lets Python's through.
        return None


def is_false(found: object) -> bool:
    """Whether a filter's result means no. As JMESPath has it: a number is true, be it zero."""
    return found is None or found is False or (isinstance(found, str | list | dict) and not found)
