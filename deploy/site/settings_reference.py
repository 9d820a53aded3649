"""The settings reference: the tables of docs/settings.md, written from the comments and fields of Settings.

`make settings` writes them anew; a test holds the page to what this makes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from config import settings as module
from config.parsers import form_of
from config.settings import Settings

_BEGIN: Final = "<!-- Written by 'make settings' from config/settings.py, up to the end of these tables. -->"
_END: Final = "<!-- The end of these tables. -->"
_SECTION: Final = re.compile(r"    # --- (.+)")
_COMMENT: Final = re.compile(r"    #: (.+)")
_FIELD: Final = re.compile(r"    (\w+): .+ = _setting\(")
#: A page, and perhaps a heading of it, as comments name them.
_PAGE: Final = re.compile(r"docs/([\w-]+\.md)(#[\w-]+)?")
#: Code, which is left as it is, or the name of a setting.
_CODE_OR_NAME: Final = re.compile(r"`[^`]*`|\b[A-Z][A-Z_]+_[A-Z]+\b")


@dataclass(frozen=True, slots=True)
class Documented:
    """One setting, as the page has it."""

    section: str
    name: str
    default: str
    text: str
    form: str


def documented_settings() -> list[Documented]:
    """Return every setting with its documentation, in the order of the code. Raises KeyError where one has none."""
    comments = dict(_comments(Path(module.__file__).read_text(encoding="utf-8")))
    names = {entry.metadata["env"] for entry in fields(Settings)}
    return [
        Documented(
            section=comments[entry.name][0],
            name=entry.metadata["env"],
            default=_written(entry.default),
            text=_linked(_marked(comments[entry.name][1], names)),
            form=form_of(entry.metadata["parse"]),
        )
        for entry in fields(Settings)
    ]


def page_with_tables(page: str) -> str:
    """Return docs/settings.md with its tables written anew."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{_tables()}\n{_END}{after}"


def _comments(source: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each field with its section and the text over it."""
    section, lines = "", list[str]()
    for line in source.splitlines():
        if found := _SECTION.fullmatch(line):
            section = found[1]
        elif found := _COMMENT.fullmatch(line):
            lines.append(found[1])
        else:
            if (found := _FIELD.match(line)) and lines:
                yield found[1], (section, " ".join(lines))
            lines = []


def _tables() -> str:
    parts: list[str] = []
    section = ""
    for each in documented_settings():
        if each.section != section:
            section = each.section
            parts.append(f"\n### {section}\n\n| setting | default | what it does |\n|---|---|---|\n")
        parts.append(f"| `{each.name}` | {each.default} | {each.text} *{each.form[0].upper()}{each.form[1:]}.* |\n")
    return "".join(parts).lstrip("\n")


def _written(default: object) -> str:
    """Write a default as the environment would have it."""
    match default:
        case None | ():
            return "unset"
        case bool():
            return f"`{str(default).lower()}`"
        case timedelta():
            return f"`{_duration(default)}`"
        case ZoneInfo():
            return f"`{default.key}`"
        case _:
            return f"`{default}`"


def _duration(length: timedelta) -> str:
    seconds = length.total_seconds()
    if seconds % 86_400 == 0:
        return f"P{length.days}D"
    return f"PT{seconds / 3600:g}H" if seconds % 3600 == 0 else f"{seconds:g}"


def _marked(text: str, names: set[str]) -> str:
    """Mark names of settings as code."""
    return _CODE_OR_NAME.sub(lambda found: f"`{found[0]}`" if found[0] in names else found[0], text)


def _linked(text: str) -> str:
    """Turn names of pages into links, as they lead from another page beside them."""
    return _PAGE.sub(lambda found: f"[{found[1]}]({found[0].removeprefix('docs/')})", text)
