"""Output on the terminal: text, tables and progress of all commands.

Errors, subjects, bodies, names and addresses are other people's text. Here it becomes characters that have a shape of
their own: none that steers a terminal, turns the direction of writing or means markup. And what a terminal's encoding
lacks is written another way, since no command may fail for want of a character.

rich, which takes longer to import than most commands need, is imported where a table or a progress bar is drawn.
"""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

import click
import orjson

from notifier.security.redaction import masked_text, opened_text
from notifier.vocabulary import untrusted_text
from notifier.vocabulary.masking import masked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

#: Columns of a cell with several words, below which it is not wrapped.
_NARROWEST: Final = 24
#: Wider than any table: a pipe has no width.
_UNLIMITED: Final = 100_000
#: ASCII substitutes for our own characters, used where the encoding lacks them.
_IN_ASCII: Final = {
    **{"…": "...", "–": "-", "—": "-", "→": "->", "✔": "+", "✘": "x", "’": "'", "\u00a0": " "},
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("─━", "-"),
}
_SUBSTITUTING: Final = "notifier-terminal"
_ASCII: Final = "notifier_ascii"


#: How sealed addresses are opened, where credentials are shown.
_opened: Final = ContextVar[Callable[[str], str] | None]("opened", default=None)


@contextmanager
def reveal_credentials(opened: Callable[[str], str]) -> Iterator[None]:
    """Show the credentials in URLs within this context; elsewhere they are `***`. `opened` opens a sealed address."""
    token = _opened.set(opened)
    try:
        yield
    finally:
        _opened.reset(token)


def shown_address(address: str) -> str:
    """Return an address as it may be shown here."""
    opened = _opened.get()
    return masked(address) if opened is None else opened(address)


def reveals_credentials() -> bool:
    """Tell whether credentials are to be shown."""
    return _opened.get() is not None


def printable(text: object, *, lines: bool = False) -> str:
    """Return text as `untrusted_text.printable` does, its credentials in URLs masked unless they are asked for."""
    opened = _opened.get()
    shown = masked_text(str(text)) if opened is None else opened_text(str(text), opened)
    return untrusted_text.printable(shown, lines=lines)


def say(*parts: object, lines: bool = False, err: bool = False, **style: Any) -> None:  # noqa: ANN401 -- click.style's
    """Write a line, of parts of which each may be a (text, colour).

    `lines`: it may be several. `style`: what `click.style` takes for all of it, such as `bold=True`.
    """
    shown = "".join(
        click.style(printable(part[0], lines=lines), **{"fg": part[1], **style})
        if isinstance(part, tuple)
        else click.style(printable(part, lines=lines), **style)
        for part in parts
    )
    # click would choose an encoding of its own for a stream that it finds.
    click.echo(shown, file=sys.stderr if err else sys.stdout)


def say_json(document: object) -> None:
    """Write JSON for programs, on one line; people see it too."""
    say(untrusted_text.printable_json(orjson.dumps(document).decode()))


def console() -> Console:
    """Return the terminal for what rich draws: no markup, no emoji codes, and in a pipe as wide as needed."""
    from rich.console import Console  # noqa: PLC0415 -- see above

    width = None if sys.stdout.isatty() else _UNLIMITED
    return Console(width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def show_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None, right: Collection[str] = ()
) -> None:
    """Write a table; where the terminal is too narrow for its words, each row as a block of lines.

    No word is ever cut, so ids can be copied; in a pipe each row is one line. `right`: headers of columns that are
    aligned to the right.
    """
    from rich.table import Table  # noqa: PLC0415 -- see above
    from rich.text import Text  # noqa: PLC0415 -- see above

    cells = [[printable(cell) for cell in row] for row in rows]
    out = console()
    columns = list(zip(headers, *cells, strict=True))
    widths = _widths(columns, out.width)
    if title is not None and (widths is None or not cells):
        say(title, italic=True)
    if widths is None:
        for row in cells:
            show_fields(dict(zip(headers, row, strict=True)))
            say()
        return
    table = Table(title=None if title is None else Text(printable(title)), title_justify="left")
    for header, width in zip(headers, widths, strict=True):
        table.add_column(Text(header), width=width, overflow="fold", justify="right" if header in right else "left")
    for row in cells:
        table.add_row(*map(Text, row))
    out.print(table)


def show_fields(fields: Mapping[str, object]) -> None:
    """Write names and values, one a line. A value that is None is left out."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if value is not None:
            say(f"{name:<{width}}  {printable(value)}".rstrip())


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return the width of each column, computed from its cells; None if words would have to be cut."""
    from rich.cells import cell_len  # noqa: PLC0415 -- see above

    full = [max(map(cell_len, cells)) for cells in columns]
    left = room - 3 * len(columns) - 1  # a line and a blank on both sides of each
    if sum(full) <= left:
        return full
    words = [max((cell_len(word) for cell in cells for word in cell.split()), default=0) for cells in columns]
    widths = [max(word, min(whole, _NARROWEST)) for word, whole in zip(words, full, strict=True)]
    left -= sum(widths)
    if left < 0:
        return None
    for at, whole in enumerate(full):
        more = min(left, whole - widths[at])
        widths[at], left = widths[at] + more, left - more
    return widths


class Bar:
    """The progress bar that `progress` hands out."""

    def __init__(self, shown: Progress | None, total: int) -> None:
        self._shown = shown
        self._task = shown.add_task("", total=total) if shown else None

    def advance(self, count: int) -> None:
        """Move the bar on by `count` items."""
        if self._shown is not None and self._task is not None:
            self._shown.advance(self._task, count)


@contextmanager
def progress(description: str, total: int) -> Iterator[Bar]:
    """Show how far something is, on a terminal and where there is something to do."""
    if not total or not (out := console()).is_terminal:
        yield Bar(None, total)
        return
    from rich.progress import (  # noqa: PLC0415 -- see above
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    name = printable(description).replace("{", "{{").replace("}", "}}")
    columns = (TextColumn(name, markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out) as shown:
        yield Bar(shown, total)


def in_words(seconds: float) -> str:
    """Return a span of time as people say it, in its two largest units: `45 s`, `12 min`, `5 h 3 min`, `1 d 3 h`."""
    left = max(round(seconds), 0)
    if left < 120:
        return f"{left} s"
    if left < 3600:
        return f"{left // 60} min"
    larger, unit, smaller, part = (left // 86400, "d", left % 86400 // 3600, "h")
    if left < 86400:
        larger, unit, smaller, part = (left // 3600, "h", left % 3600 // 60, "min")
    return f"{larger} {unit} {smaller} {part}" if smaller else f"{larger} {unit}"


def is_encodable(text: str) -> bool:
    """Tell whether standard output can show all of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")  # a stream in memory has none
    except UnicodeEncodeError:
        return False
    return True


def fit_encoding() -> None:
    """Make standard output and error substitute the characters that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != _SUBSTITUTING:
            # Where the codec's own name is ascii, click writes UTF-8 past the stream.
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else None, errors=_SUBSTITUTING)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(each) or ascii(each)[1:-1] for each in missing), error.end


def _lookup(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode,
        known.decode,
        incrementalencoder=known.incrementalencoder,
        incrementaldecoder=known.incrementaldecoder,
        name=_ASCII,
    )


codecs.register_error(_SUBSTITUTING, cast(Any, _substitute))
codecs.register(_lookup)
