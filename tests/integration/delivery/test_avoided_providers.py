"""The providers that the gate's inputs put last for a row: by its attempts, and by how it was sent again."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event

from notifier.delivery.gate_inputs import read
from notifier.notifications.claims import claim
from notifier.resending.reschedule import resend
from notifier.vocabulary.states import Channel, How
from tests.support.receipt_rows import attempted, move, row, rows, sql


def again(engine: Engine, row_id: UUID, how: How = How.ANOTHER_PROVIDER) -> None:
    resend(engine, row_id, lambda _: 60.0, "tester", how=how)


def called(engine: Engine, row_id: UUID, provider: str | None) -> None:
    """Do as a worker does that sends a queued row by a provider."""
    move(engine, row_id, "sending")
    sql(engine, "UPDATE notifications SET claims = claims + 1, attempts = attempts + 1 WHERE id = :id", id=row_id)
    [found] = sql(engine, "SELECT claims, attempts FROM notifications WHERE id = :id", id=row_id)
    attempted(engine, [row_id], found.claims, found.attempts, provider=provider)
    move(engine, row_id, "sent")


def last_resort(engine: Engine, row_id: UUID, **options: bool) -> tuple[str, ...]:
    """Claim a queued row, read the facts about it, and put it back."""
    with engine.connect() as connection, connection.begin() as transaction:
        claimed = claim(connection, [row_id], 0, 60)
        assert claimed
        facts = read(connection, Channel.EMAIL, claimed, **{"several_providers": True, **options})
        transaction.rollback()
    return facts.last_resort.get(row_id, ())


def test_those_that_were_called_before_come_last(engine: Engine) -> None:
    row_id = row(engine, "sent")
    again(engine, row_id)
    assert last_resort(engine, row_id) == ("acme",)
    assert last_resort(engine, row_id, is_retry=True) == ("acme",)
    assert last_resort(engine, row_id, several_providers=False) == ()


def test_the_one_that_was_called_last_is_at_the_end(engine: Engine) -> None:
    row_id = row(engine, "sent")
    for provider in ("third", "acme", None, "other"):
        again(engine, row_id)
        called(engine, row_id, provider)
    again(engine, row_id)
    assert last_resort(engine, row_id) == ("third", "acme", "other"), "nobody knows whom a lost worker called"


@pytest.mark.parametrize("how", [How.RESEND, How.REQUEUE, How.RECOVER])
def test_only_the_latest_resend_counts(engine: Engine, how: How) -> None:
    row_id = row(engine, "sent")
    again(engine, row_id)
    called(engine, row_id, "other")
    again(engine, row_id, how)
    assert last_resort(engine, row_id) == ()
    called(engine, row_id, "acme")
    again(engine, row_id)
    assert last_resort(engine, row_id) == ("other", "acme")


def test_those_that_are_called_afterwards_are_not_avoided(engine: Engine) -> None:
    row_id = row(engine, "sent")
    again(engine, row_id)
    called(engine, row_id, "other")
    for status in ("retrying", "queued"):
        move(engine, row_id, status)
    assert last_resort(engine, row_id, is_retry=True) == ("acme",)


def test_one_that_could_not_deliver_it_comes_last_in_retries_alone(engine: Engine) -> None:
    row_id = row(engine, "sent")
    sql(engine, "UPDATE attempts SET error = 'bounced: busy'")
    for status in ("retrying", "queued"):
        move(engine, row_id, status)
    assert last_resort(engine, row_id, is_retry=True) == ("acme",)
    assert last_resort(engine, row_id) == ()


def test_rows_that_were_never_tried_cost_no_query(engine: Engine) -> None:
    [fresh] = rows(engine, "queued", 1, attempts=0)
    tried = row(engine, "sent")
    again(engine, tried)
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    for row_id, count in ((fresh, 0), (tried, 1)):
        with engine.begin() as connection:
            claimed = claim(connection, [row_id], 0, 60)
            event.listen(connection, "before_cursor_execute", note)
            read(connection, Channel.EMAIL, claimed, several_providers=True)
        assert sum("FROM resends" in statement for statement in seen) == count


def parts(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all parts of a plan."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from parts(each)


@pytest.mark.parametrize("count", [1, 500])
def test_resends_are_found_by_their_index(engine: Engine, count: int) -> None:
    """Also where the table has no statistics yet."""
    sql(
        engine,
        "INSERT INTO resends (id, notification_id, how, asked_by, asked_at, status, attempts)"
        " SELECT gen_random_uuid(), gen_random_uuid(), 'resend', 'x', now(), 'sent', 1 FROM generate_series(1, 20000)",
    )
    ids = rows(engine, "sent", count)
    again(engine, ids[0])
    sql(engine, "UPDATE notifications SET status = 'queued', due_at = now() WHERE status = 'sent'")
    plans: list[dict[str, Any]] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM resends" in statement:
            with connection.connection.cursor() as beside:
                beside.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
                plans.append(beside.fetchone()[0][0]["Plan"])

    with engine.begin() as connection:
        claimed = claim(connection, ids, 0, 60)
        event.listen(connection, "before_cursor_execute", explain)
        facts = read(connection, Channel.EMAIL, claimed, several_providers=True)
    assert (len(claimed), facts.last_resort) == (count, {ids[0]: ("acme",)})
    [plan] = plans
    found = list(parts(plan))
    assert "Seq Scan" not in {each["Node Type"] for each in found}
    assert [each["Index Name"] for each in found if "Index Name" in each] == ["resends_notification_id_idx"]
