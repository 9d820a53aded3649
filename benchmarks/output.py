"""The figures of a benchmark, as a table for people or as one JSON line for programs."""

import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table


def show(figures: Any, table: Callable[[Any], Table], *, as_json: bool) -> None:
    """Print figures. Where the table does not go to a terminal, it is 140 characters wide."""
    if as_json:
        print(json.dumps(figures))
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(table(figures))


def progress() -> Progress:
    """Return a place for progress bars on stderr, which leave nothing behind."""
    return Progress(console=Console(stderr=True), transient=True)
