"""Each column is written and read as itself: the lists of columns are taken from the models."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ARRAY, Boolean, Column, DateTime, Engine, Float, Integer, Text, Uuid, select, text

from notifier.models import Attempt, Base, Event, Notification, Resend
from notifier.models.columns import drafted, in_order_of, recordset
from notifier.notifications.attempts import Record, record
from notifier.notifications.claims import Aside, Claimed, Judged, claim, set_aside
from notifier.planning.drafts import as_document, insert_events, insert_notifications
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.resending.resend import Asked, keep
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import How, Status

NOW = datetime.now(UTC).replace(microsecond=0)


def unlike(place: int, column: Column[Any]) -> Any:
    """Return a value of a column's type that no other column of its table has."""
    if isinstance(column.type, ARRAY):
        return [new_id()] if isinstance(column.type.item_type, Uuid) else [f"the {column.name}"]
    values = {
        Uuid: new_id,
        DateTime: lambda: NOW + timedelta(hours=place),
        Integer: lambda: 100 + place,
        Float: lambda: place + 0.5,
        Boolean: lambda: True,
        Text: lambda: f"the {column.name}",
    }
    kind = next((each for each in values if isinstance(column.type, each)), None)
    return values[kind]() if kind else f'{{"a":"{column.name}"}}'


def row_of(model: type[Base], **known: Any) -> dict[str, Any]:
    """Return a row of which no two columns have the same value."""
    return {str(each.name): unlike(place, each) for place, each in enumerate(model.__table__.columns)} | known


def written(engine: Engine, model: type[Base]) -> dict[str, Any]:
    """Return the one row of a table."""
    with engine.connect() as connection:
        return dict(connection.execute(select(model.__table__)).mappings().one())


def insert(engine: Engine, row: dict[str, Any]) -> UUID:
    """Insert a notification; returns its id."""
    with engine.begin() as connection:
        connection.execute(Notification.__table__.insert(), row)
    row_id: UUID = row["id"]
    return row_id


def test_a_claimed_row_has_the_value_of_each_column_under_its_name(engine: Engine) -> None:
    row = row_of(Notification, status="queued", queue="sms", tries=2)
    row_id = insert(engine, row)
    with engine.begin() as connection:
        [claimed] = claim(connection, [row_id], 2, 30.0)
    stored = written(engine, Notification)
    assert {name: stored[name] for name in row if name not in {"status", "claims", "due_at"}} == {
        name: value for name, value in row.items() if name not in {"status", "claims", "due_at"}
    }
    for field in dataclasses.fields(Claimed):
        if field.name != "now":
            assert getattr(claimed, field.name) == stored[field.name], field.name
    assert abs(claimed.now - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("model", "statement", "parameter", "status", "known"),
    [
        (Event, insert_events(), "events", "accepted", {"version": 1}),
        (Notification, insert_notifications(), "notifications", "skipped", {}),
    ],
    ids=["events", "notifications"],
)
def test_a_drafts_values_go_to_the_columns_of_their_names(
    engine: Engine, model: type[Base], statement: str, parameter: str, status: str, known: dict[str, Any]
) -> None:
    row = {name: value for name, value in row_of(model, status=status).items() if name in drafted(model)}
    with engine.begin() as connection:
        connection.execute(text(statement), {parameter: as_document([as_json(model, row)]), **known})
    stored = written(engine, model)
    assert {name: stored[name] for name in row} == row
    if model is Notification:
        assert stored["rule"] == row["explanation"], "the release before reads that"


def as_json(model: type[Base], row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its JSON columns as documents, as drafts have them."""
    is_json = {name for name, kind in drafted(model).items() if kind == "JSON"}
    return {name: {"a": name} if name in is_json else value for name, value in row.items()}


def test_a_row_that_is_put_aside_gets_each_value_of_its_verdict(engine: Engine) -> None:
    row_id = insert(engine, row_of(Notification, status="sending", queue="sms", claims=7))
    judged = Judged("category", NOW, "Europe/Berlin", "the judgement")
    aside = Aside(
        row_id, 7, Status.SCHEDULED, "the reason", "the explanation", NOW, NOW - timedelta(hours=1), queue="the queue",
        judged=judged, waits_for=("the provider",),
    )  # fmt: skip
    with engine.begin() as connection:
        assert set_aside(connection, [aside]) == [aside]
    stored = written(engine, Notification)
    wanted = {"status": "scheduled", "reason": "the reason", "explanation": "the explanation", "due_at": NOW}
    wanted |= {"rule": "the explanation", "deferred_at": NOW - timedelta(hours=1), "queue": "the queue"}
    assert {name: stored[name] for name in wanted} == wanted
    assert stored["waits_for"] == ["the provider"]
    assert '"explanation":"the judgement"' in stored["judged"]


def test_an_attempt_has_each_part_of_its_result_under_its_name(engine: Engine) -> None:
    row_id = insert(engine, row_of(Notification, status="sending", queue="sms", claims=7, attempts=0))
    given = {
        "error": "the error", "message_id": "the message", "status_code": 503, "fault": Fault.PROVIDER,
        "response_excerpt": "the excerpt", "request_headers": {"a": "request"}, "response_headers": {"a": "response"},
        "timing": {"total_ms": 1.5},
    }  # fmt: skip
    result = Result(row_id, Outcome.UNSENT, "the provider", NOW, 12.5, **given)
    record(engine, [Record(result, 7, 1, 1)], finished=Status.SENT, emit_events=False)
    stored = written(engine, Attempt)
    named = {name: stored[name] for name in given if not name.endswith("headers") and name != "timing"}
    assert named == {name: given[name] for name in named}
    assert (stored["notification_id"], stored["number"], stored["provider"]) == (row_id, 1, "the provider")
    assert (stored["outcome"], stored["started_at"], stored["duration_ms"]) == ("unsent", NOW, 12.5)
    for name in ("request_headers", "response_headers"):
        assert name.partition("_")[0] in stored[name]
    assert "total_ms" in stored["timing"]


def test_a_resend_keeps_each_column_as_it_stood(engine: Engine) -> None:
    row = row_of(Notification, status="failed", due_at=None)
    row_id = insert(engine, row)
    with engine.begin() as connection:
        keep(connection, [row_id], Asked(How.RESEND, "ada"))
    stored = written(engine, Resend)
    same = ("status", "reason", "explanation", "sent_at", "delivered_at", "attempts")
    assert {name: stored[name] for name in same} == {name: row[name] for name in same}
    assert (stored["notification_id"], stored["how"], stored["asked_by"]) == (row_id, "resend", "ada")


@dataclass
class Misspelt:
    id: UUID
    expires: datetime


def test_a_field_without_a_column_stops_the_import() -> None:
    with pytest.raises(LookupError, match="expires"):
        in_order_of(Misspelt, Notification)
    with pytest.raises(LookupError, match="expires"):
        recordset(Misspelt, Notification)
    assert recordset(Misspelt, Notification, expires="date") == "id UUID, expires date"
