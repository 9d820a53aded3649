"""The relay when something breaks: nothing is lost, and nothing is sent twice."""

import contextlib
import json
import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from notifier_client import Client
from notifier_client.relay import Blocked, Moved, Relay, Report, relay_once
from tests.support.middleman import Middleman, Said, nothing
from tests.support.relaying import Shop
from tests.support.running import free_port, wait_for

EVENT = {"event_type": "order.paid"}
ID = b"01a1fc47-52fc-7015-a681-4dd01035c71e"
QUICK = ("--interval", "0.05")


@pytest.fixture
def middleman(shop: Shop) -> Iterator[Middleman]:
    """A middleman between the shop's relays and the API."""
    with Middleman(shop.caller.url) as middleman:
        yield middleman


def client_of(shop: Shop, middleman: Middleman) -> Client:
    return Client(middleman.url, key=shop.caller.key, retries=0)


def test_a_relay_that_is_killed_between_the_answer_and_the_mark_makes_no_second_event(
    shop: Shop, middleman: Middleman
) -> None:
    shop.write_many(100)
    for _ in range(4):
        with shop.relaying("--batch", "10", *QUICK, NOTIFIER_API_URL=middleman.url) as process:
            killed = threading.Event()

            def kill(_: bytes, said: Said, process: Any = process, killed: threading.Event = killed) -> None:
                assert said.status == 202
                process.kill()
                killed.set()

            middleman.before_answer = kill
            assert killed.wait(60)
        assert shop.marks() == [], "Postgres has let go what the killed one held, as it was"
        assert len(shop.events()) == 10, "the same ones each time"
    middleman.before_answer = nothing
    assert shop.move() == Moved(sent=100, duplicates=10)
    shop.check_exactly_once()
    assert len(shop.events()) == 100


#: A relay as a service may have it in a process of its own, without what manage.py brings.
WORKER = """
import sys, threading
import psycopg2
from notifier_client import Client
from notifier_client.relay import Relay
url, api, key = sys.argv[1:]
Relay(lambda: psycopg2.connect(url), Client(api, key=key, retries=0), batch=7).run(threading.Event())
"""


def test_relays_that_are_killed_at_any_moment_lose_nothing_and_send_nothing_twice(shop: Shop) -> None:
    shop.write_many(1000)
    chance = random.Random(7)
    kills = 0
    while shop.waiting() and kills < 15:
        left = shop.waiting()
        with shop.working(WORKER, shop.url, shop.caller.url, shop.caller.key) as process:
            wait_for(lambda left=left: shop.waiting() < left, 60, "it to begin")
            # Not a wait for something: a moment like any other.
            threading.Event().wait(chance.uniform(0, 0.1))
            process.kill()
        kills += 1
    assert kills > 5
    shop.move()
    assert shop.waiting() == 0
    assert len(shop.events()) == 1000
    shop.check_exactly_once()


def test_two_relays_at_once_move_a_backlog_completely(shop: Shop) -> None:
    shop.write_many(5000)
    with shop.relaying("--batch", "100") as one, shop.relaying("--batch", "100") as other:
        shop.wait_until_moved()
        for process in (one, other):
            process.stop()
        sent = [sum(line["sent"] for line in process.lines("relayed")) for process in (one, other)]
    assert sum(sent) == 5000
    assert min(sent) > 0, "both had their part"
    assert len(shop.events()) == 5000
    shop.check_exactly_once()


def test_rows_of_a_relay_that_hangs_are_moved_by_another(shop: Shop, middleman: Middleman) -> None:
    shop.write_many(20)
    asked, go_on = threading.Event(), threading.Event()

    def hang(_: bytes, said: Said) -> None:
        assert said.status == 202
        asked.set()
        assert go_on.wait(60)

    middleman.before_answer = hang
    reports: list[Report] = []
    hung = Relay(shop.connect, client_of(shop, middleman), hold=timedelta(seconds=1), report=reports.append)
    stop = threading.Event()
    thread = threading.Thread(target=hung.run, args=(stop,))
    thread.start()
    try:
        assert asked.wait(60)
        with contextlib.closing(shop.connect()) as connection:
            direct = Client(shop.caller.url, key=shop.caller.key)
            assert relay_once(connection, direct) == Moved(), "they are held"
            moved = wait_for(lambda: relay_once(connection, direct).sent, what="Postgres to let go of them")
        assert moved == 20
    finally:
        stop.set()
        go_on.set()
        thread.join(60)
    [report] = reports
    assert str(report.blocked).startswith("Postgres: ")
    assert len(shop.events()) == 20
    shop.check_exactly_once()


