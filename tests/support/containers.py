"""docker-compose.yml and the Dockerfile, parsed."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click
import yaml

from deploy.commands.cli import cli
from tests.support.paths import ROOT

#: Settings that an operator must fill in, with values that would do.
NEEDED = {
    "POSTGRES_PASSWORD": "aaaabbbbccccdddd",
    "POSTGRES_OWNER_PASSWORD": "bbbbccccddddeeee",
    "POSTGRES_APP_PASSWORD": "ccccddddeeeeffff",
    "REDIS_PASSWORD": "89abcdef01234567",
    "NOTIFIER_WEBHOOK_SECRET": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "FLOWER_BASIC_AUTH": "operator:secret",
    "NOTIFIER_METRICS_TOKEN": "0123456789abcdef",
    "NOTIFIER_READER_PASSWORD": "fedcba9876543210",
    "GRAFANA_PASSWORD": "correct horse",
}


#: The services that run programs of others; all the rest run `manage.py`.
STORAGE = {"postgres", "redis"}
FOREIGN = {*STORAGE, "prometheus", "grafana", "proxy"}


class MissingVariableError(Exception):
    """A variable that Compose would refuse to go without."""


VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")


def interpolated(node: Any, environ: Mapping[str, str]) -> Any:
    """A node of the file with its variables replaced, as Compose does it. Raises MissingVariableError."""

    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        if given := environ.get(found["name"]):
            return given
        if found["kind"] == "?":
            raise MissingVariableError(f"{found['name']}: {found['rest']}")
        return found["rest"] or ""

    if isinstance(node, dict):
        return {name: interpolated(child, environ) for name, child in node.items()}
    if isinstance(node, list):
        return [interpolated(child, environ) for child in node]
    return VARIABLE.sub(value, node) if isinstance(node, str) else node


FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
COMPOSE = interpolated(FILE, NEEDED)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(SERVICES.keys() - FOREIGN)
WORKER_SERVICES = [name for name in OURS if SERVICES[name]["command"][0] == "worker"]


class Parsed(NamedTuple):
    """A command line as click understood it."""

    command: str
    options: dict[str, Any]


def parsed(arguments: list[str]) -> Parsed:
    """Return what click makes of `manage.py ARGUMENTS`, without running it. Raises click.UsageError."""
    context = click.Context(cli, info_name="manage.py")
    name, command, rest = cli.resolve_command(context, arguments)
    assert name
    assert command
    return Parsed(name, command.make_context(name, rest, parent=context).params)


def environment_of(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that Compose gives a service: names without a value are handed on where they are set."""
    given: dict[str, str | None] = interpolated(FILE["services"][service]["environment"], environ)
    values = {name: environ.get(name) if value is None else value for name, value in given.items()}
    return {name: value for name, value in values.items() if value is not None}


def health_check(service: str) -> list[str]:
    """A service's health-check command, without its CMD."""
    kind, *command = map(str, SERVICES[service]["healthcheck"]["test"])
    assert kind == "CMD", f"{service}: a shell would be one process more, and its quoting one more thing to get wrong"
    return command


class Instruction(NamedTuple):
    """A line of a Dockerfile, joined from its parts."""

    name: str
    rest: str


def stages(text: str) -> Iterator[list[Instruction]]:
    """The stages of a Dockerfile, each beginning with its FROM."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stage: list[Instruction] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, rest = line.split(maxsplit=1)
        if name == "FROM" and stage:
            yield stage
            stage = []
        stage.append(Instruction(name, rest.strip()))
    yield stage


STAGES = list(stages((ROOT / "Dockerfile").read_text()))
FINAL = STAGES[-1]


def the_one(name: str, stage: list[Instruction] = FINAL) -> str:
    """Return what a stage's only instruction of this name says."""
    [rest] = [each.rest for each in stage if each.name == name]
    return rest


ENTRYPOINT: list[str] = json.loads(the_one("ENTRYPOINT"))
