"""Chat through Apprise, whose `json` service stands in for the hosted ones."""

import itertools
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.protocol import Fault, Message, Outcome, Provider, Result
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.providers import receivers

# A plugin of Apprise imports it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def made(dsn: str = "apprise:?services=json", timeout: float = 5.0) -> Provider:
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    return registry.make(dsn, Context(Channel.CHAT, timeout, "a@example.com", "https://example.com", (), engine))


def to(recipient: str) -> Message:
    return Message(new_id(), recipient, subject="Shipped", text="Your order, 世界")


def sent(provider: Provider, *messages: Message) -> dict[UUID, Result]:
    results = list(itertools.chain.from_iterable(provider.send(iter(messages))))
    assert sorted(result.id for result in results) == sorted(message.id for message in messages)
    return {result.id: result for result in results}


def one(recipient: str, dsn: str = "apprise:?services=json", timeout: float = 5.0) -> Result:
    message = to(recipient)
    with closing(made(dsn, timeout)) as provider:
        return sent(provider, message)[message.id]


def test_success_of_many() -> None:
    with receivers.http() as (server, received), closing(made()) as provider:
        results = sent(provider, *[to(f"json://127.0.0.1:{server.port}/x") for _ in range(40)])
    assert {result.outcome for result in results.values()} == {Outcome.ACCEPTED}
    assert len(received) == 40
    document = orjson.loads(received[0].body)
    assert (document["title"], document["message"]) == ("Shipped", "Your order, 世界")


@pytest.mark.parametrize(
    ("status", "outcome", "fault"),
    [
        (400, Outcome.REJECTED, None),
        (401, Outcome.REJECTED, Fault.RECIPIENT),
        (403, Outcome.REJECTED, Fault.RECIPIENT),
        (404, Outcome.REJECTED, Fault.RECIPIENT),
        (410, Outcome.REJECTED, Fault.RECIPIENT),
        (429, Outcome.UNSENT, Fault.THROTTLED),
        (500, Outcome.UNSENT, None),
        (503, Outcome.UNSENT, None),
    ],
)
def test_statuses(status: int, outcome: Outcome, fault: Fault | None) -> None:
    with receivers.http(receivers.response(status, b"hush")) as (server, _):
        result = one(f"json://127.0.0.1:{server.port}/hush")
    assert (result.outcome, result.fault, result.status_code) == (outcome, fault, status)
    assert "hush" not in (result.error or "")


def test_nobody_listens() -> None:
    result = one(f"json://127.0.0.1:{receivers.unused_port()}/x")
    assert (result.outcome, result.fault) == (Outcome.UNSENT, None), result.error


def test_an_answer_that_never_comes() -> None:
    with receivers.listening(receivers.until_closed) as server:
        result = one(f"json://127.0.0.1:{server.port}/x", timeout=0.4)
    assert (result.outcome, result.fault) == (Outcome.AMBIGUOUS, None)
    assert (result.error or "").startswith("timeout: ")


def test_an_answer_that_drips_ends_at_the_deadline() -> None:
    began = time.monotonic()
    with receivers.listening(lambda connection: receivers.drip(connection, b"HTTP/1.1 200 OK\r\nx: y\r\n")) as server:
        result = one(f"json://127.0.0.1:{server.port}/x", timeout=0.4)
    assert (result.outcome, result.fault) == (Outcome.AMBIGUOUS, None)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "recipient",
    [
        "json://127.0.0.1/x",
        "xml://127.0.0.1/x",
        "mailto://user:hush@example.com",
        "syslog://",
        "nonsense://x",
        "slack://hush",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general?template=/etc/passwd",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general?VERIFY=no",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general/#random",
    ],
)
def test_addresses_that_are_not_allowed(recipient: str) -> None:
    result = one(recipient, dsn="apprise:")
    assert result.outcome is Outcome.REJECTED
    assert (result.error or "").startswith("address: ")
    assert "hush" not in (result.error or "")


@pytest.mark.parametrize("dsn", ["apprise:?services=nonsense", "apprise:?x=y", "apprise://hush@example.com"])
def test_dsns_that_are_wrong(dsn: str) -> None:
    with pytest.raises(ValueError, match=r"^(names|has) ") as caught:
        made(dsn)
    assert "hush" not in str(caught.value)


def test_redirects_are_not_followed() -> None:
    with receivers.http() as (inner, reached):
        there = f"location: http://127.0.0.1:{inner.port}/latest/meta-data"
        with receivers.http(receivers.response(302, b"", there)) as (server, _):
            result = one(f"json://127.0.0.1:{server.port}/x")
    assert reached == []
    assert (result.outcome, result.status_code) == (Outcome.REJECTED, 302)


@pytest.mark.parametrize("option", ["optional=yes", "retry=1", "wait=60"])
def test_options_that_would_undo_our_limits(option: str) -> None:
    with receivers.http(receivers.response(500)) as (server, received):
        result = one(f"json://127.0.0.1:{server.port}/x?{option}")
    assert (result.outcome, received) == (Outcome.REJECTED, [])
    assert (result.error or "").startswith("address: has an option"), result.error


