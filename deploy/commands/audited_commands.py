"""Audit log lines of commands that change something, or show people's data."""

import functools
import getpass
import os
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click
from sqlalchemy.exc import SQLAlchemyError

from config.settings import SettingsError
from deploy.commands.group import Command, load_wiring
from deploy.terminal import say
from notifier.vocabulary.errors import NotifierError
from notifier.vocabulary.timestamps import rfc3339

#: Options with which a command changes nothing.
_LOOKING: Final = ("dry_run", "only_list")
#: Ids that are written out; of more, how many.
_MOST_IDS: Final = 5
_UNCHANGED: Final = "notifier.unchanged"
#: The longest that an error's words may be, in characters.
_MOST_WORDS: Final = 200
#: Matches text that may be an address or a phone number, which the audit log must not contain.
_ADDRESS: Final = re.compile(r"\S+@\S+|(?<![\w-])\+?\d(?:[ ().-]?\d){6,}(?![\w-])")


def user() -> str:
    """Return the name of the shell's user; in a container it may be a number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for it
        return f"uid-{os.getuid()}"


def nothing_changed() -> None:
    """Note that this command found nothing to do, so that it writes no line."""
    click.get_current_context().meta[_UNCHANGED] = True


def audited(*shown: str, hashed: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Declare that a command changes something, or shows people's data.

    `shown`: the parameters that say what; no address may be in them. `hashed`: those whose fingerprint
    says it, unless they are ids of ours.
    """

    def declare(command: Command) -> Command:
        @functools.wraps(command)
        def run(**parameters: Any) -> Any:  # noqa: ANN401 -- as click parsed them
            if any(parameters.get(name) for name in _LOOKING):
                return command(**parameters)
            began, outcome = datetime.now(UTC), "done"
            try:
                return command(**parameters)
            except SettingsError:
                outcome = ""  # there is no database to have changed
                raise
            except (KeyboardInterrupt, click.Abort):
                outcome = "aborted"
                raise
            except BaseException as error:
                outcome = f"failed: {_words(error)}"
                raise
            finally:
                if outcome and not click.get_current_context().meta.get(_UNCHANGED):
                    _record(outcome, shown, {name: parameters[name] for name in (*shown, *hashed)}, began)

        run.is_audited = True  # type: ignore[attr-defined]  # commands carry their mark
        return run  # type: ignore[return-value]  # as functools.wraps made it

    return declare


def _words(error: BaseException) -> str:
    """Return an error's message without addresses if it is written for people; else its class."""
    if isinstance(error, click.exceptions.Exit | SystemExit):
        return f"exit {getattr(error, 'exit_code', None) or getattr(error, 'code', '')}"
    said = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if not said or not isinstance(error, click.ClickException | NotifierError):
        return type(error).__name__
    return _ADDRESS.sub("[address]", " ".join(said.split()))[:_MOST_WORDS]


def _record(outcome: str, shown: tuple[str, ...], parameters: dict[str, Any], at: datetime) -> None:
    """Write the line. If that fails, print a warning: the command's own result stays."""
    log = load_wiring().audit
    try:
        told = {
            name: value if name in shown or value is None or isinstance(value, UUID) else log.fingerprint(str(value))
            for name, value in parameters.items()
        }
        log.record(f"shell:{user()}", _action(), " ".join(_shown(told)) or None, outcome, at=at)
    except SQLAlchemyError as error:
        say(f"Warning: the audit log could not be written ({type(error).__name__}).", err=True)


def _action() -> str:
    """Return the command's name after its group's, such as `dlq.requeue`."""
    context: click.Context | None = click.get_current_context()
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return ".".join(names)


def _shown(parameters: dict[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if value is not None and value is not False and value != ():
            yield f"{name}={_text(value)}"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        more = f"+{len(value) - _MOST_IDS}" if len(value) > _MOST_IDS else None
        return ",".join([*(_text(each) for each in value[:_MOST_IDS]), *([more] if more else [])])
    if isinstance(value, datetime):
        return rfc3339(value.replace(microsecond=0))
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, Path):
        return value.name
    return "yes" if value is True else shlex.quote(str(value))
