"""Routes from a file: `manage.py routes load|export`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import marshmallow as ma
import yaml
from sqlalchemy import Connection

from api.problems import flattened
from api.schemas.routes import RouteSchema
from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.reveal_option import revealing
from deploy.terminal import is_encodable, printable, reveals_credentials, say
from notifier.planning import routes as stored
from notifier.security.redaction import masked_json
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.strict_json import check_text

#: The largest file of routes, in bytes.
_LARGEST = 1024 * 1024

_schema = RouteSchema()
#: Members that say no more than their absence does; an export leaves them out.
_UNSAID = ({"strategy": "all"}, {"enabled": True})


@click.group()
def routes() -> None:
    """Load routes from a file, and write them to one."""


class _Line(dict[str, Any]):
    """A mapping of a YAML file that knows the lines of its keys."""

    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    """YAML as data; times stay text, and a key may stand only once."""

    yaml_implicit_resolvers = {  # noqa: RUF012 -- yaml's own class attribute
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _check_texts(line: int, key: str, value: object) -> None:
    """Raise ClickException where a text cannot be kept: YAML can spell half of a surrogate pair, as JSON can."""
    for text in (key, *(value if isinstance(value, list) else [value])):
        try:
            check_text(text if isinstance(text, str) else "")
        except ValueError as error:
            raise click.ClickException(f"line {line}: {error}") from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> _Line:
    made = _Line()
    made.lines = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            shown = str(key)[:40] if isinstance(key, int | float) or key is None else f"a {type(key).__name__}"
            raise click.ClickException(f"line {line}: {shown} is no name")
        if key in made:
            raise click.ClickException(f"line {line}: {key} stands there twice")
        made[key] = loader.construct_object(value_node, deep=True)
        made.lines[key] = line
        _check_texts(line, key, made[key])
    return made


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _read(file: Path) -> str:
    raw = file.read_bytes()
    if len(raw) > _LARGEST:
        raise click.ClickException(f"the file is larger than {_LARGEST} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise click.ClickException(f"line {line}: not UTF-8") from None
    unprintable = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise click.ClickException(f"line {line}: a character that YAML does not allow")
    return text


def _parsed(text: str) -> _Line:
    """The file's routes by name. Raises ClickException, with the line."""
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise click.ClickException(f"{where}not YAML: {error.problem}") from None
    except RecursionError:
        raise click.ClickException("not routes: nested too deeply") from None
    if not isinstance(document, _Line) or set(document) != {"routes"} or not isinstance(document["routes"], _Line):
        raise click.ClickException("line 1: the file must have one key, routes, with routes by their names under it")
    return document["routes"]


def _line_of(entry: _Line, path: str) -> int | None:
    """The line of the key that a dotted path of an error means, or of the deepest one above it that is there."""
    found, inner = None, entry
    for name in path.split("."):
        if not isinstance(inner, _Line) or name not in inner:
            break
        found, inner = inner.lines[name], inner[name]
    return found


def _checked(connection: Connection, entries: _Line) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each route, validated. Raises ClickException with all that is wrong with one of them, by line and key."""
    for name, entry in entries.items():
        line = entries.lines[name]
        if not isinstance(entry, _Line):
            raise click.ClickException(f"line {line}: {name} is not a route")
        try:
            definition = _schema.load(entry)
            stored.check(connection, name, definition)
        except (ma.ValidationError, Invalid) as error:
            messages = flattened(error.messages if isinstance(error, ma.ValidationError) else error.errors)
            raise click.ClickException(
                "\n".join(
                    f"line {_line_of(entry, path) or line}: {name}.{path}: {' '.join(texts)}"
                    for path, texts in messages.items()
                )
            ) from None
        yield name, definition


@routes.command()
@on_a_stack
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prune", is_flag=True, help="Delete routes that the file does not have.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@audited("file", "prune")
def load(file: Path, prune: bool, dry_run: bool) -> None:
    """Write the routes of a YAML file; loading it again changes nothing.

    All of it or nothing: a file with a mistake changes nothing, and the line and the key are named.
    """
    entries = _parsed(_read(file))
    with load_wiring().engine.connect() as connection, connection.begin() as transaction:
        outcomes = {name: stored.put(connection, name, each) for name, each in list(_checked(connection, entries))}
        surplus = sorted(set(stored.definitions(connection)) - set(entries)) if prune else []
        stored.remove(connection, surplus)
        if dry_run:
            transaction.rollback()
    for name, outcome in [*outcomes.items(), *((name, "deleted") for name in surplus)]:
        say(f"{'would be ' if dry_run and outcome != 'unchanged' else ''}{outcome}: {name}")


@routes.command()
@on_a_stack
@revealing()
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path), required=False)
def export(file: Path | None) -> None:
    """Write all routes as YAML, to a file or to standard output; 'load' reads it.

    A route that names a chat URL or another with credentials is loaded again only as --reveal writes it.
    """
    with load_wiring().engine.connect() as connection:
        found = {name: _said(definition) for name, definition in stored.definitions(connection).items()}
    if not reveals_credentials():
        found = json.loads(masked_json(json.dumps(found)))
    text = yaml.safe_dump({"routes": found}, sort_keys=False, allow_unicode=True)
    if file is None:
        # Data for programs, that people see too: where either would not get all of it as it is, in YAML's escapes.
        plain = printable(text, lines=True) == text and is_encodable(text)
        click.echo(text if plain else yaml.safe_dump({"routes": found}, sort_keys=False), nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from None
    say(f"Wrote {len(found)} route{'s' * (len(found) != 1)} to {file}.")


def _said(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition without what its absence says as well, in the order of the schema."""
    said = {name: definition[name] for name in _schema.fields if definition.get(name) is not None}
    return {name: value for name, value in said.items() if {name: value} not in _UNSAID}
