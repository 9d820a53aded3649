"""Schemas in words, and help texts in Markdown, as the references have them."""

from typing import Any

import pytest

from deploy.site.cli_reference import in_markdown
from deploy.site.pages import with_titles
from deploy.site.schema_words import bounds_of, code, definition, prose, type_of

EVENT = {"$ref": "#/components/schemas/Event"}
NULL = {"type": "string", "nullable": True, "enum": [None]}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "uuid", "nullable": True}, "string (uuid) or null"),
        ({"type": "string", "enum": ["a", "b", None], "nullable": True}, "`a`, `b` or null"),
        (EVENT, "[Event](schemas.md#event)"),
        ({"allOf": [EVENT], "description": "It."}, "[Event](schemas.md#event)"),
        ({"anyOf": [EVENT, NULL], "nullable": True}, "[Event](schemas.md#event) or null"),
        ({"anyOf": [NULL, {"type": "integer"}]}, "integer or null"),
        ({"type": "array", "items": EVENT}, "array of [Event](schemas.md#event)"),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, "object of boolean"),
        ({"type": "object", "additionalProperties": False}, "object"),
        ({}, "any value"),
    ],
)
def test_a_type_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_of(schema) == words


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, ""),
        ({"minLength": 1, "maxLength": 2048}, ", 1 to 2,048 characters"),
        ({"minLength": 0, "maxLength": 5}, ", at most 5 characters"),
        ({"minimum": 0}, ", at least 0"),
        ({"minItems": 1, "maxItems": 20, "uniqueItems": True}, ", 1 to 20 items, no item twice"),
    ],
)
def test_bounds_in_words(schema: dict[str, Any], words: str) -> None:
    assert bounds_of(schema) == words


def test_a_member_is_a_definition_with_those_within_it() -> None:
    schema = {
        "type": "object",
        "description": "Addresses.",
        "properties": {"email": {"type": "string", "pattern": "^.+@.+$"}, "": {"not": {}}},
    }
    assert definition("to", schema, is_required=True) == (
        "`to` **required**\n:   *Object.* Addresses.\n\n    `email`\n    :   *String.*\n\n        Form: `^.+@.+$`\n"
    )


def test_a_list_in_a_description_begins_below_the_type() -> None:
    schema = {"type": "string", "description": "- `a`: One.\n- `b`: Two."}
    assert definition("x", schema, is_required=False) == "`x`\n:   *String.*\n\n    - `a`: One.\n    - `b`: Two.\n"


def test_no_html_comes_out_of_a_description() -> None:
    assert prose("`<b>` is <b>bold</b>") == "`<b>` is &lt;b>bold&lt;/b>"
    assert code("a`b") == "`` a`b ``"


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("See 'manage.py outbox' for a worker's messages.", "See `manage.py outbox` for a worker's messages."),
        ("Which are *** otherwise.", "Which are \\*\\*\\* otherwise."),
        ("With --all, or NOTIFIER_DATA_DIR.", "With `--all`, or `NOTIFIER_DATA_DIR`."),
        ("Docs: docs/settings.md.", "Docs: [settings.md](../docs/settings.md)."),
        ("As `it` says.  [default: 1_0]", "As `it` says.  `[default: 1_0]`"),
    ],
)
def test_a_help_textin_markdown(text: str, markdown: str) -> None:
    assert in_markdown(text) == markdown


def test_links_say_the_titles_of_pages() -> None:
    titles = {"guide.md": "Guide"}
    text = "[docs/guide.md](docs/guide.md#words), [guide.md](guide.md), [a guide](guide.md), [x.md](https://x.example/x.md)"
    assert with_titles(text, titles) == (
        "[Guide](docs/guide.md#words), [Guide](guide.md), [a guide](guide.md), [x.md](https://x.example/x.md)"
    )