def test_an_api_that_is_away_costs_nothing_and_is_found_again(shop: Shop) -> None:
    port = free_port()
    shop.write_many(10)
    away = f"http://127.0.0.1:{port}"
    assert shop.relay("--once", NOTIFIER_API_URL=away) == (
        "Error: POST /api/v1/events/batch: could not connect (Connection refused)\n",
        1,
    )
    with shop.relaying(*QUICK, NOTIFIER_API_URL=away) as process:
        [line, *_] = wait_for(lambda: process.lines("relay_blocked"), what="a line about it")
        assert (line["level"], line["waiting"]) == ("warning", 10)
        assert line["oldest_seconds"] >= 0
        assert "could not connect" in line["error"]
        assert [row for [row] in shop.sql("SELECT DISTINCT attempts FROM notifier_relay")] == [0]
        with Middleman(shop.caller.url, port):
            shop.wait_until_moved()
    shop.check_exactly_once()


def test_a_database_that_is_away_is_found_again(shop: Shop) -> None:
    [[name]] = shop.sql("SELECT current_database()")
    with shop.relaying(*QUICK) as process:
        shop.write_many(1)
        shop.wait_until_moved()
        closed = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        shop.sql(f"{closed} AND pid <> pg_backend_pid()")
        wait_for(lambda: process.lines("relay_blocked"), what="a line about it")
        shop.write_many(1)
        shop.wait_until_moved()
        # Not even a table that is away for a while ends it.
        shop.sql("ALTER TABLE notifier_relay RENAME TO elsewhere")
        wait_for(lambda: "does not exist" in process.output(), what="a line about it")
        shop.sql("ALTER TABLE elsewhere RENAME TO notifier_relay")
        shop.write_many(1)
        shop.wait_until_moved()
    shop.check_exactly_once()


@pytest.mark.parametrize(
    ("said", "retry_after"),
    [
        (Said(429, b"{}", {"Retry-After": "7"}), 7.0),
        (Said(503, b"{}", {"Retry-After": "5"}), 5.0),
        (Said(502, b"<html>"), None),
        (Said(401), None),
        (Said(403), None),
        (Said(404), None),
        (Said(302, b"", {"Location": "/"}), None),
        (Said(400), None),
        (Said(422), None),
        (Said(202, b"<html>Welcome</html>"), None),
        (Said(202, b'{"items": []}'), None),
        (Said(202, b'{"items": [{"index": 1, "status": "accepted", "id": "%s"}]}' % ID), None),
        (Said(202, b'{"items": [{"index": 0, "status": "accepted", "id": "%s"}, {}]}' % ID), None),
        (Said(202, b'{"items": [{"index": 0, "status": "accepted", "id": "x"}]}'), None),
        (Said(202, b'{"items": [{"index": 0, "status": 422, "errors": 1}]}'), None),
    ],
)
def test_answers_that_are_about_no_row_park_none(
    shop: Shop, middleman: Middleman, said: Said, retry_after: float | None
) -> None:
    shop.write(EVENT)
    middleman.instead = lambda _: said
    with contextlib.closing(shop.connect()) as connection:
        with pytest.raises(Blocked) as blocked:
            relay_once(connection, client_of(shop, middleman))
        assert blocked.value.retry_after == retry_after
        assert shop.waiting() == 1
        middleman.instead = lambda _: None
        assert relay_once(connection, client_of(shop, middleman)).sent == 1
    shop.check_exactly_once()


def test_rows_that_notifier_fails_on_hold_up_no_others(shop: Shop, middleman: Middleman) -> None:
    poison = []
    for _ in range(3):
        shop.write_many(20)
        poison += shop.write({"event_type": "poison"})
    shop.write_many(20)
    middleman.instead = lambda body: Said(500) if b"poison" in body else None
    with contextlib.closing(shop.connect()) as connection:
        assert relay_once(connection, client_of(shop, middleman)) == Moved(sent=80, failed=3)
        for key in poison:
            row = shop.row(key)
            assert (row["refused_at"], row["sent_at"], row["attempts"]) == (None, None, 1)
            assert "500" in row["last_error"]
        # Another relay knows nothing of it, and tries.
        middleman.instead = lambda _: None
        assert relay_once(connection, client_of(shop, middleman)).sent == 3
    shop.check_exactly_once()


