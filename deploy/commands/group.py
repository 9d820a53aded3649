"""The click group of manage.py, and what its commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from deploy.terminal import printable
from notifier.vocabulary import untrusted_text
from notifier.vocabulary.errors import NotifierError

if TYPE_CHECKING:
    from config.wiring import Wiring

#: The folder that manage.py stands in.
ROOT = Path(__file__).resolve().parents[2]

Command = TypeVar("Command", bound=Callable[..., Any])


class OneLineErrors(click.Group):
    """A group whose foreseeable errors end in one line instead of a traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:  # noqa: ANN401 -- click's signature
        """Parse the arguments."""
        with _one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's signature
        """Run a command."""
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn foreseeable errors into click's, without control characters."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message, lines=True)  # typed as final
        if isinstance(error, click.FileError):
            vars(error)["ui_filename"] = printable(error.ui_filename)
        raise
    except (click.exceptions.Exit, click.Abort):
        raise
    except NotifierError as error:
        raise click.ClickException(printable(error)) from None
    except Exception as error:
        line = _line_of(error)
        if line is None:
            raise
        raise click.ClickException(line) from None


def _line_of(error: Exception) -> str | None:
    """Return the line that a foreseeable error ends in; None for any other."""
    # Here, since `--help` and commands without settings or a database have no such errors.
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 -- see above

    from config.settings import SettingsError  # noqa: PLC0415 -- see above
    from notifier.runtime.isolation import MIGRATE, is_away, is_unmigrated, why_away  # noqa: PLC0415 -- see above

    if isinstance(error, SettingsError):
        # It never repeats a value; the forms that it shows are no credentials, and of no use with a mask.
        return untrusted_text.printable(str(error))
    if not isinstance(error, DBAPIError) or not is_away(error):
        return None
    if is_unmigrated(error):
        return MIGRATE
    lines = str(error.orig).strip().splitlines() or ["no answer"]
    return f"{why_away(error).removesuffix('.')}: {printable(lines[0])}"


def _remember_data_dir(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    del ctx, param
    if value is not None:
        os.environ["NOTIFIER_DATA_DIR"] = str(Path(value).resolve())


def on_a_stack(command: Command) -> Command:
    """Give a command the option that says which running stack it means."""
    return click.option(
        "--data-dir",
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=_remember_data_dir,
        help="Data folder of a stack started by 'up', where DATABASE_URL is not set.  [default: .notifier]",
    )(command)


def load_wiring() -> Wiring:
    """Load and return the parts that commands work with. Raises SettingsError."""
    # Here, since it imports most of the product, and commands that start other processes do without.
    from config.wiring import wiring  # noqa: PLC0415 -- it imports most of the product

    return wiring()


def become(module: str, *arguments: str) -> NoReturn:
    """Replace this process by `python -m MODULE`, so that signals reach it directly."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT) + (os.pathsep + path if path else "")
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 -- our own interpreter
