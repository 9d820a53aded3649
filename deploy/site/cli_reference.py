"""The CLI reference: one page, written from the commands of manage.py themselves."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from deploy.commands import bounces
from deploy.commands.cli import cli
from deploy.site.templates import rendered
from notifier.runtime import threads

_PROGRAM: Final = "manage.py"
#: The exit codes of every command: those that click gives, and our own.
EXIT_CODES: Final = {
    0: "It is done.",
    click.ClickException.exit_code: "It could not be done, or a check found something wrong. One line on the standard"
    " error says what.",
    click.UsageError.exit_code: "The command, an option or an argument is not one that there is. Nothing was done.",
    bounces.TRY_LATER: "Of `bounces MESSAGE` alone: Postgres cannot be reached, so the mail server is to try again.",
    threads.EXIT_CODE: "Of processes that stay up: it could not go on. Have it started again.",
}

#: Parts of a help text that are code, and the characters that Markdown would read as its own.
_PARTS: Final = re.compile(
    r"`(?P<marked>[^`]+)`"
    r"|(?<!\w)'(?P<quoted>[^'\n]+)'(?!\w)"
    r"|docs/(?P<page>[\w-]+\.md)"
    r"|(?P<code>\[[^\]]+\]|--[a-z][\w-]*|\b[A-Z]+_[A-Z_]+\b(?:=[A-Z:]+)?|manage\.py)"
    r"|(?P<special>[\\`*_{}\[\]<>#|])"
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option or argument: as the command line shows it, and the text beside it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or a group of commands, as the page has it."""

    name: str
    depth: int
    usage: str
    summary: str
    paragraphs: list[str]
    parameters: list[Parameter]


def cli_page() -> str:
    """Return the page of all commands, in Markdown."""
    top = click.Context(cli, info_name=_PROGRAM)
    return rendered(
        "cli.md.jinja",
        introduction=_paragraphs(cli),
        commands=list(_commands(cli, top, ())),
        exit_codes=EXIT_CODES,
        program=_PROGRAM,
    )


def _commands(group: click.Group, above: click.Context, path: tuple[str, ...]) -> Iterator[Command]:
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=above)
        yield _documented(command, context, (*path, name))
        if isinstance(command, click.Group):
            yield from _commands(command, context, (*path, name))


def _documented(command: click.Command, context: click.Context, path: tuple[str, ...]) -> Command:
    return Command(
        name=" ".join(path),
        depth=len(path),
        usage=" ".join([_PROGRAM, *path, *command.collect_usage_pieces(context)]),
        summary=in_markdown(command.get_short_help_str(limit=200)),
        paragraphs=_paragraphs(command),
        parameters=[_parameter(each, context) for each in command.params],
    )


def _parameter(parameter: click.Parameter, context: click.Context) -> Parameter:
    if isinstance(parameter, click.Argument):
        may = [*(["be left out"] if not parameter.required else []), *(["be repeated"] if parameter.nargs < 0 else [])]
        return Parameter(
            parameter.make_metavar(context), f"Argument. It may {' or '.join(may)}." if may else "Argument."
        )
    # As `--help` has it: names, values, and in brackets the default and bounds.
    name, text = parameter.get_help_record(context) or ("", "")
    return Parameter(name, in_markdown(" ".join(text.split())))


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "")
    return [in_markdown(" ".join(paragraph.split())) for paragraph in text.split("\n\n")]


def in_markdown(text: str) -> str:
    """Mark code in a help text, and escape the rest."""

    def part(found: re.Match[str]) -> str:
        if found["page"]:
            return f"[{found['page']}](../docs/{found['page']})"
        if found["special"]:
            return f"\\{found['special']}"
        return f"`{found['marked'] or found['quoted'] or found['code']}`"

    return _PARTS.sub(part, text)
