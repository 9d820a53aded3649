"""Connections to Postgres that go silent while they stay open, as behind a proxy that hangs."""

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
import requests
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from notifier.storage.deadlines import BoundConnection, bound, with_deadlines, within
from tests.chaos.proxy import HOST, Loop, Proxy
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    """A loop for proxies."""
    with Loop() as found:
        yield found
    found.loop.close()


@pytest.fixture
def proxied(loop: Loop, database_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a database, and the URL that leads through it."""
    url = make_url(database_url)
    assert url.port
    proxy = Proxy(loop, url.port, random.Random(0))
    yield proxy, url.set(host=HOST, port=proxy.port).render_as_string(hide_password=False)
    loop.run(_close(proxy))


async def _close(proxy: Proxy) -> None:
    proxy._server.close()
    proxy._drop()
    while proxy.connections:
        await asyncio.sleep(0.01)


@pytest.fixture
def proxy_and_engine(proxied: tuple[Proxy, str]) -> Iterator[tuple[Proxy, Engine]]:
    """A proxy, and an engine that works through it."""
    proxy, url = proxied
    made = make_url(url).set(drivername="postgresql+psycopg2")
    engine = with_deadlines(
        create_engine(made, pool_pre_ping=True, connect_args={"connection_factory": BoundConnection})
    )
    bound(engine, 1.0, statement=0.5, lock=0.2)
    yield proxy, engine
    engine.dispose()


def test_a_silent_connection_is_given_up_and_all_of_its_age_are_replaced(
    proxy_and_engine: tuple[Proxy, Engine],
) -> None:
    proxy, engine = proxy_and_engine
    with engine.connect() as connection, engine.connect() as idle:
        assert connection.scalar(text("SELECT 1")) == idle.scalar(text("SELECT 1")) == 1
        idle.close()
        proxy.silence()
        with pytest.raises(OperationalError, match="did not answer in time") as raised:
            connection.scalar(text("SELECT 1"))
        assert raised.value.connection_invalidated
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        proxy.silence()
        with pytest.raises(OperationalError, match="did not answer in time"):
            connection.commit()
    proxy.silence()  # and this one is found out before it is lent
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(database_url: str) -> None:
    with_deadlines(create_engine(make_url(database_url).set(drivername="postgresql+psycopg2")))
    with socket.create_server((HOST, 0)) as mute, within(0.2), pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(host=HOST, port=mute.getsockname()[1], user="x", dbname="x")


def test_the_servers_own_deadlines_go_with_each_transaction(proxy_and_engine: tuple[Proxy, Engine]) -> None:
    _, engine = proxy_and_engine
    shown = text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
    beside = engine.execution_options(isolation_level="AUTOCOMMIT")
    for each in (engine, beside, engine):
        with each.connect() as connection:
            assert tuple(connection.execute(shown).one()) == ("500ms", "200ms")
            # Who asks for others has them to the end of the transaction.
            if each is engine:
                connection.execute(text("SET LOCAL statement_timeout = '400ms'"))
                assert tuple(connection.execute(shown).one()) == ("400ms", "200ms")
                connection.rollback()
            assert tuple(connection.execute(shown).one()) == ("500ms", "200ms")


def test_silent_connections_stop_nothing_for_good(
    proxied: tuple[Proxy, str], start_system: Callable[..., Running], http: HttpReceiver
) -> None:
    proxy, url = proxied
    system = start_system(DATABASE_URL=url)
    # Asked over HTTP alone: a look into the database would go through the proxy too.
    before = system.event(recipient=http.url("/before"), channel="webhook")
    wait_for(lambda: system.notifications(before)[0]["status"] == "delivered")

    def post(path: str) -> int:
        event = {"event_type": "x", "recipient": http.url(path), "channel": "webhook"}
        # Each answer comes within 10 s, whatever hangs.
        answer = requests.post(f"{system.url}/api/v1/events", json=event, headers=system.http.headers, timeout=10)
        return answer.status_code

    def ready() -> requests.Response:
        return requests.get(f"{system.url}/ready", timeout=5)

    with ThreadPoolExecutor(80) as callers:
        # More callers than the API has threads: those that watch it have their own.
        proxy.silence()
        proxy.mute = True
        answers = [callers.submit(post, "/while") for _ in range(80)]
        found = ready()
        assert (found.status_code, found.json()["checks"]["postgres"]["status"]) == (503, "failed")
        assert {each.result() for each in answers} == {503}
        proxy.behave()
        proxy.silence()
        wait_for(lambda: post("/after") == 202)
    wait_for(lambda: ready().json()["status"] == "ok", 60)
    last = system.event(recipient=http.url("/last"), channel="webhook")
    wait_for(lambda: system.notifications(last)[0]["status"] == "delivered")
