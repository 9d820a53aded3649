"""The references that are written from the code: they name everything that there is, and every page has its place."""

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from api.description import methods
from config.settings import Settings
from deploy.commands.cli import cli
from deploy.site.cli_reference import EXIT_CODES, cli_page
from deploy.site.http_reference import description, http_pages
from deploy.site.navigation import SECTIONS, MisplacedError, navigation
from deploy.site.pages import written_pages
from deploy.site.settings_reference import documented_settings, page_with_tables
from tests.support.paths import ROOT

CLI = cli_page()
GENERATED = ["reference/cli.md"]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return description()


@pytest.fixture(scope="module")
def http(document: dict[str, Any]) -> dict[str, str]:
    return http_pages(document)


# --- settings


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert page_with_tables(page) == page, "make settings"


def test_the_page_names_what_is_no_field_too() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert "`NOTIFIER_DATA_DIR`" in page.partition("end of these tables. -->")[2]


def test_each_setting_has_a_text_a_section_and_a_form() -> None:
    found = documented_settings()
    assert [each.name for each in found] == [entry.metadata["env"] for entry in fields(Settings)]
    assert all(each.section and each.text and each.form for each in found)


def test_each_default_is_one_that_the_setting_takes() -> None:
    parsers = {entry.metadata["env"]: (entry.metadata["parse"], entry.default) for entry in fields(Settings)}
    for each in documented_settings():
        parse, default = parsers[each.name]
        if each.default == "unset":
            assert default in (None, ()), each.name
        else:
            assert parse(each.default.strip("`")) == default, each.name


# --- commands


def _all_commands() -> list[tuple[str, click.Command, click.Context]]:
    found: list[tuple[str, click.Command, click.Context]] = []

    def walk(group: click.Group, context: click.Context, path: list[str]) -> None:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            inner = click.Context(command, info_name=name, parent=context)
            found.append((" ".join([*path, name]), command, inner))
            if isinstance(command, click.Group):
                walk(command, inner, [*path, name])

    walk(cli, click.Context(cli, info_name="manage.py"), [])
    return found


COMMANDS = _all_commands()


@pytest.mark.parametrize(("name", "command", "context"), COMMANDS, ids=[name for name, *_ in COMMANDS])
def test_a_command_has_its_section_with_every_option(name: str, command: click.Command, context: click.Context) -> None:
    anchor = name.replace(" ", "-")
    [section] = [part for part in CLI.split("\n## ")[1:] for part in part.split("\n### ") if f"{{ #{anchor} }}" in part]
    assert f"\nmanage.py {name}" in section
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert all(f"`` {option}" in section or f", {option}" in section for option in parameter.opts), parameter
            if parameter.show_default and parameter.default is not None:
                assert "[default:" in section
        else:
            assert f"`` {parameter.make_metavar(context)} ``" in section


def test_each_exit_code_is_listed() -> None:
    codes = {0, click.ClickException.exit_code, click.UsageError.exit_code}
    for file in (ROOT / "deploy/commands").glob("*.py"):
        codes |= set(_exit_codes(file))
    assert codes <= EXIT_CODES.keys()


def _exit_codes(file: Path) -> list[int]:
    """The codes that a file's `raise SystemExit(…)` give, by number or by a constant of the file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    arguments = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SystemExit" and node.args
    ]
    values = [each.value if isinstance(each, ast.Constant) else constants[ast.unparse(each)] for each in arguments]
    return [value for value in values if isinstance(value, int)]


# --- the API


def test_each_operation_is_there_with_its_parameters_examples_and_errors(
    document: dict[str, Any], http: dict[str, str]
) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            name = operation["operationId"]
            tag = operation["tags"][0].replace(" ", "-")
            page = http[f"reference/http/{tag}.md"]
            [section] = [part for part in page.split("\n## ") if f"{{ #{name} }}" in part]
            assert f"`{method.upper()} {path}`" in section
            for parameter in operation.get("parameters", ()):
                assert f"\n`{parameter['name']}`" in section
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert all(example["summary"] in section for example in content.get("examples", {}).values())
            assert all(f"\n| {status} | " in section for status in operation["responses"]), name
    assert len(list(methods(document))) == sum(page.count("Its `operationId` is") for page in http.values())


def test_each_schema_is_there_with_its_members(document: dict[str, Any], http: dict[str, str]) -> None:
    page = http["reference/http/schemas.md"]
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    assert sections.keys() == document["components"]["schemas"].keys()
    for name, schema in document["components"]["schemas"].items():
        for member in schema.get("properties", {}):
            marked = " **required**" if member in schema.get("required", ()) else "\n"
            assert f"\n`{member}`{marked}" in sections[name], f"{name}.{member}"


def test_each_problem_is_there_with_an_example(document: dict[str, Any], http: dict[str, str]) -> None:
    page = http["reference/http/errors.md"]
    for example in document["components"]["examples"].values():
        assert f'"detail": "{example["value"]["detail"]}"' in page.replace('\\"', '"')


# --- places


def test_every_page_has_its_place() -> None:
    nav = navigation([*written_pages(), *GENERATED], ["reference/http/index.md"])
    assert [next(iter(section)) for section in nav if isinstance(section, dict)] == list(SECTIONS)


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([*written_pages(), *GENERATED, "docs/new.md"], "docs/new.md has no place"),
        ([page for page in written_pages() if page != "docs/guide.md"] + GENERATED, "docs/guide.md has no page"),
    ],
)
def test_a_page_without_a_place_and_a_place_without_a_page_stop_the_build(pages: list[str], message: str) -> None:
    with pytest.raises(MisplacedError, match=message):
        navigation(pages, [])
