"""Views read through one session on the process's own engine, and never hold a connection while they wait."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from api.app import create_app
from api.database import db
from config.settings import read_settings
from config.wiring import Wiring
from notifier.models import Base, Event
from notifier.security.address_seals import NO_SEALS, seals_of
from notifier.storage.engines import autocommit_of
from tests.conftest import QUICK
from tests.support.bodies import ASKED, READING
from tests.support.paths import ROOT
from tests.support.planted import USER, Planted, plant

#: The doors that events and notifications come in by, with a body for each.
DOORS = {
    "/api/v1/events": {"event_type": "x.y", "user_id": USER},
    "/api/v1/events/batch": {"events": [{"event_type": "x.y", "template": "t-1", "recipient": "a@example.com"}]},
    "/api/v1/notifications": {"user_id": USER, "body": "Hello"},
    "/events": {"type": "x.y", "user_id": USER},
    "/send-notification": {"user_id": USER, "body": "Hello"},
    "/notify": {"userId": USER, "type": "EMAIL", "template": "t-1", "data": {}},
}


@pytest.fixture
def wires(database_url: str) -> Iterator[Wiring]:
    """Return what an API within this process is built of."""
    wires = Wiring(read_settings({**QUICK, "DATABASE_URL": database_url}))
    yield wires
    wires.template_process.close()
    wires.engine.dispose()
    autocommit_of(wires.engine).dispose()


@pytest.fixture
def app(wires: Wiring) -> Flask:
    """That API."""
    return create_app(wires)


@pytest.fixture
def planted(app: Flask, wires: Wiring) -> Planted:
    """That API, with one row of everything."""
    return plant(app.test_client(), wires)


@pytest.fixture
def begun() -> Iterator[list[Session]]:
    """The sessions of the views that have begun a transaction."""
    sessions: list[Session] = []

    def note(session: Session, *_: object) -> None:
        sessions.append(session)

    event.listen(db.session, "after_begin", note)
    yield sessions
    event.remove(db.session, "after_begin", note)


def test_the_views_read_through_the_engine_that_the_process_has(app: Flask, wires: Wiring) -> None:
    with app.app_context():
        assert db.engine is wires.engine
        assert db.session.get_bind() is wires.engine
        assert seals_of(db.session()) is wires.seals is not NO_SEALS
        # The server's own deadline, which goes with the first statement of a transaction.
        assert db.session.scalar(text("SHOW statement_timeout")) == "5s"
        db.session.remove()
    assert db.metadata is Base.metadata


def test_two_apps_of_one_process_have_an_engine_each(app: Flask, wires: Wiring, engine: Engine) -> None:
    other = Wiring(read_settings({**QUICK, "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x"}))
    with create_app(other).app_context():
        assert db.engine is other.engine
    with app.app_context():
        assert db.engine is wires.engine


@pytest.mark.parametrize("path", DOORS)
def test_no_door_for_events_and_notifications_begins_a_session(
    planted: Planted, begun: list[Session], path: str
) -> None:
    answer = planted.client.post(path, json=DOORS[path])
    assert answer.status_code == 202, answer.text
    assert not begun
    assert planted.client.get("/api/v1/events").status_code == 200
    assert begun


def test_a_request_that_reads_nothing_takes_no_connection(app: Flask, wires: Wiring) -> None:
    taken: list[Any] = []
    event.listen(wires.engine, "checkout", lambda *_: taken.append(1))
    with app.test_client() as client:
        assert client.get("/health").status_code == 200
        assert not db.session.registry.has()
    assert not taken


def _held_at_most(engine: Engine, act: Callable[[], object]) -> int:
    """Return how many of an engine's connections one thread held at once while it acted."""
    now, most = Counter[int](), Counter[int]()

    def take(*_: object) -> None:
        here = threading.get_ident()
        now[here] += 1
        most[here] = max(most[here], now[here])

    def give_back(*_: object) -> None:
        now[threading.get_ident()] -= 1

    event.listen(engine, "checkout", take)
    event.listen(engine, "checkin", give_back)
    try:
        act()
    finally:
        event.remove(engine, "checkout", take)
        event.remove(engine, "checkin", give_back)
    assert now[threading.get_ident()] == 0, "a connection was not given back"
    return most[threading.get_ident()]


def test_no_request_holds_two_connections_at_once(planted: Planted) -> None:
    document: dict[str, Any] = planted.client.get("/openapi.json").get_json()
    held, pages = {}, 0
    for path, item in document["paths"].items():
        for method, operation in item.items():
            name = operation.get("operationId") if isinstance(operation, dict) else None
            if name is None or "x-required-scope" not in operation or method == "delete":
                continue
            body = READING.get(name, ASKED.get(name, (None, 0))[0])

            def ask(where: str = planted.path(path), how: str = method, body: Any = body) -> None:
                answer = planted.client.open(where, method=how, json=body)
                assert answer.status_code < 500, f"{how} {where}: {answer.text}"

            held[name] = _held_at_most(planted.engine, ask)
            pages += method == "get" and held[name] == 1
    assert {name: count for name, count in held.items() if count > 1} == {}
    assert pages > 20


def test_an_answer_is_made_once_the_connection_is_given_back(planted: Planted, app: Flask) -> None:
    pool = planted.engine.pool
    assert isinstance(pool, QueuePool)
    held = []

    def look(response: Response) -> Response:
        held.append(pool.checkedout())
        return response

    app.after_request_funcs.setdefault(None, []).append(look)  # before all others
    for path in ("/api/v1/notifications", f"/api/v1/users/{USER}", "/api/v1/users/nobody", "/api/v1/events?limit=0"):
        planted.client.get(path)
    assert held == [0, 0, 0, 0]


def test_a_connection_that_dies_after_it_was_read_from_costs_neither_the_answer_nor_a_place(
    planted: Planted, app: Flask, super_engine: Engine
) -> None:
    def read_and_lose() -> str:
        pid = db.session.scalar(text("SELECT pg_backend_pid()"))
        with super_engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        return "read"

    with app.app_context():
        for _ in range(18):  # more than a pool has
            assert read_and_lose() == "read"
            db.session.remove()
        assert not db.session.registry.has()
    assert isinstance(planted.engine.pool, QueuePool)
    assert planted.engine.pool.checkedout() == 0
    assert planted.client.get("/api/v1/events").status_code == 200


def test_what_is_read_is_never_written(planted: Planted, app: Flask) -> None:
    with app.app_context():
        event_row = db.get_or_404(Event, planted.ids["event_id"])
        event_row.event_type = "changed"
        assert db.session.scalar(text("SELECT event_type FROM events")) == "x.y"
        db.session.remove()
    assert planted.sql("SELECT event_type FROM events") == [("x.y",)]


def test_a_view_that_changes_a_row_answers_with_the_row_as_it_is_then(planted: Planted) -> None:
    path = planted.path("/api/v1/notifications/{scheduled_id}/cancel")
    assert planted.client.post(path).get_json()["status"] == "cancelled"


def test_views_open_no_sessions_of_their_own() -> None:
    opening = [path.name for path in sorted(Path(ROOT / "api").rglob("*.py")) if " Session(" in path.read_text()]
    assert opening == []
