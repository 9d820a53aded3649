"""Fan-out among events, routes and subscriptions that hold the worst."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import text

from config.settings import read_settings
from config.wiring import Wiring
from notifier.events import fan_out as event_fan_out
from notifier.observability.tracing import BatchTrace
from notifier.runtime.isolation import in_parts, kind_of
from notifier.vocabulary.ids import new_id
from tests.conftest import QUICK
from tests.support.poison import EVENTS, GOOD, ROUTES, SUBSCRIPTIONS, Batch, subscribe, worst


@pytest.fixture(scope="module")
def wires(new_database: Any) -> Iterator[Wiring]:
    """The wiring of a worker, on a database of this file's own."""
    made = Wiring(read_settings({**QUICK, "DATABASE_URL": new_database(), "REDIS_URL": "redis://127.0.0.1:1"}))
    yield made
    made.template_process.close()
    made.engine.dispose()


_UNFINISHED: Final = text(
    "SELECT id FROM events WHERE id = ANY(:ids) AND status = 'accepted' AND fan_out_after IS NOT NULL ORDER BY id"
)


def fan_out(wires: Wiring, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Fan out the events of a message as tasks.fan_out does; return the errors of events that cannot be fanned out."""
    failed: dict[UUID, str] = {}

    def work(part: Sequence[UUID]) -> None:
        event_fan_out.fan_out(
            wires.engine, part, wires.planner(lambda _: 60.0), wires.subscribers, BatchTrace("fan out")
        )

    def give_up(event_id: UUID, error: Exception) -> None:
        failed[event_id] = kind_of(error)

    while ids:
        in_parts(ids, work, give_up)
        # Filters have so much time a batch: what is left on a slow machine is handed over again, where it stopped.
        with wires.engine.connect() as connection:
            ids = list(connection.scalars(_UNFINISHED, {"ids": list(ids)}))
    return failed


class Events(Batch):
    """Events that are not fanned out; two good routes and subscriptions are for them, and some that a test spoils."""

    def __init__(self, wires: Wiring, values: Sequence[str]) -> None:
        super().__init__(wires.engine, values)
        self.sql("DELETE FROM notifications; DELETE FROM routes; DELETE FROM subscriptions")
        self.sql(
            "UPDATE events SET status = 'accepted', due_at = now() + interval '1 hour' WHERE id = ANY(:ids)",
            ids=self.ids,
        )
        self.others = [new_id(), new_id()]
        route = {"event_type": "poison.*", "to": {"recipient": "join('', ['slack://', source])", "channel": "chat"}}
        self.sql(
            "INSERT INTO routes (id, name, event_type, definition, enabled, created_at, updated_at)"
            " SELECT id, CAST(id AS text), 'poison.*', CAST(:route AS json), true, now(), now()"
            " FROM unnest(CAST(:ids AS uuid[])) AS made(id)",
            route=json.dumps(route),
            ids=[*self.others, *self.bad],
        )
        subscribe(self, [*self.others, *self.bad], "http://127.0.0.1/", b"x")
        self.sql("UPDATE listeners SET version = version + 1")

    def made(self) -> list[tuple[str, int]]:
        """Of each good event its status, and how many notifications the good routes and subscriptions made of it."""
        rows = self.sql(
            "SELECT status, (SELECT count(*) FROM notifications n WHERE n.event_id = e.id AND status = 'queued'"
            " AND (route = ANY(:names) OR subscription_id = ANY(:others)))"
            " FROM events e WHERE id = ANY(:ids)",
            ids=self.good,
            names=[str(each) for each in self.others],
            others=self.others,
        )
        return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("table", "column", "values"), worst(EVENTS, ROUTES, SUBSCRIPTIONS, names=("events", "routes", "subscriptions"))
)
def test_a_bad_row_costs_no_other_event_its_notifications(
    wires: Wiring, table: str, column: str, values: Sequence[str]
) -> None:
    events = Events(wires, values)
    events.spoil(table, column)
    failed = fan_out(wires, events.ids)
    assert events.made() == [("processed", 4)] * GOOD
    assert set(failed) <= (set(events.bad) if table == "events" else set())
    for event_id, status in events.sql("SELECT id, status FROM events WHERE id = ANY(:ids)", ids=list(events.bad)):
        assert (status == "processed") != (event_id in failed), events.bad[event_id]


def test_what_a_broken_route_does_not_make_is_on_record(wires: Wiring) -> None:
    events = Events(wires, ["""'{"to": 5}'"""])
    [bad] = events.bad
    events.spoil("routes", "definition")
    assert not fan_out(wires, events.ids)
    rows = events.sql("SELECT status, reason, explanation FROM notifications WHERE route = :name", name=str(bad))
    assert len(rows) == GOOD + 1
    for status, reason, explanation in rows:
        assert (status, reason) == ("skipped", "broken_route")
        assert explanation.startswith(f"The route {bad} is broken.")
