"""The option --reveal of commands that show addresses: credentials too, and a line in the audit log."""

import functools
from collections.abc import Callable
from typing import Any

import click

from deploy.commands.audited_commands import audited
from deploy.commands.group import Command, load_wiring
from deploy.terminal import reveal_credentials

#: The parameter that says in the audit log whom it was about.
_ABOUT = "about"


def revealing(named: str | None = None) -> Callable[[Command], Command]:
    """Give a command the option --reveal. `named`: the parameter that names what is shown, by id or address."""

    def declare(command: Command) -> Command:
        @audited("reveal", hashed=(_ABOUT,))
        def reveal_and_record(**parameters: Any) -> Any:  # noqa: ANN401 -- as click parsed them
            del parameters["reveal"], parameters[_ABOUT]
            with reveal_credentials(load_wiring().seals.opened_or_kept):
                return command(**parameters)

        @functools.wraps(command)
        def run(reveal: bool, **parameters: Any) -> Any:  # noqa: ANN401 -- as click parsed them
            if not reveal:
                return command(**parameters)
            about = parameters.get(named) if named else None
            return reveal_and_record(reveal=True, **{_ABOUT: about}, **parameters)

        option = click.option(
            "--reveal",
            is_flag=True,
            help="Show the credentials in URLs and chat URLs too, which are *** otherwise. The audit log tells of it.",
        )
        return option(run)  # type: ignore[return-value]  # as functools.wraps made it

    return declare
