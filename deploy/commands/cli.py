"""manage.py: all commands and their groups."""

import ast
import importlib
import traceback
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click

from deploy.commands.group import OneLineErrors
from deploy.terminal import fit_encoding, say
from notifier import VERSION
from notifier.runtime import memory

#: Where each command is, in the order in which they are listed.
_COMMANDS: Final = {
    "up": "up",
    "migrate": "migrate",
    "roles": "roles",
    "api": "processes",
    "worker": "workers",
    "beat": "beat",
    "flower": "processes",
    "exporter": "exporter",
    "status": "status",
    "alive": "alive",
    "doctor": "doctor",
    "dlq": "dlq",
    "outbox": "outbox",
    "providers": "providers",
    "bounces": "bounces",
    "why": "why",
    "listen": "listen",
    "relay": "relay",
    "replay": "replay",
    "routes": "routes",
    "hold": "holds",
    "release": "holds",
    "api-keys": "keys",
    "webhook-secret": "webhook_secret",
    "audit": "audit",
    "rekey": "rekey",
    "recover": "recover",
    "purge": "purge",
    "reader": "reader",
    "users": "users",
}


class _Commands(OneLineErrors):
    """The commands, each loaded when it is asked for: loading all of them takes longer than most of them do."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- click's signature
        """Run the command line; output whose encoding lacks a character is no reason to fail."""
        memory.expect_imports()
        fit_encoding()
        try:
            return super().main(*args, **kwargs)
        except Exception:
            # As Python shows it, but for what is in the error's own words.
            say(traceback.format_exc().rstrip(), lines=True, err=True)
            raise SystemExit(1) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"deploy.commands.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, _function_of(cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands as click does, but with none of them loaded."""
        del ctx
        room = formatter.width - 6 - max(map(len, _COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl([(name, _read_from_source(name).get_short_help_str(room)) for name in _COMMANDS])


def _function_of(name: str) -> str:
    return name.replace("-", "_")


def _read_from_source(name: str) -> click.Command:
    """Return a command that has the help of the one of that name, and does nothing."""
    source = Path(__file__).with_name(f"{_COMMANDS[name]}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    function = next(node for node in functions if node.name == _function_of(name))
    keywords = chain.from_iterable(call.keywords for call in function.decorator_list if isinstance(call, ast.Call))
    given = {each.arg: ast.literal_eval(each.value) for each in keywords if each.arg == "short_help"}
    return click.Command(name, help=ast.get_docstring(function), **given)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="notifier", message="%(prog)s %(version)s")
def cli() -> None:
    """Notifier: events in over HTTP, people told by email, SMS, push, chat or webhook.

    'up' starts everything on this machine, with nothing else installed. The commands below it start one process
    each, as in production; the others look into a running system. Settings come from the environment
    (docs/settings.md); without DATABASE_URL the stack that runs in .notifier is meant.
    """