def test_a_notifier_that_fails_on_every_row_gets_few_requests(shop: Shop, middleman: Middleman) -> None:
    shop.write_many(100)
    asked = []

    def fail(body: bytes) -> Said:
        asked.append(body)
        return Said(500)

    middleman.instead = fail
    with contextlib.closing(shop.connect()) as connection:
        with pytest.raises(Blocked, match="500"):
            relay_once(connection, client_of(shop, middleman))
        assert len(asked) < 20
        middleman.instead = lambda _: None
        assert relay_once(connection, client_of(shop, middleman)).sent == 100
    shop.check_exactly_once()


def test_a_row_that_breaks_the_connection_holds_up_no_others(shop: Shop, middleman: Middleman) -> None:
    shop.write_many(4)
    shop.write({"event_type": "poison"})
    shop.write_many(4)
    middleman.instead = lambda body: Said(0) if b"poison" in body else None
    with contextlib.closing(shop.connect()) as connection:
        relay = Relay(shop.connect, client_of(shop, middleman))
        for _ in range(10):
            with contextlib.suppress(Blocked):
                relay.drain(connection)
    assert shop.waiting() == 1
    shop.check_exactly_once()


def test_one_item_that_notifier_fails_on_waits(shop: Shop, middleman: Middleman) -> None:
    first, second = shop.write(EVENT, EVENT)
    item = {"index": 0, "status": 503, "type": "/problems/unavailable", "errors": {"_schema": ["Later."]}}

    def fail_first(_: bytes, said: Said) -> None:
        answer = json.loads(said.body)
        said.body = json.dumps({**answer, "items": [item, *answer["items"][1:]]}).encode()

    middleman.before_answer = fail_first
    with contextlib.closing(shop.connect()) as connection:
        assert relay_once(connection, client_of(shop, middleman)) == Moved(sent=1, failed=1)
        assert shop.row(second)["sent_at"]
        row = shop.row(first)
        assert (row["refused_at"], row["sent_at"], row["attempts"]) == (None, None, 1)
        assert row["last_error"] == "503 /problems/unavailable: _schema: Later."
        middleman.before_answer = nothing
        assert relay_once(connection, client_of(shop, middleman)) == Moved(sent=1, duplicates=1)
    shop.check_exactly_once()


@pytest.mark.parametrize("status", [413, 422])
def test_an_api_that_takes_less_at_once_gets_less(shop: Shop, middleman: Middleman, status: int) -> None:
    shop.write_many(100)
    middleman.instead = lambda body: Said(status) if body.count(b"\n") >= 9 else None
    with contextlib.closing(shop.connect()) as connection:
        assert relay_once(connection, client_of(shop, middleman)) == Moved(sent=100)
    shop.check_exactly_once()


def test_a_row_that_is_too_large_for_a_request_is_parked(shop: Shop, middleman: Middleman) -> None:
    shop.write_many(30)
    [large] = shop.write({"event_type": "order.paid", "payload": {"x": "x" * 200_000}})
    shop.write_many(30)
    middleman.instead = lambda body: Said(413, b'{"type": "/problems/x", "detail": "No."}') if len(body) > 1e5 else None
    with contextlib.closing(shop.connect()) as connection:
        assert relay_once(connection, client_of(shop, middleman)) == Moved(sent=60, refused=1)
    assert shop.row(large)["last_error"] == "413 /problems/x: No."
    shop.check_exactly_once()


def test_large_rows_go_in_requests_that_the_api_takes(shop: Shop, middleman: Middleman) -> None:
    shop.write(*({"event_type": "order.paid", "payload": {"x": "x" * 250_000}} for _ in range(40)))
    with contextlib.closing(shop.connect()) as connection:
        assert relay_once(connection, client_of(shop, middleman)) == Moved(sent=40)
    assert len(middleman.passed) == 3
    assert max(map(len, middleman.passed)) < 4 << 20
    shop.check_exactly_once()


def test_a_connection_that_commits_by_itself_is_refused(shop: Shop, middleman: Middleman) -> None:
    with contextlib.closing(shop.connect()) as connection:
        connection.autocommit = True
        with pytest.raises(Exception, match="autocommit"):
            relay_once(connection, client_of(shop, middleman))
    assert middleman.passed == []


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"batch": 1001}, {"interval": timedelta()}, {"keep": timedelta(-1)}, {"table": "a b"}]
)
def test_options_that_cannot_be_are_refused(shop: Shop, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|is no table"):
        Relay(shop.connect, Client(shop.caller.url), **options)