def test_threads_that_hang_keep_nobody_waiting_for_ever() -> None:
    def drips(connection: socket.socket) -> None:
        receivers.drip(connection, b"HTTP/1.1 200 OK\r\nx: y\r\n")

    with receivers.listening(drips) as hanging, closing(made(timeout=0.6)) as it:
        # On a slow machine some threads end before they hang.
        for _ in range(10):
            results = sent(it, *[to(f"json://127.0.0.1:{hanging.port}/x") for _ in range(33)])
            busy = [result for result in results.values() if (result.error or "").startswith("busy: ")]
            if busy:
                break
    assert {(result.outcome, result.fault) for result in busy} == {(Outcome.UNSENT, Fault.PROVIDER)}


def test_what_a_service_puts_off_past_the_deadline_is_not_sent_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = f"x-ratelimit-reset: {int(time.time()) + 60}"
    with receivers.http(receivers.response(429, b"", "x-ratelimit-remaining: 0", reset)) as (server, received):
        monkeypatch.setattr("apprise.plugins.discord.NotifyDiscord.notify_url", f"http://127.0.0.1:{server.port}")
        result = one("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "apprise:", timeout=1.0)
    assert (result.outcome, result.fault, len(received)) == (Outcome.UNSENT, Fault.THROTTLED, 1), result.error
    assert 50 < (result.retry_after or 0) < 100  # its plugin adds to that for clocks that differ


def test_what_a_service_puts_off_for_a_moment_is_not_repeated_in_the_same_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reset = f"x-ratelimit-reset: {int(time.time())}"
    with receivers.http(receivers.response(429, b"", "x-ratelimit-remaining: 0", reset)) as (server, received):
        monkeypatch.setattr("apprise.plugins.discord.NotifyDiscord.notify_url", f"http://127.0.0.1:{server.port}")
        result = one("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "apprise:", timeout=20.0)
    assert (result.outcome, result.fault, len(received)) == (Outcome.UNSENT, Fault.THROTTLED, 1), result.error


def test_a_message_whose_answer_is_lost_is_not_repeated() -> None:
    received = []

    def talk(connection: socket.socket) -> None:
        received.append(receivers.read_request(connection))

    with receivers.listening(talk) as server, closing(made()) as provider:
        for _ in range(2):
            message = to(f"json://127.0.0.1:{server.port}/x")
            assert sent(provider, message)[message.id].outcome is Outcome.AMBIGUOUS
    assert len(received) == 2


def test_tls_that_breaks_after_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = receivers.certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.file))
    received = []

    def talk(connection: socket.socket) -> None:
        received.append(receivers.read_request(connection))
        with socket.socket(fileno=connection.detach()) as beneath:  # type: ignore[attr-defined, unused-ignore]  # a socket, of which the stub knows less
            beneath.sendall(b"HTTP/1.1 200 in the clear\r\n\r\n")
            receivers.until_closed(beneath)

    with receivers.listening(talk, certificate.server_context()) as server:
        result = one(f"jsons://127.0.0.1:{server.port}/x", "apprise:?services=jsons")
    assert received
    assert result.outcome is Outcome.AMBIGUOUS, result.error


def test_an_answer_with_malformed_headers_does_not_put_the_address_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nno header at all\r\n\r\n"
    with caplog.at_level("INFO"), receivers.http(answer) as (server, _):
        result = one(f"json://127.0.0.1:{server.port}/hush")
    assert result.outcome is Outcome.ACCEPTED
    assert "hush" not in caplog.text


def test_only_a_hosted_service_answers_for_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    with receivers.http(receivers.response(503)) as (server, _):
        monkeypatch.setattr("apprise.plugins.discord.NotifyDiscord.notify_url", f"http://127.0.0.1:{server.port}")
        hosted = one("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "apprise:")
        named = one(f"json://127.0.0.1:{server.port}/x")
    assert (hosted.outcome, hosted.fault) == (Outcome.UNSENT, Fault.PROVIDER)
    assert (named.outcome, named.fault) == (Outcome.UNSENT, None)


@pytest.mark.parametrize("host", ["bücher.localhost", "xn--bcher-kva.localhost"])
def test_an_international_host_is_asked_for_in_ascii(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    names: list[object] = []
    ask = socket.getaddrinfo

    def resolve(name: object, *rest: Any, **options: Any) -> Any:
        names.append(name)
        return ask("127.0.0.1", *rest, **options)

    with receivers.http() as (server, received):
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        result = one(f"json://{host}:{server.port}/ü?x=ü")

    assert result.outcome is Outcome.ACCEPTED
    assert set(names) == {"xn--bcher-kva.localhost"}
    [request] = received
    assert request.headers["host"] == f"xn--bcher-kva.localhost:{server.port}"
    assert request.line.startswith("POST /%C3%BC")
