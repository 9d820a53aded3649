"""Reasons: the code, the OpenAPI description and docs/reasons.md say the same."""

import re
from typing import Any

import pytest

from api.app import create_app
from config.settings import read_settings
from config.wiring import Wiring
from notifier.vocabulary.reasons import DEAD_LETTER_REASONS, SENTENCES, STATUS_OF, Reason
from notifier.vocabulary.states import Status
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """The schemas of the OpenAPI description."""
    app = create_app(Wiring(read_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})))
    found: dict[str, Any] = app.test_client().get("/openapi.json").get_json()["components"]["schemas"]
    return found


def test_each_has_a_sentence_and_a_status() -> None:
    assert set(SENTENCES) == set(STATUS_OF) == set(Reason)
    assert {Status(each) for each in STATUS_OF.values()} == {
        Status.SCHEDULED,
        Status.SKIPPED,
        Status.CANCELLED,
        Status.FAILED,
    }


def test_the_page_lists_them() -> None:
    page = (ROOT / "docs/reasons.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(each, STATUS_OF[each], SENTENCES[each]) for each in Reason]


@pytest.mark.parametrize(
    ("schema", "known"),
    [("Notification", [*Reason, None]), ("DeadLetter", [*DEAD_LETTER_REASONS, Reason.FAN_OUT_FAILED])],
)
def test_the_description_lists_them(schemas: dict[str, Any], schema: str, known: list[Reason | None]) -> None:
    described = schemas[schema]["properties"]["reason"]
    assert described["enum"] == known
    for each in known:
        assert each is None or f"- `{each}`: {SENTENCES[each]}" in described["description"]


def test_nothing_writes_a_reason_of_its_own() -> None:
    """A reason stands in one place: elsewhere the code names it."""
    also_other_words = {Reason.QUIET_HOURS, Reason.THROTTLED, Reason.AMBIGUOUS, Reason.BOUNCED}
    written = re.compile("|".join(rf"""["']{each}["']""" for each in Reason if each not in also_other_words))
    for path in sorted((ROOT / "notifier").rglob("*.py")):
        # Migrations and the indexes that they made keep the words of their day.
        if path.parent.name in {"versions", "models"} or path.stem == "reasons":
            continue
        assert not [line for line in path.read_text().splitlines() if written.search(line)], path
