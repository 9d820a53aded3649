"""Progress of this process: a counter for long work, so that it can be distinguished from work that hangs."""

import itertools
from typing import Final

_steps: Final = itertools.count(1)
_done = 0


def note() -> None:
    """Count a step that has ended. May be called from any thread."""
    global _done  # noqa: PLW0603 -- it is the process that gets on
    _done = next(_steps)


def count() -> int:
    """Return how many steps have ended since the process began."""
    return _done
