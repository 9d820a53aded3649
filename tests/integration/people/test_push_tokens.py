"""Push tokens at which nobody is any more are removed from their users, and no others."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, create_engine, text

from config.settings import read_settings
from config.wiring import Wiring
from notifier.content.templates import EMPTY
from notifier.delivery.batch_failed import BatchFailed
from notifier.people import users
from notifier.people.push_tokens import prune_tokens
from notifier.planning.drafts import as_document, insert_notifications
from notifier.planning.plans import Origin, Plan, Planner
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import Received
from tests.providers.vendors import fcm
from tests.support.running import wait_for

Put = Callable[..., None]
WAITING = text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
NOBODY = dict.fromkeys(["email", "phone", "webhook_url", "chat_url", "timezone", "locale"])


@pytest.fixture
def put(engine: Engine) -> Put:
    """Registers a user with push tokens."""

    def with_tokens(user_id: str, *tokens: str) -> None:
        users.put(engine, user_id, NOBODY | {"push_tokens": list(tokens)}, b"{}")

    return with_tokens


def tokens(engine: Engine) -> dict[str, list[str]]:
    """Everybody's."""
    with engine.connect() as connection:
        return {row.user_id: row.push_tokens for row in connection.execute(text("SELECT * FROM users"))}


def test_those_of_the_user_go_and_the_others_keep_their_order(engine: Engine, put: Put) -> None:
    put("ada", "a", "gone", "b", "c", "lost")
    put("ben", "gone", "b")
    put("cleo", "gone")
    gone = {("ada", "gone"), ("ada", "lost"), ("ada", "never had"), ("cleo", "gone"), ("nobody", "gone")}
    assert prune_tokens(engine, gone) == 2
    expected = {"ada": ["a", "b", "c"], "ben": ["gone", "b"], "cleo": []}
    assert tokens(engine) == expected
    assert prune_tokens(engine, {("ada", "gone")}) == 0
    assert prune_tokens(engine, set()) == 0
    assert tokens(engine) == expected


def test_what_somebody_else_changes_meanwhile_is_not_lost(engine: Engine, put: Put) -> None:
    put("ada", "a", "b", "c")
    pruned: list[int] = []
    with engine.connect() as connection:
        connection.execute(text("UPDATE users SET push_tokens = ARRAY['b', 'c', 'new']"))
        thread = threading.Thread(target=lambda: pruned.append(prune_tokens(engine, {("ada", "b")})))
        thread.start()
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as other:
            wait_for(lambda: other.execute(WAITING).first(), what="a lock that is waited for")
        connection.commit()
    thread.join()
    assert (pruned, tokens(engine)) == ([1], {"ada": ["c", "new"]})


def test_a_database_that_is_away_is_no_reason_to_fail() -> None:
    away = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nowhere", connect_args={"connect_timeout": 1})
    assert prune_tokens(away, {("ada", "a")}) == 0


ANSWERS = {
    "gone": fcm.error(404, "NOT_FOUND", "UNREGISTERED"),
    "broken": fcm.error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "message.token"),
    "another's": fcm.error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
    "text": fcm.error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "message.data"),
    "later": fcm.error(503, "UNAVAILABLE", "UNAVAILABLE"),
    "denied": fcm.error(403, "PERMISSION_DENIED"),
}


def answer(request: Received) -> bytes:
    """Return what FCM says of a token: what it is called, and else yes."""
    return ANSWERS.get(orjson.loads(request.body)["message"]["token"], fcm.VENDOR.success)


@pytest.fixture
def wires(database_url: str) -> Iterator[Wiring]:
    """A process that sends push notifications to a server that says what it is asked for."""
    with receivers.http(answer) as (listener, _):
        made = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_PUSH": fcm.VENDOR.dsn(listener.port)}))
        yield made
        made.engine.dispose()


def deliver(wires: Wiring, plan: Plan) -> dict[str, bool]:
    """Make a plan's notifications and send them; returns which failed for good, or for now."""
    with wires.engine.begin() as connection:
        person = users.people(connection, [plan.user_id]).get(plan.user_id or "")
        planner = Planner(lambda _: 60.0, frozenset(Channel))
        rows = planner.rows(plan, Origin(new_id(), "test"), person, EMPTY)
        connection.execute(text(insert_notifications()), {"notifications": as_document(rows)})
    addresses: dict[Any, str] = {row["id"]: row["recipient"] for row in rows}
    try:
        wires.deliveries[Channel.PUSH].deliver(list(addresses), 0, lambda *_: False)
    except BatchFailed as failed:
        return {addresses[row.id]: row.permanent for row in failed.rows}
    return {}


def test_what_a_push_service_calls_dead_is_removed(wires: Wiring, engine: Engine, put: Put) -> None:
    put("ada", "gone", "fine", *(each for each in ANSWERS if each != "gone"))
    put("ben", "gone")
    failed = deliver(wires, Plan(user_id="ada", channels=(Channel.PUSH,), content={"body": "Hello."}))
    # A wrong service account, a text that is refused and an outage say nothing about anybody's tokens.
    kept = ["fine", "another's", "text", "later", "denied"]
    dead = {"gone", "broken", "another's", "text"}
    assert failed == {token: token in dead for token in ANSWERS}
    assert tokens(engine) == {"ada": kept, "ben": ["gone"]}
    assert not {"gone", "broken"} & set(
        deliver(wires, Plan(user_id="ada", channels=(Channel.PUSH,), content={"body": "Hello."}))
    )


def test_a_token_without_a_user_is_nobodys(wires: Wiring, engine: Engine, put: Put) -> None:
    put("ben", "gone")
    plan = Plan(recipient="gone", channels=(Channel.PUSH,), content={"body": "Hello."})
    assert deliver(wires, plan) == {"gone": True}
    assert tokens(engine) == {"ben": ["gone"]}
