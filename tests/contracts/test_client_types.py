"""The Python client's types: they are what the OpenAPI description says, and answers' members are there."""

from typing import Any

import pytest

from clients.python.write_types import FOLDER, LEFT_OUT, Types, description, formatted, operations
from notifier_client.types import answers


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return description()


def test_the_files_are_those_that_the_description_makes(document: dict[str, Any]) -> None:
    made = {name: formatted(name, text) for name, text in Types(document).files().items()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    assert kept == made, "run 'make client-types', and commit what it writes"


def test_what_is_left_out_is_there_to_be_left_out(document: dict[str, Any]) -> None:
    everything = {each["operationId"] for item in document["paths"].values() for each in item.values()}
    assert everything >= LEFT_OUT
    assert {each["operationId"] for each in operations(document)} == everything - LEFT_OUT


def test_a_member_of_an_answer_is_always_there_unless_its_type_says_otherwise() -> None:
    classes = {
        name: each for name, each in vars(answers).items() if getattr(each, "__module__", "") == answers.__name__
    }
    optional = {name: set(getattr(each, "__optional_keys__", ())) for name, each in classes.items()}
    sometimes = {name: members for name, members in optional.items() if members}
    assert sometimes.pop("RouteOut") >= {"template", "enabled"}
    assert sometimes == {
        "BatchItem": {"id", "type", "errors"},
        "Check": {"detail"},
        "DeadLetterGroup": {"reason", "provider", "error", "event_type", "channel"},
        "DeadLetterGroupFilter": {"reason", "last_provider", "error", "event_type", "channel"},
        "Problem": {"errors", "reason", "notification"},
    }
