"""`manage.py doctor`: checks the installation, and says what is wrong and how to repair it."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Final

import click
from sqlalchemy import Engine

from config.settings import Settings
from deploy.commands import doctor_service as service
from deploy.commands import doctor_storage as storage
from deploy.commands.doctor_checks import Check, Finding, State, findings, note
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say, say_json

_SIGNS: Final = {State.OK: ("✔", "green"), State.FAILED: ("✘", "red"), State.NOTE: ("–", "yellow")}
_DATABASE: Final = "see DATABASE_URL, and whether Postgres runs and lets this machine in"
_BROKER: Final = "see BROKER_URL and REDIS_URL; until it answers the clock hands nothing over"
#: Findings without which nothing more can be found in Postgres.
_NEEDED: Final = frozenset({"postgres", "migrations"})
_LOOK: Final = "see the error"


@click.command()
@on_a_stack
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def doctor(as_json: bool) -> None:
    """Check everything that Notifier needs, and say what to do where something is wrong. Changes and sends nothing.

    Each check takes 3 seconds at the most. Run it where the processes run, with their environment. Exits with 1 where a
    check failed.
    """
    found = []
    for finding in _examine():
        found.append(finding)
        if not as_json:
            _show(finding)
    failed = sum(finding.state is State.FAILED for finding in found)
    if as_json:
        say_json({"ok": not failed, "findings": [asdict(finding) for finding in found]})
    else:
        say(f"{failed} of {len(found)} failed." if failed else "All is well.")
    if failed:
        raise SystemExit(1)


def _show(finding: Finding) -> None:
    sign, colour = _SIGNS[finding.state]
    say((sign, colour), f" {finding.check:<20} {finding.says}")
    if finding.todo:
        say(f"  {'':<20} → {finding.todo}")


def _examine() -> Iterator[Finding]:
    """Yield all findings, in the order in which to repair them."""
    faults = findings(Check("settings", service.settings_parse, _LOOK))
    yield from faults
    if any(fault.state is State.FAILED for fault in faults):
        yield note("the rest", "not looked at, but the disk: it takes settings that parse")
    else:
        settings = load_wiring().settings
        engine = storage.doctors_engine(settings)
        yield from _database(settings, engine)
        for check in _elsewhere(settings, engine):
            yield from findings(check)
    yield from findings(Check("disk", service.disk, _LOOK))


def _database(settings: Settings, engine: Engine) -> Iterator[Finding]:
    """Yield the findings in Postgres, if it can be reached."""
    failed: str | None = None
    for check in _in_postgres(settings, engine):
        if failed is not None:
            yield note(check.name, f"not looked at, because of {failed}")
            continue
        for finding in findings(check):
            yield finding
            if finding.state is State.FAILED and finding.check in _NEEDED:
                failed = finding.check


def _in_postgres(settings: Settings, engine: Engine) -> Iterator[Check]:
    yield Check("postgres", partial(storage.postgres, engine), _DATABASE)
    yield Check("database role", partial(storage.role, engine), _DATABASE)
    yield Check("migrations", partial(storage.migrated, engine), _DATABASE)
    yield Check("partitions", partial(storage.partitioned, engine), _DATABASE)
    yield Check("workers", partial(service.workers, engine), _DATABASE)
    yield Check("breakers", partial(service.breakers, engine), _DATABASE)
    yield Check("secret key", partial(storage.secrets_readable, engine, settings), _DATABASE)
    yield Check("signing keys", partial(storage.keys_sealed, engine, settings), _DATABASE)
    yield Check("api keys", partial(service.api_keys, settings, engine), _DATABASE)


def _elsewhere(settings: Settings, engine: Engine) -> Iterator[Check]:
    """Return the checks that need no Postgres."""
    yield Check("redis", partial(storage.redis_server, settings), _BROKER)
    yield Check("broker", partial(storage.broker, settings), _BROKER)
    yield Check("channels", partial(service.any_channel, settings), _LOOK)
    yield Check("public url", partial(service.public_url, settings), _LOOK)
    for channel in service.CHANNELS:
        yield from service.provider_checks(settings, engine, channel)
